"""Compares two benchmark reports, or the models of one: which differences are real, and what may be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from edgekit.errors import InputError
from edgekit.report.document import (
    EXPLANATIONS,
    INVALIDATING,
    BenchmarkReport,
    BoardResult,
    CellResult,
    Interval,
    ModelInfo,
    read_document,
)
from edgekit.report.statistics import ratio_interval
from edgekit.report.view import board_title, cells_of, thread_text
from edgekit.text import counted

Verdict: TypeAlias = Literal["faster", "slower", "no difference", "not judged"]

_CLOCK_TOLERANCE = 0.03
_FEW_PROCESSES = "fewer than three processes"
# The reasons for "not judged", and what to do about them.
_CURES = {_FEW_PROCESSES: "measure with --processes 3 or more"} | {flag: EXPLANATIONS[flag] for flag in INVALIDATING}
_BOARD_FIELDS = ("model", "cpu", "processors", "architecture", "userland_bits", "virtualization")


@dataclass(frozen=True)
class CellChange:
    """Comparison of one cell of a model (B) with the same cell of its baseline (A).

    `ratio` is B's median latency divided by A's, `ratio_interval` its 95 % interval. `why` is the reason for "not
    judged".
    """

    model: str
    baseline: str
    kind: str
    engine: str
    intra_op_threads: int
    batch: int
    before_ms: float
    after_ms: float
    ratio: float
    ratio_interval: Interval | None
    verdict: Verdict
    why: str | None

    @property
    def name(self) -> str:
        """Return the name of the cell in messages."""
        return _cell_name(self)

    def is_regression(self, percent: float) -> bool:
        """Return whether the verdict is "slower" and the median grew by more than `percent`."""
        return self.verdict == "slower" and self.ratio > 1 + percent / 100


@dataclass(frozen=True, kw_only=True)
class BoardChange:
    """The comparison of one board.

    `differences` are conditions that should be equal and are not; `notes` are other differences: versions, and notes of
    the user. `unmatched` are cells without a counterpart. `doubts` are reasons to doubt cells that are compared
    nevertheless.
    """

    board: str
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    cells: tuple[CellChange, ...] = ()
    unmatched: tuple[str, ...]
    doubts: tuple[str, ...] = ()

    @property
    def cures(self) -> list[str]:
        """The reasons for "not judged", each with what to do about it."""
        # `why` has one reason or several, separated by commas.
        reasons = {reason for cell in self.cells if cell.why for reason in cell.why.split(", ")}
        return [f"{reason}: {cure}" for reason, cure in _CURES.items() if reason in reasons]


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`, one entry per board."""

    boards: tuple[BoardChange, ...]

    @property
    def cells(self) -> list[CellChange]:
        """The compared cells of all boards."""
        return [cell for board in self.boards for cell in board.cells]

    def judged(self) -> list[CellChange]:
        """Return the cells that a gate can judge."""
        return [cell for cell in self.cells if cell.verdict != "not judged"]

    def unjudged(self) -> list[str]:
        """Return the cells that a gate cannot judge: without an interval, invalid, or without a counterpart."""
        found = []
        for board in self.boards:
            names = [f"{cell.name}: {cell.why}" for cell in board.cells if cell.verdict == "not judged"]
            found += [self.on_board(board, name) for name in (*names, *board.unmatched)]
        return found

    def on_board(self, board: BoardChange, name: str) -> str:
        """Return the name of a cell, with the title of its board if there are several boards."""
        return name if len(self.boards) == 1 else f"{board.board}: {name}"


def compare(
    before: BenchmarkReport | Path | str,
    after: BenchmarkReport | Path | str | None = None,
    *,
    baseline: str | None = None,
    allow_different: bool = False,
) -> Comparison:
    """Return the differences between two benchmark reports, or between the models of one report.

    A difference is real if the 95 % interval of the ratio of the medians does not contain 1.

    With two reports, boards are paired by label; if each report has a single board, these two are paired. Cells are
    paired by kind, engine, threads, batch and model. Models are paired by the SHA-256 of their files. Without an equal
    SHA-256, models are paired by name or file name, and count as different. With one report, each model is compared
    with the baseline; cells are paired by kind, detector, threads and batch.

    Args:
        before: A report or its file.
        after: A second report or its file; None: compare the models of `before`.
        baseline: With one report: the model that the others are compared with; default: the first model.
        allow_different: Also compare reports with different boards, clock frequencies, frames, detectors or models. If
            both boards of a pair have a single model, these two are paired even if their names differ.

    Raises:
        InputError: A file is not a report, nothing can be paired, or conditions differ and `allow_different` is false.

    Example:
        >>> for cell in edgekit.compare("report.json", baseline="float.onnx").cells:
        ...     print(cell.model, cell.kind, cell.ratio, cell.ratio_interval, cell.verdict)
    """
    first = _opened(before)
    if after is None:
        return _compare_models(first, baseline)
    if baseline is not None:
        raise InputError("a baseline model is for one report: with two, the first is the baseline")
    comparison = _compare_reports(first, _opened(after))
    differences = [difference for board in comparison.boards for difference in board.differences]
    if differences and not allow_different:
        raise InputError(f"not comparable: {'; '.join(differences)}: allow_different (--allow-different) compares them")
    if not comparison.cells:
        raise InputError("the two reports have no cell in common: measure the same models, threads and kinds")
    return comparison


