"""`edgekit verify` from the command line: accepted files and refused files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.contract import Contract, CropSpec, InputSpec, OutputSpec
from tests.edgekit.onnx_faults import with_document
from tests.exports import export_checkpoint

Run = Callable[..., tuple[int, str, str]]

CONTRACT = Contract(
    architecture="edgecnn",
    labels=("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    input=InputSpec("input", (44, 44), "rgb", 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
    crop=CropSpec(margin=0.04, grayscale=True, resize_hw=(48, 48), center_crop_hw=(44, 44)),
    output=OutputSpec("logits"),
)


@pytest.fixture(scope="module")
def checkpoint(untrained: Callable[[Contract], Path]) -> Path:
    return untrained(CONTRACT)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Path:
    return export_checkpoint(checkpoint, checkpoint.with_name("model.onnx")).path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gray and colour images of several sizes, as PNG and JPEG files."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for index, label in enumerate(CONTRACT.labels):
        (folder / "test" / label).mkdir(parents=True)
        for number, (side, channels) in enumerate([(48, 1), (48, 3), (64, 3), (30, 1)]):
            small = generator.integers(0, 256, (6, 6, channels), np.uint8)
            picture = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
            suffix = "jpg" if index % 2 else "png"
            assert cv2.imwrite(str(folder / "test" / label / f"{number}.{suffix}"), picture)
    return folder


def test_an_export_passes(edgekit: Run, model: Path, checkpoint: Path, data: Path) -> None:
    code, out, err = edgekit("verify", model, "--against", checkpoint, "--data", data, "--split", "test", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["passed"] is True
    assert document["images"] == 28
    assert document["crops"] == {"different": 0, "max_abs_difference": 0, "first": None}
    assert document["logits"]["max_abs_difference"] < 1e-5
    assert document["top1"]["same"] == 28
    sides = document["accuracy"]
    assert sides["training"] == sides["device"]
    assert set(sides["device"]["per_class"]) == set(CONTRACT.labels)
    assert "verified" in err


def test_a_file_of_another_program_is_compared_with_itself(
    edgekit: Run, model: Path, data: Path, tmp_path: Path
) -> None:
    foreign = with_document(model, tmp_path / "foreign.onnx", None)
    options = ("--data", data, "--split", "test", "--json")
    assert edgekit("verify", model, "--against", foreign, *options)[0] == 2
    for against, is_itself in ((model, True), (shutil.copy(model, tmp_path / "copy.onnx"), False)):
        code, out, _ = edgekit("verify", model, "--against", against, *options)
        assert (code, json.loads(out)["itself"]) == (0, is_itself)


def test_two_files_are_compared_and_limit_takes_images_of_all_classes(edgekit: Run, model: Path, data: Path) -> None:
    code, out, _ = edgekit(
        "verify", model, "--against", model, "--data", data, "--split", "test", "--limit", 7, "--json"
    )
    assert code == 0
    document = json.loads(out)
    assert document["images"] == 7
    assert document["logits"]["max_abs_difference"] == 0
    assert sum(share is not None for share in document["accuracy"]["device"]["per_class"].values()) >= 5


def test_pictures_that_are_not_square_are_verified_and_another_fit_is_found(
    edgekit: Run, model: Path, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "test/happy").mkdir(parents=True)
    picture = cv2.imread(str(data / "test/happy/2.jpg"))
    assert cv2.imwrite(str(tmp_path / "test/happy/square.png"), picture)
    assert cv2.imwrite(str(tmp_path / "test/happy/wide.png"), cv2.resize(picture, (96, 64)))
    arguments = ("--against", checkpoint, "--data", tmp_path, "--split", "test")
    assert edgekit("verify", model, *arguments)[0] == 0
    stretching = replace(CONTRACT, crop=replace(CONTRACT.crop, fit="stretch"))
    code, _, err = edgekit("verify", with_document(model, tmp_path / "other.onnx", stretching.to_json()), *arguments)
    assert code == 3
    assert "preprocessing differs on 1 of 2 images" in err
    assert "first on 'test/happy/wide.png'" in err


def test_a_wrong_weight_is_found(edgekit: Run, model: Path, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    proto = onnx.load(model)
    tensor = next(each for each in proto.graph.initializer if each.name == "blocks.1.2.expand.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.1), tensor.name))
    path = tmp_path / "wrong.onnx"
    onnx.save(proto, path)
    code, _, err = edgekit("verify", path, "--against", checkpoint, "--data", data, "--split", "test")
    assert code == 3
    assert "logits differ by up to" in err
    assert len(err.splitlines()) == 1


def test_a_quantised_file_is_checked_by_labels_and_relative_logits(
    edgekit: Run, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    int8 = tmp_path / "int8.onnx"
    quantize = ("--quantize", "int8", "--calibrate", data, "--calibrate-split", "test")
    code, out, err = edgekit("export", checkpoint, "-o", int8, *quantize)
    assert code == 0, err
    arguments = ("--against", checkpoint, "--data", data, "--split", "test", "--json")
    code, out, err = edgekit("verify", int8, *arguments)
    document = json.loads(out)
    assert (document["precision"], document["logits"]["tolerance"]) == ("int8", None)
    assert 1e-4 < document["logits"]["max_abs_difference"] < 1
    relative, allowed = document["logits"]["relative_difference"], document["logits"]["relative_tolerance"]
    assert (code == 0) is (document["top1"]["agreement"] >= 0.95 and relative <= allowed), err


def test_what_a_device_cannot_run_is_refused_with_one_line(
    edgekit: Run, model: Path, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    batch = onnx.load(model)
    batch.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(batch, tmp_path / "batch.onnx")
    with_document(model, tmp_path / "labels.onnx", replace(CONTRACT, labels=("a", "b")).to_json())
    with_document(model, tmp_path / "none.onnx", None)
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:100_000])
    for name, expected in (("batch", 3), ("labels", 3), ("none", 2), ("cut", 2)):
        path = tmp_path / f"{name}.onnx"
        code, _, err = edgekit("verify", path, "--against", checkpoint, "--data", data, "--split", "test", "-q")
        assert (code, len(err.splitlines())) == (expected, 1), (name, err)
