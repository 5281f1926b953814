"""Compares two benchmark reports, or the models of one: which differences are real, and what may be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, TypeAlias

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


@dataclass(frozen=True)
class BoardChange:
    """The comparison of one board.

    `differences` are conditions that should be equal and are not; `notes` are other differences: versions, and notes of
    the user. `unmatched` are cells without a counterpart. `doubts` are reasons to doubt cells that are compared
    nevertheless.
    """

    board: str
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    cells: tuple[CellChange, ...]
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
    SHA-256, models are paired by name, and count as different. With one report, each model is compared with the
    baseline; cells are paired by kind, detector, threads and batch.

    Args:
        before: A report or its file.
        after: A second report or its file; None: compare the models of `before`.
        baseline: With one report: the model that the others are compared with; default: the first model.
        allow_different: Also compare reports with different boards, clock frequencies, frames, detectors or models. If
            each report has a single model, these two models are paired even if their names differ.

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
    """Compare, on each board of a report, all other models with the baseline."""
    changes = []
    for board in report.boards:
        base = board.models[0].name if baseline is None else _model_named(board, baseline)
        cells, unmatched = [], []
        for model in board.models:
            if model.name != base:
                paired, alone = _compare_with(board, base, model.name)
                cells += paired
                unmatched += alone
        doubts = tuple(_doubts(board, "report"))
        changes.append(BoardChange(board_title(board), (), (), tuple(cells), tuple(unmatched), doubts))
    comparison = Comparison(tuple(changes))
    if not comparison.cells:
        if all(len(board.models) < 2 for board in report.boards):
            boards = "; `edgekit report` shows its boards in one table" if len(report.boards) > 1 else ""
            raise InputError(f"the report contains one model only: measure two or more{boards}")
        raise InputError("no two models were measured with the same kind and threads: measure them in one run")
    return comparison


def _compare_with(board: BoardResult, base: str, model: str) -> tuple[list[CellChange], list[str]]:
    """Return the changes from a baseline model to another, and the cells that only one of them has."""
    before, after = _by_conditions(board, base), _by_conditions(board, model)
    cells = [_change(before[key], after[key]) for key in before if key in after]
    unmatched = [_not_measured(before[key], model) for key in before.keys() - after]
    unmatched += [_not_measured(after[key], base) for key in after.keys() - before]
    return cells, sorted(unmatched)


def _by_conditions(board: BoardResult, model: str) -> dict[tuple[object, ...], CellResult]:
    """Return a model's cells by what must be equal in a comparison with another model of the board."""
    cells = cells_of(board, model)
    return {(cell.kind, cell.detector, cell.intra_op_threads, cell.batch): cell for cell in cells}


def _not_measured(cell: CellResult, other: str) -> str:
    """Return the line for a cell that the model `other` does not have."""
    detector = f" with detector '{cell.detector}'" if cell.detector else ""
    return f"{_cell_name(cell)}: not measured for {other}{detector}"


def _model_named(board: BoardResult, name: str) -> str:
    """Return the name of a board's model, given by this name or by its file name."""
    names = [model.name for model in board.models]
    found = [one for one in names if one == name] or [one for one in names if PurePath(one).name == name]
    if not found:
        raise InputError(f"the report has no model '{name}': it has {', '.join(names)}")
    if len(found) > 1:
        raise InputError(f"the report has several models '{name}': choose one of {', '.join(found)}")
    return found[0]


def _compare_reports(before: BenchmarkReport, after: BenchmarkReport) -> Comparison:
    """Compare the boards that are in both reports; all cells of the other boards are unmatched."""
    pairs = _board_pairs(before, after)
    changes = [_compare_boards(old, new) for old, new in pairs]
    paired = {id(board) for pair in pairs for board in pair}
    for report, which in ((before, "first"), (after, "second")):
        for board in report.boards:
            if id(board) not in paired:
                unmatched = tuple(_only_in(cell, which) for cell in _in_order(board))
                changes.append(BoardChange(board_title(board), (), (), (), unmatched))
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
    model_after, model_differences = _paired_models(before, after)
    unpaired_after = {cell.key: cell for cell in _in_order(after)}
    # The detector's input size in each report; None without a detector, and in reports of older versions.
    sizes_px = before.settings.detector_size_px, after.settings.detector_size_px
    cells, unmatched = [], []
    cell_differences: list[str] = []
    for cell in _in_order(before):
        key = cell.kind, model_after.get(cell.model, ""), cell.engine, cell.intra_op_threads, cell.batch
        other = unpaired_after.pop(key, None)
        if other is None:
            unmatched.append(_only_in(cell, "first"))
            continue
        cells.append(_change(cell, other))
        cell_differences += _cell_differences(cell, other)
        if cell.detector and all(sizes_px) and sizes_px[0] != sizes_px[1]:
            cell_differences.append(f"detector input {sizes_px[0]} and {sizes_px[1]} px")
    unmatched += [_only_in(cell, "second") for cell in unpaired_after.values()]
    differences = [*_board_differences(before, after), *model_differences, *cell_differences]
    caches = before.frame_cache, after.frame_cache
    uses_frames = any(cell.kind in ("frame", "run") for cell in cells)  # the kind "net" uses none
    if uses_frames and caches[0] and caches[1] and caches[0].pixels_sha256 != caches[1].pixels_sha256:
        differences.append(f"frames '{caches[0].source}' and '{caches[1].source}' are not the same")
    title, baseline = board_title(after), board_title(before)
    return BoardChange(
        title if title == baseline else f"A: {baseline}; B: {title}",
        tuple(dict.fromkeys(differences)),  # each once, in their order
        (*_text_differences(before.versions, after.versions), *_text_differences(before.notes, after.notes)),
        tuple(cells),
        tuple(unmatched),
        (*_doubts(before, "first report"), *_doubts(after, "second report")),
    )