def _opened(report: BenchmarkReport | Path | str) -> BenchmarkReport:
    return report if isinstance(report, BenchmarkReport) else read_document(Path(report))


def _compare_models(report: BenchmarkReport, baseline: str | None) -> Comparison:
    """Compare, on each board of a report, all other models with the baseline; by default the board's first model."""
    changes = []
    for board in report.boards:
        baseline_name = board.models[0].name if baseline is None else _model_named(board, baseline)
        cells, unmatched = [], []
        for model in board.models:
            if model.name != baseline_name:
                compared_cells, missing_cells = _compare_with(board, baseline_name, model.name)
                cells += compared_cells
                unmatched += missing_cells
        title, doubts = board_title(board), tuple(_doubts(board, "report"))
        changes.append(BoardChange(board=title, cells=tuple(cells), unmatched=tuple(unmatched), doubts=doubts))
    comparison = Comparison(tuple(changes))
    if not comparison.cells:
        if all(len(board.models) < 2 for board in report.boards):
            boards = "; `edgekit report` shows its boards in one table" if len(report.boards) > 1 else ""
            raise InputError(f"the report contains one model only: measure two or more{boards}")
        raise InputError("no two models were measured with the same kind and threads: measure them in one run")
    return comparison


def _compare_with(board: BoardResult, baseline: str, model: str) -> tuple[list[CellChange], list[str]]:
    """Return the changes from a baseline model to another model, and a line for each cell that only one of them has."""
    baseline_cells, model_cells = _by_conditions(board, baseline), _by_conditions(board, model)
    changes = [_change(cell, model_cells[key]) for key, cell in baseline_cells.items() if key in model_cells]
    missing = [_not_measured(cell, model) for key, cell in baseline_cells.items() if key not in model_cells]
    missing += [_not_measured(cell, baseline) for key, cell in model_cells.items() if key not in baseline_cells]
    return changes, sorted(missing)


def _by_conditions(board: BoardResult, model: str) -> dict[tuple[object, ...], CellResult]:
    """Return a model's cells by their conditions, which must be equal in a comparison of two models of a board."""
    cells = cells_of(board, model)
    return {(cell.kind, cell.detector, cell.intra_op_threads, cell.batch): cell for cell in cells}


def _not_measured(cell: CellResult, other: str) -> str:
    """Return the line for a cell that the model `other` does not have."""
    detector = f" with detector '{cell.detector}'" if cell.detector else ""
    return f"{_cell_name(cell)}: not measured for {other}{detector}"


def _model_named(board: BoardResult, name: str) -> str:
    """Return the name of a board's model, given by this name or by its file name."""
    names = [model.name for model in board.models]
    exact = [each for each in names if each == name]
    found = exact or [each for each in names if PurePath(each).name == name]
    if not found:
        raise InputError(f"the report has no model '{name}': it has {', '.join(names)}")
    if len(found) > 1:
        raise InputError(f"the report has several models '{name}': choose one of {', '.join(found)}")
    return found[0]


def _compare_reports(before: BenchmarkReport, after: BenchmarkReport) -> Comparison:
    """Compare the boards that are in both reports; all cells of the other boards are unmatched."""
    pairs = _board_pairs(before, after)
    changes = [_compare_boards(board_before, board_after) for board_before, board_after in pairs]
    # By identity, because the results of two boards can be equal.
    paired_ids = {id(board) for pair in pairs for board in pair}
    for report, which in ((before, "first"), (after, "second")):
        for board in report.boards:
            if id(board) not in paired_ids:
                unmatched = tuple(_only_in(cell, which) for cell in _in_order(board))
                changes.append(BoardChange(board=board_title(board), unmatched=unmatched))
    return Comparison(tuple(changes))


