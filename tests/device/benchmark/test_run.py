"""`edgekit.benchmark` and `edgekit.compare` from Python."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import edgekit
from edgekit.device.benchmark.rounds import BenchmarkProgress
from edgekit.errors import InputError
from edgekit.report.schema import from_document

QUICK: dict[str, Any] = {"threads": [1], "seconds": 0.01, "cool_down_s": 0, "detector": "none"}


def test_two_models_are_measured_reported_and_compared(tiny_model: Path, tmp_path: Path) -> None:
    other = shutil.copy(tiny_model, tmp_path / "other.onnx")
    states: list[BenchmarkProgress] = []
    report = edgekit.benchmark([tiny_model, other], kinds=["net", "run"], processes=1, progress=states.append, **QUICK)
    (board,) = report.boards
    assert report.complete
    assert [model.name for model in board.models] == [str(tiny_model), str(other)]
    assert {(cell.model, cell.kind) for cell in board.cells} == {
        (str(model), kind) for model in (tiny_model, other) for kind in ("net", "run")
    }
    assert board.frame_cache is not None
    assert board.frame_cache.source == "demo"
    assert from_document(report.as_document(), "it") == report
    assert len([state for state in states if state.finished]) == states[-1].total == 4
    assert states[-1].done == 4
    comparison = edgekit.compare(report, baseline="other.onnx")
    assert {cell.model for cell in comparison.cells} == {str(tiny_model)}
    assert len(comparison.cells) == 2


def test_ctrl_c_returns_the_report_of_the_finished_processes(tiny_model: Path) -> None:
    def stop(state: BenchmarkProgress) -> None:
        if state.finished:
            raise KeyboardInterrupt

    report = edgekit.benchmark(tiny_model, kinds=["net"], progress=stop, **QUICK)
    assert not report.complete
    assert [len(cell.processes) for cell in report.boards[0].cells] == [1]


def test_names_in_the_report_may_differ_from_the_files(tiny_model: Path) -> None:
    report = edgekit.benchmark(tiny_model, kinds=["net"], processes=1, report_name=str.upper, **QUICK)
    assert {cell.model for cell in report.boards[0].cells} == {str(tiny_model).upper()}


def test_the_report_states_the_size_of_a_detector_of_fixed_size(tiny_model: Path, yunet_640: Path) -> None:
    options = {**QUICK, "detector": "yunet", "processes": 1}
    (board,) = edgekit.benchmark(tiny_model, kinds=["frame"], detector_model=yunet_640, **options).boards
    assert board.settings.detector_size_px == 640


def test_wrong_arguments_are_refused_before_measuring() -> None:
    for model, wrong in (("x" * 501, {}), ("default", {"processes": 0}), ("default", {"cool_down_s": -1})):
        with pytest.raises(InputError):
            edgekit.benchmark(model, **wrong)


def test_of_two_models_the_one_of_faces_gets_the_detector(tiny_model: Path, tiny_image_model: Path) -> None:
    options = {**QUICK, "detector": "haar", "processes": 1}
    (board,) = edgekit.benchmark([tiny_model, tiny_image_model], kinds=["frame"], **options).boards
    assert {cell.model: cell.detector for cell in board.cells} == {
        str(tiny_model): "haar",
        str(tiny_image_model): "none",
    }
