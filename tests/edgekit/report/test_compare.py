"""Comparison of benchmark reports: significant differences, comparable reports and gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgekit.errors import InputError
from edgekit.report import compare as comparing
from edgekit.report.compare import Comparison
from edgekit.report.document import BenchmarkReport, from_document, merge

MakeDocument = Callable[..., dict[str, Any]]


Document = dict[str, Any]


def compare(before: Document, after: Document | None = None, **options: Any) -> Comparison:
    reports = [None if document is None else from_document(document, "it") for document in (before, after)]
    assert reports[0] is not None
    return comparing.compare(*reports, **options)


def merged(*documents: Document, labels: list[str | None] | None = None) -> BenchmarkReport:
    named = None if labels is None else [[label] for label in labels]
    return merge([from_document(document, "it") for document in documents], named)


def regressions(comparison: Comparison, percent: float) -> int:
    return len([cell for cell in comparison.cells if cell.is_regression(percent)])


@pytest.mark.parametrize(
    ("slower", "verdict"), [(1.0, "no difference"), (1.005, "no difference"), (1.03, "slower"), (0.97, "faster")]
)
def test_a_difference_is_real_when_its_interval_excludes_none(
    make_document: MakeDocument, slower: float, verdict: str
) -> None:
    assert {cell.verdict for cell in compare(make_document(), make_document(slower=slower)).cells} == {verdict}


def test_a_gate_needs_a_real_difference_larger_than_its_percent(make_document: MakeDocument) -> None:
    before = make_document()
    assert regressions(compare(before, make_document(slower=1.04)), 5) == 0
    assert regressions(compare(before, make_document(slower=1.06)), 5) == 4
    noisy = make_document(slower=1.06)
    for cell in noisy["boards"][0]["cells"]:
        cell["median_interval_ms"] = [cell["latency"]["p50_ms"] * 0.8, cell["latency"]["p50_ms"] * 1.25]
    assert regressions(compare(before, noisy), 5) == 0
    assert compare(before, noisy).unjudged() == []


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
        (lambda made: set_in(made, "clip", "pixels_sha256", "f" * 64), "frames 'demo' and 'demo' are not the same"),
        (lambda made: set_in(made, "models", 0, "sha256", "f" * 64), "another file"),
        (lambda made: set_in(made, "before", "governor", "performance"), "governor 'ondemand' and 'performance'"),
        (lambda made: set_in(made, "cells", 1, "detector", "yunet"), "detector"),
        (slow_clock, "clock 1400 and 1200 MHz"),
        (lambda made: set_in(made, "settings", "detector_size_px", 640), "detector input 320 and 640 px"),
    ],
)
def test_reports_that_differ_are_refused_unless_allowed(
    make_document: MakeDocument, change: Callable[[Any], Any], message: str
) -> None:
    other = change(make_document())
    if message == "detector":
        other["boards"][0]["cells"][2]["detector"] = "yunet"
    with pytest.raises(InputError, match=message):
        compare(make_document(), other)
    (board,) = compare(make_document(), other, allow_different=True).boards
    assert any(message.split("'")[0].strip() in difference for difference in board.differences)


def test_the_detectors_input_matters_to_cells_with_a_detector_only(make_document: MakeDocument) -> None:
    small, large = (set_in(make_document(), "settings", "detector_size_px", size) for size in (160, 320))
    for made in (small, large):
        made["boards"][0]["cells"] = [cell for cell in made["boards"][0]["cells"] if cell["kind"] == "net"]
    assert compare(small, large).boards[0].differences == ()
    # A report of an earlier version does not contain this size.
    unknown = set_in(make_document(), "settings", "detector_size_px", None)
    assert compare(unknown, make_document()).boards[0].differences == ()


def test_other_versions_are_noted_not_refused(make_document: MakeDocument) -> None:
    (change,) = compare(make_document(), set_in(make_document(), "versions", "onnxruntime", "1.33.0")).boards
    assert change.notes == ("onnxruntime 1.32.0 and 1.33.0",)


def test_loops_with_other_threads_are_refused(make_document: MakeDocument) -> None:
    reports = [make_document() for _ in range(2)]
    for document, detector in zip(reports, (1, 2), strict=True):
        uses = {"staged": True, "detector": detector, "classifier": 1, "opencv": 1}
        for cell in document["boards"][0]["cells"]:
            if cell["kind"] == "frame":
                cell |= {"kind": "run", "threads": uses}
    with pytest.raises(InputError, match=r"run with one thread per stage; threads: detector 1.*detector 2"):
        compare(*reports)


def test_a_model_is_the_same_by_its_file_whatever_it_is_called(make_document: MakeDocument) -> None:
    (change,) = compare(make_document("old.onnx"), make_document("folder/new.onnx")).boards
    assert (len(change.cells), change.differences) == (4, ())


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        # name and content of each model
        ({"a/best": "1", "b/best": "2"}, {"a/best": "3", "b/best": "2"}, {"a/best": "a/best", "b/best": "b/best"}),
        ({"a": "1", "b": "2"}, {"a": "2", "c": "3"}, {"b": "a"}),
        ({"a/best": "1", "b/best": "2", "x": "3"}, {"c/best": "4", "x": "5"}, {"x": "x"}),
        ({"a/best": "1"}, {"b/best": "2", "b/other": "3"}, {"a/best": "b/best"}),
    ],
)
def test_each_model_has_at_most_one_partner(
    make_document: MakeDocument, before: dict[str, str], after: dict[str, str], expected: dict[str, str]
) -> None:
    reports = []
    for models in (before, after):
        reports.append(make_document(*models))
        for model, content in zip(reports[-1]["boards"][0]["models"], models.values(), strict=True):
            model["sha256"] = content * 64
    (change,) = compare(*reports, allow_different=True).boards
    assert {cell.baseline: cell.model for cell in change.cells} == expected


def test_a_baseline_that_several_models_have_is_refused(make_document: MakeDocument) -> None:
    with pytest.raises(InputError, match="several models 'best': choose one of a/best, b/best"):
        compare(make_document("a/best", "b/best"), baseline="best")


def test_a_cell_with_an_invalidating_flag_is_not_judged(make_document: MakeDocument) -> None:
    hot = set_in(make_document(slower=1.5), "cells", 0, "marks", ["throttled"])
    comparison = compare(make_document(), hot)
    assert comparison.cells[0].verdict == "not judged"
    assert comparison.unjudged() == ["edgecnn.onnx, net, 1 thread: throttled"]
    assert regressions(comparison, 5) == 3


def test_cells_are_compared_in_the_order_of_tables_and_not_of_measurement(make_document: MakeDocument) -> None:
    names = [
        f"{model}, {kind}, {threads}"
        for model in ("b.onnx", "a.onnx")
        for kind in ("net", "frame")
        for threads in ("1 thread", "4 threads")
    ]
    shuffled = make_document("b.onnx", "a.onnx")
    shuffled["boards"][0]["cells"].reverse()
    (change,) = compare(shuffled, make_document("b.onnx", "a.onnx")).boards
    assert [cell.name for cell in change.cells] == names
    (change,) = compare(shuffled, make_document("b.onnx")).boards
    assert change.unmatched == tuple(f"{name}: only in the first report" for name in names[4:])


def test_a_cell_without_interval_or_partner_is_named(make_document: MakeDocument) -> None:
    other = set_in(make_document(), "cells", 0, "median_interval_ms", None)
    other["boards"][0]["cells"].pop()
    assert compare(make_document(), other).unjudged() == [
        "edgecnn.onnx, net, 1 thread: fewer than three processes",
        "edgecnn.onnx, frame, 4 threads: only in the first report",
    ]


def test_boards_are_paired_by_label(make_document: MakeDocument) -> None:
    first = merged(make_document(), make_document(slower=2), labels=["x", "y"])
    second = merged(make_document(slower=2), make_document(slower=1.5), labels=["y", "x"])
    changes = comparing.compare(first, second).boards
    assert [{cell.verdict for cell in change.cells} for change in changes] == [{"slower"}, {"no difference"}]
    with pytest.raises(InputError, match="no board of the same label"):
        comparing.compare(first, from_document(make_document(label="z"), "it"))
    with pytest.raises(InputError, match="have the same label"):
        comparing.compare(merged(make_document(), make_document()), first)


def test_a_board_that_only_one_report_has_does_not_pass_a_gate(make_document: MakeDocument) -> None:
    both = merged(make_document(), make_document(), labels=["x", "y"])
    one = from_document(make_document(label="x"), "it")
    for pair, where in (((both, one), "first"), ((one, both), "second")):
        comparison = comparing.compare(*pair)
        paired, alone = comparison.boards
        assert (len(paired.cells), paired.unmatched, alone.cells) == (4, (), ())
        assert alone.board.startswith("y, ")
        assert comparison.unjudged() == [f"{alone.board}: {name}" for name in alone.unmatched]
        assert len(alone.unmatched) == 4
        assert all(name.endswith(f"only in the {where} report") for name in alone.unmatched)


def test_reports_with_nothing_in_common_are_refused(make_document: MakeDocument) -> None:
    other = make_document()
    for cell in other["boards"][0]["cells"]:
        cell["intra_op_threads"] += 10
    with pytest.raises(InputError, match="no cell in common"):
        compare(make_document(), other)


def test_the_models_of_one_report_are_compared_with_the_first_or_a_named_one(make_document: MakeDocument) -> None:
    document = make_document("folder/a.onnx", "b.ncnn", "c.onnx")
    for cell in document["boards"][0]["cells"]:
        cell["engine"] = "ncnn" if cell["model"] == "b.ncnn" else "onnxruntime"
    cells = compare(document).cells
    assert [(cell.baseline, cell.model) for cell in cells] == [("folder/a.onnx", "b.ncnn")] * 4 + [
        ("folder/a.onnx", "c.onnx")
    ] * 4
    assert [round(cell.ratio, 6) for cell in cells] == [2.0] * 4 + [3.0] * 4
    assert all(cell.ratio_interval and cell.ratio_interval[0] < cell.ratio < cell.ratio_interval[1] for cell in cells)
    assert {cell.verdict for cell in cells} == {"slower"}
    named = compare(document, baseline="b.ncnn").cells
    assert {(cell.model, round(cell.ratio, 6)) for cell in named} == {("folder/a.onnx", 0.5), ("c.onnx", 1.5)}
    assert compare(document, baseline="a.onnx").cells == cells


def test_a_cell_that_only_one_model_of_a_report_has_is_named(make_document: MakeDocument) -> None:
    document = make_document("a.onnx", "b.onnx")
    del document["boards"][0]["cells"][0]
    del document["boards"][0]["cells"][-1]
    assert compare(document).unjudged() == [
        "a.onnx, frame, 4 threads: not measured for b.onnx with detector 'haar'",
        "b.onnx, net, 1 thread: not measured for a.onnx",
    ]


def test_models_measured_with_different_detectors_are_not_compared(make_document: MakeDocument) -> None:
    document = make_document("face.onnx", "whole.onnx")
    for cell in document["boards"][0]["cells"]:
        if cell["model"] == "whole.onnx":
            cell["detector"] = None
    comparison = compare(document)
    assert {cell.kind for cell in comparison.cells} == {"net"}
    assert len(comparison.unjudged()) == 4


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (("a.onnx",), {}, "contains one model only"),
        (("a.onnx", "b.onnx"), {"baseline": "c.onnx"}, "no model 'c.onnx': it has a.onnx, b.onnx"),
    ],
)
def test_one_report_without_the_models_is_refused(
    make_document: MakeDocument, models: tuple[str, ...], options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        compare(make_document(*models), **options)
    with pytest.raises(InputError, match="`edgekit report` shows its boards in one table"):
        compare(merged(make_document(label="kitchen"), make_document(label="attic")))
    with pytest.raises(InputError, match="baseline model is for one report"):
        compare(make_document(), make_document(), baseline="a.onnx")
