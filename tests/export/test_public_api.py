"""`edgekit.export`, `quantize`, `verify` and `profile` from Python: typed results, progress, errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgekit
from edgekit.device.imaging import as_frame
from edgekit.errors import GateError, InputError
from edgekit.export.verification import comparison
from edgekit.models.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.data import EXPRESSIONS
from edgekit.models.data.readers import load_dataset
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import create_model

from .conftest import stir


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint that is exported quickly."""
    path = tmp_path_factory.mktemp("small") / "best.safetensors"
    net = stir(create_model("mini-xception", 7))
    save_checkpoint(path, Checkpoint(contract_for("mini-xception", EXPRESSIONS, "faces", gray=True), net.state_dict()))
    return path


@pytest.fixture(scope="module")
def small_onnx(small: Path) -> Path:
    return edgekit.export(small, small.with_name("small.onnx")).path


@pytest.fixture
def faces(draw_faces: Callable[..., Path], tmp_path: Path) -> Path:
    return draw_faces(tmp_path / "faces", {"Training": 14, "PrivateTest": 14})


@pytest.mark.parametrize(
    "options",
    [
        {"target": "pi9"},
        {"merges": ["a=happy"]},
        {"classes": ["a", "b"], "classes_file": "x.json"},
        {"tagret": "a53"},
    ],
)
def test_export_refuses_what_does_not_fit(small: Path, tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        edgekit.export(small, tmp_path / "x.onnx", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["benchmark", "crop_photos", "evaluate", "evaluate_photos", "export", "profile", "quantize", "verify"]
)
def test_an_argument_that_is_unknown_or_missing_is_an_input_error(name: str) -> None:
    for arguments in ({"unknown": 1}, {}):
        with pytest.raises(InputError):
            getattr(edgekit, name)(**arguments)


@pytest.mark.slow
def test_quantize_takes_an_exported_file_and_applies_the_gate(small_onnx: Path, faces: Path, tmp_path: Path) -> None:
    target = tmp_path / "int8.onnx"
    result = edgekit.quantize(
        small_onnx, target, calibrate=faces, calibration_images=4, evaluate_on=faces, max_drop_points=100
    )
    assert result.source is None
    assert result.contract.precision == "int8"
    assert result.own is not None
    assert result.own.total == 14
    assert target.stat().st_size == result.size_bytes < small_onnx.stat().st_size
    with pytest.raises(InputError, match="name a calibration data set"):
        edgekit.quantize(small_onnx, target)
    with pytest.raises(InputError, match="is exported already"):
        edgekit.quantize(small_onnx, target, method="fp16", merges=["a=happy"])
    with pytest.raises(InputError, match="takes no calibration"):
        edgekit.quantize(small_onnx, target, method="fp16", calibrate=faces)


def test_quantize_takes_two_data_sets_with_equal_names(small_onnx: Path, faces: Path, tmp_path: Path) -> None:
    calibrate, evaluate_on = load_dataset(faces, 48), load_dataset(faces, 48)
    options = {"calibration_images": 4, "max_drop_points": 100}
    result = edgekit.quantize(
        small_onnx, tmp_path / "int8.onnx", calibrate=calibrate, evaluate_on=evaluate_on, **options
    )
    assert result.own is not None
    assert result.own.total == 14


def test_quantize_refuses_a_missing_split_of_data_for_both_purposes(small: Path, faces: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no split 'other'"):
        edgekit.quantize(small, tmp_path / "int8.onnx", calibrate=faces, evaluate_on=faces, evaluation_split="other")


def test_quantize_reports_images_that_it_leaves_out(small_onnx: Path, faces: Path, tmp_path: Path) -> None:
    (faces / "PrivateTest" / "happy").rename(faces / "PrivateTest" / "contempt")
    lines: list[str] = []
    edgekit.quantize(
        small_onnx, tmp_path / "d.onnx", method="fp16", evaluate_on=faces, max_drop_points=100, notify=lines.append
    )
    assert any("images of contempt are removed" in line for line in lines)


@pytest.fixture
def wide_faces(tmp_path: Path) -> Path:
    """Seven colour pictures that are not square, one for each expression."""
    generator = np.random.default_rng(0)
    for index, name in enumerate(EXPRESSIONS):
        file = tmp_path / "wide" / "test" / name / f"{index}.png"
        file.parent.mkdir(parents=True)
        assert cv2.imwrite(str(file), generator.integers(0, 256, (50, 90, 3), np.uint8))
    return tmp_path / "wide"


def test_export_verifies_the_file_on_the_users_own_images(small: Path, wide_faces: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    exported = edgekit.export(small, tmp_path / "own.onnx", evaluate_on=wide_faces, notify=lines.append)
    assert exported.path == tmp_path / "own.onnx"
    assert exported.path.stat().st_size == exported.size_bytes
    assert lines == [f"exporting {small}", "verified on 7 images of wide: pixels and labels are equal"]


def test_a_file_that_differs_on_own_images_is_kept_under_another_name(
    small: Path, wide_faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        comparison, "as_frame", lambda image: as_frame(image)[:, ::-1]
    )  # as if a device mirrored images
    folder = tmp_path / "new"
    with pytest.raises(GateError, match=r"preprocessing differs on 7 of 7 images.*kept as '.*own.refused.onnx'"):
        edgekit.export(small, folder / "own.onnx", evaluate_on=wide_faces, evaluation_split="test")
    assert [path.name for path in folder.iterdir()] == ["own.refused.onnx"]
