"""A contract for ONNX classifiers of other programs: what they state, and graphs of several forms."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgekit
from edgekit.errors import InputError
from edgekit.export.foreign.import_onnx import import_onnx
from edgekit.export.foreign.import_options import ImportOptions, read_labels
from edgekit.preprocess import ImageU8, softmax

LABELS = ("a", "b", "c")
MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
VALUES = ImportOptions(mean=MEAN, std=STD, image_size=8)
COLOURS_RGB = np.array([[0, 0, 0], [255, 0, 51], [102, 255, 255], [9, 8, 7], [1, 1, 1]], np.uint8)
LOGITS = (COLOURS_RGB / 255 - MEAN) / STD


def channel_means(
    path: Path,
    shape: tuple[Any, ...] = (1, 3, 8, 8),
    *,
    softmax: bool = False,
    reshaped: tuple[int, ...] = (),
    kind: int = TensorProto.FLOAT,
    stated: Mapping[str, str] | None = None,
) -> Path:
    """Write a graph whose logits are the means of the three channels."""
    axes = [1, 2] if shape[3] == 3 else [2, 3]
    nodes = [helper.make_node("ReduceMean", ["x"], ["mean"], axes=axes, keepdims=0)]
    if is_uint8 := kind == TensorProto.UINT8:
        nodes[0].input[0] = "pixels"
        nodes.insert(0, helper.make_node("Cast", ["x"], ["pixels"], to=TensorProto.FLOAT))
    initializers = []
    if reshaped:
        initializers = [numpy_helper.from_array(np.array(reshaped, np.int64), "shape")]
        nodes.append(helper.make_node("Reshape", ["mean", "shape"], ["flat"]))
    last = "flat" if reshaped else "mean"
    nodes.append(helper.make_node("Softmax" if softmax else "Identity", [last], ["y"]))
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT if is_uint8 else kind, [shape[0], 3])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(stated or {}))
    onnx.save(model, path)
    return path


def pictures() -> list[ImageU8]:
    """Return one picture per colour, B, G, R."""
    return [np.full((20, 30, 3), colour[::-1], np.uint8) for colour in COLOURS_RGB]


@pytest.mark.parametrize("softmax_last", [False, True])
@pytest.mark.parametrize(
    ("shape", "reshaped"),
    [
        (("n", 3, 8, 8), ()),
        ((1, 3, 8, 8), (1, 3)),
        ((1, 3, 8, 8), (1, -1)),
        ((4, 3, "h", "w"), ()),
        (("n", 8, 8, 3), ()),
    ],
)
def test_any_classifier_gets_a_contract(
    tmp_path: Path, shape: tuple[Any, ...], reshaped: tuple[int, ...], softmax_last: bool
) -> None:
    path = channel_means(tmp_path / "plain.onnx", shape, softmax=softmax_last, reshaped=reshaped)
    import_onnx(path, tmp_path / "mine.onnx", LABELS, VALUES)
    model = edgekit.load_model(tmp_path / "mine.onnx")
    assert (model.labels, model.contract.subject) == (LABELS, "image")
    probabilities = model.predict(pictures()).probabilities
    np.testing.assert_allclose(probabilities, softmax(LOGITS.astype(np.float32)), atol=1e-5)


def test_the_weights_of_an_old_file_can_stand_before_the_images(tmp_path: Path) -> None:
    path = channel_means(tmp_path / "old.onnx", reshaped=(1, 3))
    model = onnx.load(path)
    images = model.graph.input.pop()
    model.graph.input.extend([helper.make_tensor_value_info("shape", TensorProto.INT64, [2]), images])
    onnx.save(model, path)
    import_onnx(path, tmp_path / "mine.onnx", LABELS, VALUES)
    probabilities = edgekit.load_model(tmp_path / "mine.onnx").predict(pictures()).probabilities
    np.testing.assert_allclose(probabilities, softmax(LOGITS.astype(np.float32)), atol=1e-5)


def test_the_order_of_the_channels_can_be_given(tmp_path: Path) -> None:
    path = channel_means(tmp_path / "plain.onnx")
    options = ImportOptions(mean=MEAN, std=STD, channels="bgr")
    import_onnx(path, tmp_path / "mine.onnx", LABELS, options)
    found = edgekit.load_model(tmp_path / "mine.onnx").predict(pictures()).probabilities
    expected = softmax(((COLOURS_RGB[:, ::-1] / 255 - MEAN) / STD).astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


ULTRALYTICS = {"task": "classify", "names": "{0: 'cat', 1: 'red dog', 2: 'bird'}", "imgsz": "[8, 8]"}
MODEL_API = {
    "model_info model_type": "Classification",
    "model_info labels": "cat dog bird",
    "model_info mean_values": "127.5 102 76.5",
    "model_info scale_values": "127.5 63.75 51",
    "model_info reverse_input_channels": "True",
    "model_info resize_type": "standard",
}


def test_what_ultralytics_states_is_read(tmp_path: Path) -> None:
    path = channel_means(tmp_path / "yolo.onnx", (1, 3, "h", "w"), softmax=True, stated=ULTRALYTICS)
    contract = import_onnx(path, tmp_path / "mine.onnx").contract
    assert contract.labels == ("cat", "red dog", "bird")
    assert (contract.input.size_hw, contract.input.mean, contract.crop.fit) == ((8, 8), (0.0,) * 3, "square")


def test_what_the_model_api_states_is_read(tmp_path: Path) -> None:
    path = channel_means(tmp_path / "openvino.onnx", stated=MODEL_API)
    contract = import_onnx(path, tmp_path / "mine.onnx").contract
    assert (contract.labels, contract.crop.fit, contract.input.channels) == (("cat", "dog", "bird"), "stretch", "rgb")
    found = edgekit.load_model(tmp_path / "mine.onnx").predict(pictures()).probabilities
    np.testing.assert_allclose(found, softmax(LOGITS.astype(np.float32)), atol=1e-5)


def test_what_timms_configuration_states_is_read(tmp_path: Path) -> None:
    config = {"mean": MEAN, "std": STD, "input_size": [3, 8, 8], "crop_pct": 0.8, "crop_mode": "squash"}
    (tmp_path / "config.json").write_text(json.dumps({"label_names": LABELS, "pretrained_cfg": config}))
    contract = import_onnx(channel_means(tmp_path / "model.onnx"), tmp_path / "mine.onnx").contract
    assert contract.labels == LABELS
    assert (contract.input.mean, contract.input.std) == (MEAN, STD)
    assert (contract.crop.resize_hw, contract.crop.center_crop_hw, contract.crop.fit) == ((10, 10), (8, 8), "stretch")


def test_an_option_replaces_a_statement(tmp_path: Path) -> None:
    path = channel_means(tmp_path / "openvino.onnx", stated=MODEL_API)
    options = ImportOptions(mean=(1, 2, 3), std=(1, 1, 1), fit="pad", subject="face")
    contract = import_onnx(path, tmp_path / "mine.onnx", LABELS, options).contract
    assert (contract.labels, contract.crop.fit, contract.subject) == (LABELS, "pad", "face")
    assert (contract.input.scale, contract.input.mean, contract.input.std) == (1.0, (1, 2, 3), (1, 1, 1))


@pytest.mark.parametrize(
    ("written", "labels", "options"),
    [
        ({}, None, VALUES),
        ({}, ("a", "b"), VALUES),
        ({}, LABELS, ImportOptions(image_size=9)),
        ({}, LABELS, ImportOptions(channels="gray")),
        ({}, LABELS, ImportOptions(mean=MEAN)),
        ({"shape": (1, 3, "h", "w")}, LABELS, ImportOptions()),
        ({"kind": TensorProto.FLOAT16}, LABELS, VALUES),
        ({"stated": {**ULTRALYTICS, "task": "detect"}}, None, VALUES),
        ({"stated": {**MODEL_API, "model_info mean_values": "x"}}, None, VALUES),
    ],
)
def test_what_does_not_fit_is_an_error_and_writes_nothing(
    tmp_path: Path, written: dict[str, Any], labels: tuple[str, ...] | None, options: ImportOptions
) -> None:
    path = channel_means(tmp_path / "plain.onnx", **written)
    with pytest.raises(InputError) as caught:
        import_onnx(path, tmp_path / "mine.onnx", labels, options)
    assert "\n" not in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["plain.onnx"]


def test_a_file_with_a_contract_is_an_error(tmp_path: Path) -> None:
    assert import_onnx(channel_means(tmp_path / "plain.onnx"), tmp_path / "mine.onnx", LABELS).notes
    with pytest.raises(InputError):
        import_onnx(tmp_path / "mine.onnx", tmp_path / "again.onnx", LABELS)


def test_labels_are_a_list_or_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("red dog\ncat\n\n")
    assert read_labels(str(tmp_path / "names.txt")) == ("red dog", "cat")
    assert read_labels("red dog, cat") == ("red dog", "cat")


def test_a_net_that_normalises_pixels_itself_takes_no_mean(tmp_path: Path) -> None:
    path = channel_means(tmp_path / "plain.onnx", kind=TensorProto.UINT8)
    assert import_onnx(path, tmp_path / "mine.onnx", LABELS).contract.input.element_type == "uint8"
    with pytest.raises(InputError):
        import_onnx(path, tmp_path / "again.onnx", LABELS, VALUES)


def test_the_import_needs_no_torch(tmp_path: Path) -> None:
    path = channel_means(tmp_path / "plain.onnx")
    code = (
        "import sys; sys.modules['torch'] = None; from edgekit.cli import main; sys.argv = sys.argv[1:]; "
        "sys.exit(main())"
    )
    arguments = ["edgekit", "import", str(path), "-o", str(tmp_path / "mine.onnx"), "--labels", "a,b,c"]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=120)
    assert edgekit.load_model(tmp_path / "mine.onnx").predict(pictures()[1]).labels == ("a",)
