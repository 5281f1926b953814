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
    before, after = (
        {(cell.kind, cell.detector, cell.intra_op_threads, cell.batch): cell for cell in cells_of(board, name)}
        for name in (base, model)
    )
    cells = [_change(before[key], after[key]) for key in before if key in after]
    unmatched = [f"{_cell_name(before[key])}: not measured for {model}{_with(key[1])}" for key in before.keys() - after]
    unmatched += [f"{_cell_name(after[key])}: not measured for {base}{_with(key[1])}" for key in after.keys() - before]
    return cells, sorted(unmatched)


def _with(detector: str | None) -> str:
    return f" with detector '{detector}'" if detector else ""


def _model_named(board: BoardResult, name: str) -> str:
    names = [model.name for model in board.models]
    found = [one for one in names if one == name] or [one for one in names if PurePath(one).name == name]
    if not found:
        raise InputError(f"the report has no model '{name}': it has {', '.join(names)}")
    if len(found) > 1:
        raise InputError(f"the report has several models '{name}': choose one of {', '.join(found)}")
    return found[0]


def _compare_reports(before: BenchmarkReport, after: BenchmarkReport) -> Comparison:
    pairs = _pairs(before, after)
    changes = [_compare_boards(old, new) for old, new in pairs]
    paired = {id(board) for pair in pairs for board in pair}
    for report, which in ((before, "first"), (after, "second")):
        for board in report.boards:
            if id(board) not in paired:
                unmatched = tuple(_only_in(cell, which) for cell in _in_order(board))
                changes.append(BoardChange(board_title(board), (), (), (), unmatched))
    return Comparison(tuple(changes))


def _pairs(before: BenchmarkReport, after: BenchmarkReport) -> list[tuple[BoardResult, BoardResult]]:
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
    models, model_differences = _paired_models(before, after)
    rest = {cell.key: cell for cell in _in_order(after)}
    sizes_px = before.settings.detector_size_px, after.settings.detector_size_px
    cells, unmatched = [], []
    cell_differences: list[str] = []
    for cell in _in_order(before):
        other = rest.pop((cell.kind, models.get(cell.model, ""), cell.engine, cell.intra_op_threads, cell.batch), None)
        if other is None:
            unmatched.append(_only_in(cell, "first"))
            continue
        cells.append(_change(cell, other))
        cell_differences += _cell_differences(cell, other)
        if cell.detector and all(sizes_px) and sizes_px[0] != sizes_px[1]:
            cell_differences.append(f"detector input {sizes_px[0]} and {sizes_px[1]} px")
    unmatched += [_only_in(cell, "second") for cell in rest.values()]
    differences = [*_board_differences(before, after), *model_differences, *cell_differences]
    caches = before.frame_cache, after.frame_cache
    from_memory = any(cell.kind in ("frame", "run") for cell in cells)
    if from_memory and caches[0] and caches[1] and caches[0].pixels_sha256 != caches[1].pixels_sha256:
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
    left, right = list(before.models), list(after.models)
    keys: list[Callable[[ModelInfo], object]] = [
        lambda model: (model.sha256, model.name),
        lambda model: model.sha256,
        lambda model: model.name,
        lambda model: PurePath(model.name).name,
    ]
    if len(left) == len(right) == 1:
        keys.append(lambda _: None)
    pairs, differences = {}, []
    for key in keys:
        for model in list(left):
            partners = [other for other in right if key(other) == key(model)]
            if len(partners) == 1 and [key(other) for other in left].count(key(model)) == 1:
                (other,) = partners
                pairs[model.name] = other.name
                left.remove(model)
                right.remove(other)
                if other.sha256 != model.sha256:
                    differences.append(f"model '{model.name}' is another file than '{other.name}'")
    return pairs, differences


def _board_differences(before: BoardResult, after: BoardResult) -> Iterator[str]:
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
    """Return the median clock of the valid processes."""
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
    for flag, explanation in EXPLANATIONS.items():
        count = sum(flag in cell.quality_flags for cell in board.cells)
        if count and flag not in INVALIDATING:
            yield f"{count} of {len(board.cells)} cells of the {where} have the quality flag '{flag}': {explanation}"


def _change(before: CellResult, after: CellResult) -> CellChange:
    invalid = sorted(INVALIDATING.intersection(before.quality_flags + after.quality_flags))
    intervals = _interval(before), _interval(after)
    medians_ms = before.latency.p50_ms, after.latency.p50_ms
    between: Interval | None = None
    verdict: Verdict = "not judged"
    why: str | None = _FEW_PROCESSES
    if intervals[0] and intervals[1]:
        between = ratio_interval(medians_ms[0], intervals[0], medians_ms[1], intervals[1])
        verdict = "slower" if between[0] > 1 else "faster" if between[1] < 1 else "no difference"
        why = None
    if invalid:
        verdict, why = "not judged", ", ".join(invalid)
    return CellChange(
        model=after.model,
        baseline=before.model,
        kind=after.kind,
        engine=after.engine,
        intra_op_threads=after.intra_op_threads,
        batch=after.batch,
        before_ms=medians_ms[0],
        after_ms=medians_ms[1],
        ratio=medians_ms[1] / medians_ms[0],
        ratio_interval=between,
        verdict=verdict,
        why=why,
    )


def _interval(cell: CellResult) -> Interval | None:
    """Return the interval of the median, widened to include the median, which rounding may have put outside."""
    limits, median_ms = cell.median_interval_ms, cell.latency.p50_ms
    return limits and (min(limits[0], median_ms), max(limits[1], median_ms))


def _only_in(cell: CellResult, which: str) -> str:
    return f"{_cell_name(cell)}: only in the {which} report"


def _cell_name(cell: CellResult | CellChange) -> str:
    return f"{cell.model}, {cell.kind}, {counted(cell.intra_op_threads, 'thread')}"