def _board_pairs(before: BenchmarkReport, after: BenchmarkReport) -> list[tuple[BoardResult, BoardResult]]:
    """Return the boards of equal label, or the only board of each report."""
    if len(before.boards) == len(after.boards) == 1:
        return [(before.boards[0], after.boards[0])]
    for report in (before, after):
        labels = [board.label for board in report.boards]
        if len(set(labels)) < len(labels):
            raise InputError("two boards of a report have the same label: give each its own")
    by_label = {board.label: board for board in after.boards}
    pairs = [(board, by_label[board.label]) for board in before.boards if board.label in by_label]
    if not pairs:
        raise InputError("the two reports have no board of the same label")
    return pairs


def _compare_boards(before: BoardResult, after: BoardResult) -> BoardChange:
    """Compare each cell of `before` with its counterpart in `after`, and list what differs between the boards."""
    name_after, model_differences = _paired_models(before, after)
    differences = [*_board_differences(before, after), *model_differences]
    unpaired_after = {cell.key: cell for cell in _in_order(after)}
    pairs, unmatched = [], []
    for cell in _in_order(before):
        # The counterpart has the same key, except for another name of the model ("": it has no counterpart).
        key = msgspec.structs.replace(cell, model=name_after.get(cell.model, "")).key
        counterpart = unpaired_after.pop(key, None)
        if counterpart is None:
            unmatched.append(_only_in(cell, "first"))
            continue
        pairs.append((cell, counterpart))
        differences += _cell_differences(cell, counterpart)
    unmatched += [_only_in(cell, "second") for cell in unpaired_after.values()]
    if any(cell.detector for cell, _ in pairs):
        differences += _detector_size_differences(before, after)
    if any(cell.kind in ("frame", "run") for cell, _ in pairs):  # the kind "net" uses no frames
        differences += _frame_differences(before, after)
    title_before, title_after = board_title(before), board_title(after)
    return BoardChange(
        board=title_after if title_after == title_before else f"A: {title_before}; B: {title_after}",
        differences=tuple(dict.fromkeys(differences)),  # each once, in their order
        notes=(*_text_differences(before.versions, after.versions), *_text_differences(before.notes, after.notes)),
        cells=tuple(_change(cell, counterpart) for cell, counterpart in pairs),
        unmatched=tuple(unmatched),
        doubts=(*_doubts(before, "first report"), *_doubts(after, "second report")),
    )


def _in_order(board: BoardResult) -> list[CellResult]:
    """Return the cells in the order of tables; a report has them in the random order of their measurement."""
    return [cell for model in board.models for cell in cells_of(board, model.name)]


def _paired_models(before: BoardResult, after: BoardResult) -> tuple[dict[str, str], list[str]]:
    """Return the names of paired models, before to after, and the differences between them.

    Models are paired in rounds: by content and name, then by content, by name, and by file name. A pair must be unique
    among the models that are still unpaired. If each board has one model, these two are a pair.
    """
    unpaired_before, unpaired_after = list(before.models), list(after.models)
    # What must be equal in each round.
    rounds: list[Callable[[ModelInfo], object]] = [
        lambda model: (model.sha256, model.name),
        lambda model: model.sha256,
        lambda model: model.name,
        lambda model: PurePath(model.name).name,
    ]
    if len(unpaired_before) == len(unpaired_after) == 1:
        rounds.append(lambda _: None)  # equal for any two models
    pairs, differences = {}, []
    for identity in rounds:
        for model in list(unpaired_before):
            equals_before = [other for other in unpaired_before if identity(other) == identity(model)]
            equals_after = [other for other in unpaired_after if identity(other) == identity(model)]
            if len(equals_before) > 1 or len(equals_after) != 1:
                continue
            partner = equals_after[0]
            pairs[model.name] = partner.name
            unpaired_before.remove(model)
            unpaired_after.remove(partner)
            if partner.sha256 != model.sha256:
                differences.append(f"model '{model.name}' is another file than '{partner.name}'")
    return pairs, differences


def _board_differences(before: BoardResult, after: BoardResult) -> Iterator[str]:
    """Yield the differences of machine, governor and clock, which make times incomparable."""
    for field in _BOARD_FIELDS:
        first, second = getattr(before.board, field), getattr(after.board, field)
        if first != second:
            yield f"board {field} '{first}' and '{second}'"
    # `BoardResult.before` is the state of the board before the benchmark.
    first_governor, second_governor = before.before.governor, after.before.governor
    if first_governor != second_governor:
        yield f"governor '{first_governor}' and '{second_governor}'"
    first_mhz, second_mhz = _clock_mhz(before), _clock_mhz(after)  # an unknown clock is not compared
    if first_mhz and second_mhz and max(first_mhz, second_mhz) > min(first_mhz, second_mhz) * (1 + _CLOCK_TOLERANCE):
        yield f"clock {first_mhz:.0f} and {second_mhz:.0f} MHz"