def _in_order(board: BoardResult) -> list[CellResult]:
    """Return the cells in the order of tables; a report has them in the random order of their measurement."""
    return [cell for model in board.models for cell in cells_of(board, model.name)]


def _paired_models(before: BoardResult, after: BoardResult) -> tuple[dict[str, str], list[str]]:
    """Return the names of paired models, before to after, and the differences between them.

    Two models are a pair if no other unpaired model has their content and name, their content, their name, or their
    file name, in this order; or if each board has one model.
    """
    unpaired_before, unpaired_after = list(before.models), list(after.models)
    # What must be equal, the strictest first.
    keys: list[Callable[[ModelInfo], object]] = [
        lambda model: (model.sha256, model.name),
        lambda model: model.sha256,
        lambda model: model.name,
        lambda model: PurePath(model.name).name,
    ]
    if len(unpaired_before) == len(unpaired_after) == 1:
        keys.append(lambda _: None)  # any two models
    pairs, differences = {}, []
    for key in keys:
        for model in list(unpaired_before):
            partners = [other for other in unpaired_after if key(other) == key(model)]
            is_unique = [key(other) for other in unpaired_before].count(key(model)) == 1
            if len(partners) == 1 and is_unique:
                (other,) = partners
                pairs[model.name] = other.name
                unpaired_before.remove(model)
                unpaired_after.remove(other)
                if other.sha256 != model.sha256:
                    differences.append(f"model '{model.name}' is another file than '{other.name}'")
    return pairs, differences


def _board_differences(before: BoardResult, after: BoardResult) -> Iterator[str]:
    """Yield the differences of machine, governor and clock, which make times incomparable."""
    for field in _BOARD_FIELDS:
        one, other = getattr(before.board, field), getattr(after.board, field)
        if one != other:
            yield f"board {field} '{one}' and '{other}'"
    if before.before.governor != after.before.governor:
        yield f"governor '{before.before.governor}' and '{after.before.governor}'"
    one_mhz, other_mhz = _clock_mhz(before), _clock_mhz(after)
    if one_mhz and other_mhz and max(one_mhz, other_mhz) > min(one_mhz, other_mhz) * (1 + _CLOCK_TOLERANCE):
        yield f"clock {one_mhz:.0f} and {other_mhz:.0f} MHz"


def _clock_mhz(board: BoardResult) -> float | None:
    """Return the median clock during the processes that were neither throttled nor had a changing clock."""
    clocks = [
        reading.clock_mhz
        for cell in board.cells
        for process in cell.processes
        for reading in process.during
        if reading.clock_mhz and INVALIDATING.isdisjoint(process.quality_flags)
    ]
    return float(np.median(clocks)) if clocks else None


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
    verdict: Verdict = "not judged"
    why: str | None = _FEW_PROCESSES
    if before_limits and after_limits:
        ratio_limits = ratio_interval(before_ms, before_limits, after_ms, after_limits)
        verdict, why = _verdict(ratio_limits), None
    invalid = sorted(INVALIDATING.intersection(before.quality_flags + after.quality_flags))
    if invalid:
        verdict, why = "not judged", ", ".join(invalid)
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
    if ratio_limits[0] > 1:
        return "slower"
    return "faster" if ratio_limits[1] < 1 else "no difference"


def _median_interval(cell: CellResult) -> Interval | None:
    """Return the interval of the median, widened to include the median, which rounding may have put outside."""
    limits, median_ms = cell.median_interval_ms, cell.latency.p50_ms
    return None if limits is None else (min(limits[0], median_ms), max(limits[1], median_ms))


def _only_in(cell: CellResult, which: str) -> str:
    return f"{_cell_name(cell)}: only in the {which} report"


def _cell_name(cell: CellResult | CellChange) -> str:
    return f"{cell.model}, {cell.kind}, {counted(cell.intra_op_threads, 'thread')}"
