"""Which differences are real, what may be compared, and what a gate lets through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgekit.errors import InputError
from edgekit.report.compare import compare, regressions, unjudged
from edgekit.report.merging import merge

MakeDocument = Callable[..., dict[str, Any]]


def verdicts(before: dict[str, Any], after: dict[str, Any], allow_different: bool = False) -> set[str]:
    return {cell.verdict for change in compare(before, after, allow_different) for cell in change.cells}


@pytest.mark.parametrize(
    ("slower", "verdict"), [(1.0, "no difference"), (1.005, "no difference"), (1.03, "slower"), (0.97, "faster")]
)
def test_a_difference_is_real_when_its_interval_excludes_none(
    make_document: MakeDocument, slower: float, verdict: str
) -> None:
    assert verdicts(make_document(), make_document(slower=slower)) == {verdict}


def test_a_gate_wants_a_real_difference_larger_than_its_percent(make_document: MakeDocument) -> None:
    before = make_document()
    assert regressions(compare(before, make_document(slower=1.04)), 5) == []
    assert len(regressions(compare(before, make_document(slower=1.06)), 5)) == 4
    noisy = make_document(slower=1.06)
    for cell in noisy["boards"][0]["cells"]:
        cell["median_interval_ms"] = [cell["latency"]["p50_ms"] * 0.8, cell["latency"]["p50_ms"] * 1.25]
    assert regressions(compare(before, noisy), 5) == []
    assert unjudged(compare(before, noisy)) == []


def test_cells_measured_beside_other_programs_are_told(make_document: MakeDocument) -> None:
    busy = make_document()
    cells = busy["boards"][0]["cells"]
    cells[0]["marks"] = ["busy"]
    (change,) = compare(make_document(), busy)
    (doubt,) = change.doubts
    assert doubt.startswith(f"1 of {len(cells)} cells of the second report are marked busy: other programs")
    assert compare(make_document(), make_document())[0].doubts == ()


def set_in(document: dict[str, Any], *path: Any) -> dict[str, Any]:
    *keys, last, value = path
    place = document["boards"][0]
    for key in keys:
        place = place[key]
    place[last] = value
    return document


def slow_clock(document: dict[str, Any]) -> dict[str, Any]:
    for cell in document["boards"][0]["cells"]:
        for process in cell["processes"]:
            for reading in process["during"]:
                reading["clock_mhz"] = 1200.0
    return document


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: set_in(made, "board", "model", "Raspberry Pi 4"), "board model"),
        (lambda made: set_in(made, "board", "virtualization", "emulator"), "board virtualization"),
        (lambda made: set_in(made, "clip", "pixels_sha256", "f" * 64), "frames 'demo' and 'demo' are not the same"),
        (lambda made: set_in(made, "models", 0, "sha256", "f" * 64), "another file"),
        (lambda made: set_in(made, "before", "governor", "performance"), "governor 'ondemand' and 'performance'"),
        (lambda made: set_in(made, "cells", 1, "detector", "yunet"), "detector"),
        (slow_clock, "clock 1400 and 1200 MHz"),
    ],
)
def test_what_differs_is_refused_unless_told(
    make_document: MakeDocument, change: Callable[[Any], Any], message: str
) -> None:
    other = change(make_document())
    if message == "detector":
        other["boards"][0]["cells"][2]["detector"] = "yunet"
    with pytest.raises(InputError, match=message):
        compare(make_document(), other)
    (told,) = compare(make_document(), other, allow_different=True)
    assert any(message.split("'")[0].strip() in difference for difference in told.differences)


def test_other_versions_are_noted_not_refused(make_document: MakeDocument) -> None:
    (change,) = compare(make_document(), set_in(make_document(), "versions", "onnxruntime", "1.33.0"))
    assert change.notes == ("onnxruntime 1.32.0 and 1.33.0",)


def test_a_model_is_the_same_by_its_file_whatever_it_is_called(make_document: MakeDocument) -> None:
    (change,) = compare(make_document("old.onnx"), make_document("folder/new.onnx"))
    assert (len(change.cells), change.differences) == (4, ())


def test_two_single_models_are_paired_when_told(make_document: MakeDocument) -> None:
    other = set_in(make_document("int8.onnx"), "models", 0, "sha256", "f" * 64)
    (change,) = compare(make_document("float.onnx"), other, allow_different=True)
    assert len(change.cells) == 4


@pytest.mark.parametrize("mark", ["throttled", "clock changed"])
def test_a_spoilt_cell_tells_nothing(make_document: MakeDocument, mark: str) -> None:
    hot = set_in(make_document(slower=1.5), "cells", 0, "marks", [mark])
    changes = compare(make_document(), hot)
    assert changes[0].cells[0].verdict == "cannot tell"
    assert unjudged(changes) == [f"edgecnn.onnx, inference, 1 threads: {mark}"]
    assert len(regressions(changes, 5)) == 3


def test_a_cell_without_interval_or_partner_is_named(make_document: MakeDocument) -> None:
    other = set_in(make_document(), "cells", 0, "median_interval_ms", None)
    other["boards"][0]["cells"].pop()
    assert unjudged(compare(make_document(), other)) == [
        "edgecnn.onnx, inference, 1 threads: fewer than three processes",
        "edgecnn.onnx, pipeline, 4 threads: only in the first report",
    ]


def test_boards_are_paired_by_label(make_document: MakeDocument) -> None:
    both = [merge([make_document(slower=a), make_document(slower=b)], names) for a, b, names in (
        (1, 2, ["x", "y"]), (2, 1.5, ["y", "x"]))]  # fmt: skip
    assert [{cell.verdict for cell in change.cells} for change in compare(*both)] == [{"slower"}, {"no difference"}]
    with pytest.raises(InputError, match="no board of the same label"):
        compare(both[0], make_document(label="z"))
    with pytest.raises(InputError, match="share a label"):
        compare(merge([make_document(), make_document()]), both[0])


def test_a_board_that_only_one_report_has_is_not_let_through(make_document: MakeDocument) -> None:
    both = merge([make_document(), make_document()], ["x", "y"])
    one = make_document(label="x")
    for pair, where in (((both, one), "first"), ((one, both), "second")):
        told, alone = compare(*pair)
        assert (len(told.cells), told.unmatched, alone.cells) == (4, (), ())
        assert alone.board.startswith("y, ")
        assert unjudged([told, alone]) == list(alone.unmatched)
        assert len(alone.unmatched) == 4
        assert all(name.endswith(f"only in the {where} report") for name in alone.unmatched)


def test_reports_with_nothing_in_common_are_refused(make_document: MakeDocument) -> None:
    other = make_document()
    for cell in other["boards"][0]["cells"]:
        cell["intra_op_threads"] += 10
    with pytest.raises(InputError, match="no cell in common"):
        compare(make_document(), other)


def test_compared_with_itself_nothing_differs(make_document: MakeDocument) -> None:
    document = make_document("a.onnx", "b.onnx")
    (change,) = compare(document, document)
    assert {cell.ratio for cell in change.cells} == {1.0}
    assert (change.differences, change.notes, change.unmatched) == ((), (), ())
    assert unjudged([change]) == []