def _clock_mhz(board: BoardResult) -> float | None:
    """Return the median clock during the processes that were neither throttled nor had a changing clock.

    None if no process has a reading.
    """
    clocks = [
        reading.clock_mhz
        for cell in board.cells
        for process in cell.processes
        for reading in process.during
        if reading.clock_mhz and INVALIDATING.isdisjoint(process.quality_flags)
    ]
    return float(np.median(clocks)) if clocks else None


def _detector_size_differences(before: BoardResult, after: BoardResult) -> Iterator[str]:
    """Yield a line if the detector had another input size; reports of older versions do not have the size."""
    size_px, other_px = before.settings.detector_size_px, after.settings.detector_size_px
    if size_px and other_px and size_px != other_px:
        yield f"detector input {size_px} and {other_px} px"


def _frame_differences(before: BoardResult, after: BoardResult) -> Iterator[str]:
    """Yield a line if the frames that were detected and classified had other pixels."""
    frames, other = before.frame_cache, after.frame_cache
    if frames and other and frames.pixels_sha256 != other.pixels_sha256:
        yield f"frames '{frames.source}' and '{other.source}' are not the same"


def _cell_differences(before: CellResult, after: CellResult) -> Iterator[str]:
    if before.detector != after.detector:
        yield f"detector '{before.detector}' and '{after.detector}'"
    if before.threads and after.threads and before.threads != after.threads:
        yield f"run with {thread_text(before.threads)}, and with {thread_text(after.threads)}"


def _text_differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            yield f"{name} {before.get(name, 'not given')} and {after.get(name, 'not given')}"


def _doubts(board: BoardResult, where: str) -> Iterator[str]:
    """Yield a line per quality flag of cells that are compared nevertheless; `where` is the report in the text."""
    for flag, explanation in EXPLANATIONS.items():
        count = sum(flag in cell.quality_flags for cell in board.cells)
        if count and flag not in INVALIDATING:
            yield f"{count} of {len(board.cells)} cells of the {where} have the quality flag '{flag}': {explanation}"


def _change(before: CellResult, after: CellResult) -> CellChange:
    """Return the change of the median from one cell to another, with the verdict."""
    before_ms, after_ms = before.latency.p50_ms, after.latency.p50_ms
    before_limits, after_limits = _median_interval(before), _median_interval(after)
    ratio_limits: Interval | None = None
    if before_limits and after_limits:
        ratio_limits = ratio_interval(before_ms, before_limits, after_ms, after_limits)
    verdict: Verdict = "not judged"
    why: str | None = None
    if invalidating_flags := INVALIDATING.intersection(before.quality_flags + after.quality_flags):
        why = ", ".join(sorted(invalidating_flags))
    elif ratio_limits is None:
        why = _FEW_PROCESSES
    else:
        verdict = _verdict(ratio_limits)
    return CellChange(
        model=after.model,
        baseline=before.model,
        kind=after.kind,
        engine=after.engine,
        intra_op_threads=after.intra_op_threads,
        batch=after.batch,
        before_ms=before_ms,
        after_ms=after_ms,
        ratio=after_ms / before_ms,
        ratio_interval=ratio_limits,
        verdict=verdict,
        why=why,
    )


def _verdict(ratio_limits: Interval) -> Verdict:
    """Return the verdict on a ratio of times: a difference is real if its interval does not contain 1."""
    lower, upper = ratio_limits
    if lower > 1:
        return "slower"
    return "faster" if upper < 1 else "no difference"


def _median_interval(cell: CellResult) -> Interval | None:
    """Return the interval of the median, widened to include the median, which rounding may have put outside."""
    limits, median_ms = cell.median_interval_ms, cell.latency.p50_ms
    return None if limits is None else (min(limits[0], median_ms), max(limits[1], median_ms))


def _only_in(cell: CellResult, which: str) -> str:
    return f"{_cell_name(cell)}: only in the {which} report"


def _cell_name(cell: CellResult | CellChange) -> str:
    return f"{cell.model}, {cell.kind}, {counted(cell.intra_op_threads, 'thread')}"
