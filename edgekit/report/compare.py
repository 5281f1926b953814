"""Two benchmark documents side by side: which differences are real, and whether the two may be compared at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal, TypeAlias

import numpy as np

from edgekit.errors import InputError
from edgekit.report.quality_flags import EXPLANATIONS, INVALIDATING
from edgekit.report.statistics import Interval, ratio_interval
from edgekit.report.view import board_title

Verdict: TypeAlias = Literal["faster", "slower", "no difference", "cannot tell"]

_FIRST, _SECOND = "only in the first report", "only in the second report"
_CLOCK_TOLERANCE = 0.03
_BOARD_FIELDS = ("model", "cpu", "processors", "architecture", "userland_bits", "virtualization")


@dataclass(frozen=True)
class CellChange:
    """One cell in both documents: medians, and the ratio of their latencies with its 95 % interval.

    `why` says for "cannot tell" what is missing.
    """

    model: str
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


@dataclass(frozen=True)
class BoardChange:
    """One board in both documents. `differences` are what should have been the same and is not; `notes` may differ.

    `unmatched` names the cells that only one of the two has: all of them, where only one has the board. `doubts` say
    what makes cells of either document doubtful and is no reason to throw them away.
    """

    board: str
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    cells: tuple[CellChange, ...]
    unmatched: tuple[str, ...]
    doubts: tuple[str, ...] = ()


def compare(before: Mapping[str, Any], after: Mapping[str, Any], allow_different: bool = False) -> list[BoardChange]:
    """Return what changed from one document to another.

    Boards are paired by their labels, a single one in each with the other. Cells are paired by kind, engine, threads,
    batch and model; a model is the same if its file is, else if its name is, which counts as a difference.

    Args:
        before: A checked document.
        after: Another.
        allow_different: Compare although board, clock, frames or model differ; a single model in each is then paired
            whatever it is called.

    Raises:
        InputError: Nothing can be paired, or something differs that must not.
    """
    pairs = _pairs(before["boards"], after["boards"])
    changes = [_compare_boards(old, new) for old, new in pairs]
    paired = {id(entry) for pair in pairs for entry in pair}
    for document, where in ((before, _FIRST), (after, _SECOND)):
        changes += [_alone(entry, where) for entry in document["boards"] if id(entry) not in paired]
    differences = [difference for change in changes for difference in change.differences]
    if differences and not allow_different:
        raise InputError(f"not comparable: {'; '.join(differences)}: --allow-different compares them all the same")
    if not any(change.cells for change in changes):
        raise InputError("the two reports have no cell in common: measure the same models, threads and kinds")
    return changes


def regressions(changes: Sequence[BoardChange], percent: float) -> list[CellChange]:
    """Return the cells that are slower, for real, by more than `percent`."""
    cells = [cell for change in changes for cell in change.cells]
    return [cell for cell in cells if cell.verdict == "slower" and cell.ratio > 1 + percent / 100]


def unjudged(changes: Sequence[BoardChange]) -> list[str]:
    """Return what a gate cannot vouch for: cells without an interval, spoilt, or missing from one document."""
    found = [
        f"{_name(cell)}: {cell.why}" for change in changes for cell in change.cells if cell.verdict == "cannot tell"
    ]
    return found + [name for change in changes for name in change.unmatched]


def _name(cell: CellChange) -> str:
    return f"{PurePath(cell.model).name}, {cell.kind}, {cell.intra_op_threads} threads"


def _pairs(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    if len(before) == len(after) == 1:
        return [(before[0], after[0])]
    for boards in (before, after):
        labels = [entry["label"] for entry in boards]
        if len(set(labels)) < len(labels):
            raise InputError("boards share a label, so that they cannot be told apart: give each one its own")
    by_label = {entry["label"]: entry for entry in after}
    pairs = [(entry, by_label[entry["label"]]) for entry in before if entry["label"] in by_label]
    if not pairs:
        raise InputError("the two reports have no board of the same label")
    return pairs


def _compare_boards(before: Mapping[str, Any], after: Mapping[str, Any]) -> BoardChange:
    models, differences = _paired_models(before, after)
    cells, unmatched = [], []
    rest = {_place(cell, cell["model"]): cell for cell in after["cells"]}
    for cell in before["cells"]:
        other = rest.pop(_place(cell, models.get(cell["model"], "")), None)
        if other is None:
            unmatched.append(_place_text(cell, _FIRST))
            continue
        cells.append(_change(cell, other))
        if cell["detector"] != other["detector"]:
            differences.append(f"detector '{cell['detector']}' and '{other['detector']}'")
    unmatched += [_place_text(cell, _SECOND) for cell in rest.values()]
    differences = _board_differences(before, after) + differences
    pipelines = any(cell.kind == "pipeline" for cell in cells)
    clips = before["clip"], after["clip"]
    if pipelines and all(clips) and clips[0]["pixels_sha256"] != clips[1]["pixels_sha256"]:
        differences.append(f"frames '{clips[0]['source']}' and '{clips[1]['source']}' are not the same")
    versions = {**before["versions"], **after["versions"]}
    notes = [
        f"{name} {before['versions'].get(name, 'none')} and {after['versions'].get(name, 'none')}"
        for name in versions
        if before["versions"].get(name) != after["versions"].get(name)
    ]
    # In the order they came, each once.
    return BoardChange(
        board_title(after),
        tuple(dict.fromkeys(differences)),
        tuple(notes),
        tuple(cells),
        tuple(unmatched),
        (*_doubts(before, "first"), *_doubts(after, "second")),
    )


def _doubts(entry: Mapping[str, Any], which: str) -> Iterator[str]:
    for mark, explanation in EXPLANATIONS.items():
        count = sum(mark in cell["marks"] for cell in entry["cells"])
        if count and mark not in INVALIDATING:
            yield f"{count} of {len(entry['cells'])} cells of the {which} report are marked {mark}: {explanation}"


def _alone(entry: Mapping[str, Any], where: str) -> BoardChange:
    unmatched = tuple(_place_text(cell, where) for cell in entry["cells"])
    return BoardChange(board_title(entry), (), (), (), unmatched)


def _paired_models(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    sums = {model["name"]: model["sha256"] for model in after["models"]}
    by_sum = {model["sha256"]: model["name"] for model in after["models"]}
    by_name = {PurePath(model["name"]).name: model["name"] for model in after["models"]}
    lone = len(before["models"]) == len(after["models"]) == 1
    pairs, differences = {}, []
    for model in before["models"]:
        name = model["name"]
        other = name if sums.get(name) == model["sha256"] else by_sum.get(model["sha256"])
        if other is None:
            other = by_name.get(PurePath(name).name)
            if other is None and lone:
                other = after["models"][0]["name"]
            if other is not None:
                differences.append(f"model '{PurePath(name).name}' is another file than '{PurePath(other).name}'")
        if other is not None:
            pairs[name] = other
    return pairs, differences


def _board_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    found = [
        f"board {field} '{before['board'][field]}' and '{after['board'][field]}'"
        for field in _BOARD_FIELDS
        if before["board"][field] != after["board"][field]
    ]
    if before["before"]["governor"] != after["before"]["governor"]:
        found.append(f"governor '{before['before']['governor']}' and '{after['before']['governor']}'")
    one, other = _clock_mhz(before), _clock_mhz(after)
    if one and other and max(one, other) > min(one, other) * (1 + _CLOCK_TOLERANCE):
        found.append(f"clock {one:.0f} and {other:.0f} MHz")
    return found


def _clock_mhz(entry: Mapping[str, Any]) -> float | None:
    """Return the median clock while unspoilt processes ran; spoilt ones are judged by their marks."""
    clocks = [
        reading["clock_mhz"]
        for cell in entry["cells"]
        for process in cell["processes"]
        for reading in process["during"]
        if reading["clock_mhz"] and not set(process["marks"]) & set(INVALIDATING)
    ]
    return float(np.median(clocks)) if clocks else None


def _change(before: Mapping[str, Any], after: Mapping[str, Any]) -> CellChange:
    medians = before["latency"]["p50_ms"], after["latency"]["p50_ms"]
    intervals = before["median_interval_ms"], after["median_interval_ms"]
    spoilt = sorted({mark for cell in (before, after) for mark in cell["marks"]} & set(INVALIDATING))
    between: Interval | None = None
    verdict: Verdict = "cannot tell"
    why = None
    if intervals[0] and intervals[1]:
        between = ratio_interval(
            medians[0], _holding(intervals[0], medians[0]), medians[1], _holding(intervals[1], medians[1])
        )
        verdict = "slower" if between[0] > 1 else "faster" if between[1] < 1 else "no difference"
    else:
        why = "fewer than three processes"
    if spoilt:
        verdict, why = "cannot tell", ", ".join(spoilt)
    return CellChange(
        model=after["model"],
        kind=after["kind"],
        engine=after["engine"],
        intra_op_threads=after["intra_op_threads"],
        batch=after["batch"],
        before_ms=medians[0],
        after_ms=medians[1],
        ratio=medians[1] / medians[0],
        ratio_interval=between,
        verdict=verdict,
        why=why,
    )


def _holding(interval: Sequence[float], value: float) -> Interval:
    # Rounding, or a stranger's document, may put a median outside its own interval.
    return min(interval[0], value), max(interval[1], value)


def _place(cell: Mapping[str, Any], model: str) -> tuple[Any, ...]:
    return model, cell["kind"], cell["engine"], cell["intra_op_threads"], cell["batch"]


def _place_text(cell: Mapping[str, Any], where: str) -> str:
    return f"{PurePath(cell['model']).name}, {cell['kind']}, {cell['intra_op_threads']} threads: {where}"
