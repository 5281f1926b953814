"""`edgekit.benchmark` and `edgekit.compare` from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edgekit
from edgekit.device.benchmark.rounds import BenchmarkProgress
from edgekit.errors import InputError
from edgekit.report.document import from_document

QUICK: dict[str, Any] = {"threads": [1], "seconds": 0.01, "cool_down_s": 0}


def test_two_models_are_measured_reported_and_compared(
    tiny_model: Path, tiny_image_model: Path, yunet_640: Path, crops: Path
) -> None:
    states: list[BenchmarkProgress] = []
    report = edgekit.benchmark(
        [tiny_model, tiny_image_model],
        kinds=["net", "frame"],
        source=str(crops),
        detector=yunet_640,
        processes=1,
        report_name=lambda name: Path(name).stem,
        progress=states.append,
        **QUICK,
    )
    (board,) = report.boards
    assert report.complete
    assert [model.name for model in board.models] == ["tiny", "tiny-image"]
    # Only the model of faces gets the detector, whose file has a fixed size.
    assert {(cell.model, cell.kind): cell.detector for cell in board.cells} == {
        ("tiny", "net"): None,
        ("tiny-image", "net"): None,
        ("tiny", "frame"): "yunet",
        ("tiny-image", "frame"): "none",
    }
    assert board.settings.detector_size_px == 640
    assert (board.frame_cache.source, board.frame_cache.frames) == (crops.stem, 3)
    assert from_document(report.as_document(), "it") == report
    assert len([state for state in states if state.finished]) == states[-1].total == states[-1].done == 4
    comparison = edgekit.compare(report, baseline="tiny-image")
    assert [(cell.model, cell.kind) for cell in comparison.cells] == [("tiny", "net")]  # the frames had other detectors


def test_a_model_of_features_has_no_pipeline_to_measure() -> None:
    backbone = Path(edgekit.__file__).parent / "assets" / "backbone.onnx"
    with pytest.raises(InputError):
        edgekit.benchmark(backbone, kinds=["run"], **QUICK)


def test_ctrl_c_returns_the_report_of_the_finished_processes(tiny_model: Path) -> None:
    def stop(state: BenchmarkProgress) -> None:
        if state.finished:
            raise KeyboardInterrupt

    report = edgekit.benchmark(tiny_model, kinds=["net"], progress=stop, **QUICK)
    assert not report.complete
    assert [len(cell.processes) for cell in report.boards[0].cells] == [1]
