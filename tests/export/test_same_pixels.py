"""Training and device compute the same pixels and labels, for each image size, colour mode and fit."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgekit
from edgekit.contract import METADATA_KEY, Contract, Fit
from edgekit.device.detection import WholeFrame
from edgekit.device.frame import Frame
from edgekit.device.imaging import as_frame, read_image
from edgekit.device.pipeline.loop import crop_faces
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import with_contract_channels
from edgekit.models.evaluation.run import evaluate
from tests.examples import examples

CHANNELS = {"gray": 1, "colour": 3, "transparent": 4}


def with_contract(model: Path, folder: Path, **crop: Any) -> tuple[Path, Contract]:
    """Return a copy of the model for whole images whose contract has another crop, and that contract."""
    proto = onnx.load(model)
    (entry,) = (each for each in proto.metadata_props if each.key == METADATA_KEY)
    contract = Contract.from_json(entry.value)
    contract = replace(contract, subject="image", crop=replace(contract.crop, **crop))
    entry.value = contract.to_json()
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx", contract


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes_wh=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=3),
    mode=st.sampled_from(sorted(CHANNELS)),
    fit=st.sampled_from(get_args(Fit)),
    grayscale=st.booleans(),
    bits=st.sampled_from([8, 16]),
    seed=st.integers(0, 1000),
)
def test_pixels_and_labels_are_equal_in_training_and_on_a_device(
    tiny_model: Path,
    sizes_wh: list[tuple[int, int]],
    mode: str,
    fit: Fit,
    grayscale: bool,
    bits: int,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    dtype = np.uint8 if bits == 8 else np.uint16
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index, (width, height) in enumerate(sizes_wh):
            file = folder / "test" / tiny_label(index) / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 2**bits, (height, width, CHANNELS[mode]), dtype=dtype)
            assert cv2.imwrite(str(file), pixels)
        model, contract = with_contract(tiny_model, folder, fit=fit, grayscale=grayscale)
        part = load_dataset(folder, 8, fit=fit).split("test")
        trained = with_contract_channels(part, contract).images
        assert part.names is not None
        for file_name, pixels in zip(part.names, trained, strict=True):
            image = as_frame(read_image(folder / str(file_name)))
            (crop,) = crop_faces(Frame(0, 0.0, 0.0, image), WholeFrame().detect(image), contract)
            np.testing.assert_array_equal(np.broadcast_to(pixels, crop.shape), crop)
        evaluated = evaluate(model, folder, split="test").logits.argmax(axis=1)
        for file_name, label in zip(part.names, evaluated, strict=True):
            source = folder / str(file_name)
            with edgekit.stream(source=source, model=model, detector="none", smooth_s=0, threaded=False) as results:
                (result,) = results
            assert result.faces.labels == (contract.labels[label],)
            assert edgekit.load_model(model).predict(read_image(source)).labels == (contract.labels[label],)


def tiny_label(index: int) -> str:
    """Return a label of `tiny_model`."""
    return ("red", "green", "blue")[index % 3]


@pytest.mark.parametrize("fit", get_args(Fit))
def test_a_face_model_without_a_detector_fits_the_frame_as_its_contract_states(
    tiny_model: Path, tmp_path: Path, fit: Fit
) -> None:
    # Red in the middle, blue outside: only a square crop contains no blue.
    image = np.zeros((20, 60, 3), np.uint8)
    image[..., 0] = 200
    image[:, 20:40] = (0, 0, 220)
    _, contract = with_contract(tiny_model, tmp_path, fit=fit)
    frame = Frame(0, 0.0, 0.0, image)
    (crop,) = crop_faces(frame, WholeFrame().detect(image), replace(contract, subject="face"))
    assert bool((crop[..., 2] > 0).any()) == (fit != "square")
