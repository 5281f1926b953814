"""The classifier: predictions by its contract, and refused files whose contract and graph differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.contract import METADATA_KEY, Contract, InputSpec, OutputSpec
from edgekit.device.detection import WholeFrame
from edgekit.device.engines.classifier import Classifier, load_model
from edgekit.device.engines.engine import contract_in
from edgekit.device.frame import Frame
from edgekit.device.imaging import as_frame
from edgekit.device.pipeline.loop import recognise
from edgekit.device.stages import StageTimer
from edgekit.device.tracking import FaceTracker
from edgekit.errors import InputError
from edgekit.preprocess import ImageU8


def altered(
    model: Path,
    target: Path,
    graph: Callable[[onnx.GraphProto], None] | None = None,
    contract: Callable[[Contract], Contract] | None = None,
) -> Path:
    """Write a copy of `model` with a changed graph or contract."""
    proto = onnx.load(model)
    if graph:
        graph(proto.graph)
    if contract:
        helper.set_model_props(proto, {METADATA_KEY: contract(contract_in(model)).to_json()})
    target.write_bytes(proto.SerializeToString())
    return target


@pytest.mark.parametrize("count", [0, 1, 5])
def test_logits_are_one_row_a_crop(tiny_model: Path, count: int) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    logits = Classifier(tiny_model, 1).logits(crops)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, crops.mean(axis=(1, 2)) / 255, atol=1e-6)
    assert Classifier(tiny_model, 1).predict([]).probabilities.shape == (0, 3)


def test_gray_crops_fill_every_colour(tiny_model: Path) -> None:
    crops = np.full((1, 8, 8, 1), 51, np.uint8)
    np.testing.assert_allclose(Classifier(tiny_model, 1).logits(crops), [[0.2, 0.2, 0.2]], atol=1e-6)


def test_scale_mean_std_and_colour_order_are_the_contracts(tiny_model: Path, tmp_path: Path) -> None:
    spec = InputSpec("input", (8, 8), "bgr", 1.0, (10.0, 20.0, 30.0), (1.0, 2.0, 4.0))
    path = altered(tiny_model, tmp_path / "model.onnx", contract=lambda contract: replace(contract, input=spec))
    crops = np.zeros((1, 8, 8, 3), np.uint8)
    crops[:] = (200, 100, 50)  # R, G, B
    np.testing.assert_allclose(Classifier(path, 1).logits(crops), [[40.0, 40.0, 42.5]], atol=1e-4)


def fix_batch(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1


def other_size(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[2].dim_value = 16


def whole_numbers(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    graph.node[0].input[0] = "cast"
    graph.node.insert(0, helper.make_node("Cast", ["input"], ["cast"], to=TensorProto.FLOAT))


@pytest.mark.parametrize(
    "graph",
    [fix_batch, other_size, whole_numbers],
)
def test_a_graph_that_its_contract_does_not_describe_is_refused(
    tiny_model: Path, tmp_path: Path, graph: Callable[[onnx.GraphProto], None]
) -> None:
    path = altered(tiny_model, tmp_path / "model.onnx", graph=graph)
    with pytest.raises(InputError) as caught:
        Classifier(path, 1)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"labels": ("a", "b")}, {"output": OutputSpec("answers")}])
def test_a_contract_that_does_not_describe_its_graph_is_refused(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = altered(tiny_model, tmp_path / "model.onnx", contract=lambda contract: replace(contract, **changes))
    with pytest.raises(InputError):
        Classifier(path, 1)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return load_model("default", threads=1)


def images(*shapes: tuple[int, ...]) -> list[ImageU8]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, shape, np.uint8) for shape in shapes]


def of_the_runtime(model: Classifier, image: ImageU8) -> list[float]:
    """Return the probabilities that `run --detector none` computes."""
    result = recognise(Frame(0, 0.0, 0.0, as_frame(image)), FaceTracker(WholeFrame(), None), model, StageTimer())
    assert result.faces.probabilities is not None
    return list(result.faces.probabilities[0].tolist())


def test_images_of_any_size_are_classified_as_in_the_runtime(model: Classifier) -> None:
    batch = images((48, 48), (60, 50, 3), (200, 320, 3), (9, 7), (1, 1, 3))
    found = model.predict(batch)
    assert found.probabilities.dtype == np.float32
    assert found.probabilities.shape == (5, len(model.labels)) == (len(found), len(found.classes))
    for row, image in zip(found.probabilities, batch, strict=True):
        np.testing.assert_allclose(row, of_the_runtime(model, image), atol=1e-6)
    assert found.labels == tuple(model.labels[row.argmax()] for row in found.probabilities)


@pytest.mark.parametrize("shape", [(4, 30, 20, 3), (4, 30, 20)])
def test_an_array_of_images_is_a_batch(model: Classifier, shape: tuple[int, ...]) -> None:
    (batch,) = images(shape)
    one_by_one = [model.predict(image).probabilities[0] for image in batch]
    np.testing.assert_allclose(model.predict(batch).probabilities, one_by_one, atol=1e-6)


def test_channel_order_is_the_callers(tiny_model: Path) -> None:
    red_bgr = np.full((20, 20, 3), (0, 0, 250), np.uint8)
    model = load_model(tiny_model)
    assert model.predict(red_bgr).labels == ("red",)
    assert model.predict(red_bgr, channels="rgb").labels == ("blue",)


@pytest.mark.parametrize("wrong", ["face.png", np.zeros((50, 60, 4), np.uint8), np.zeros((50, 60), np.float32)])
def test_what_is_no_image_is_refused(wrong: object, tiny_model: Path) -> None:
    with pytest.raises(InputError):
        load_model(tiny_model).predict(wrong)  # type: ignore[arg-type]
