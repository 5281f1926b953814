"""Nets of free input size are trained, evaluated and exported at the size of the images; large data stays on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import edgekit
from edgekit.errors import InputError
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.data import disk
from edgekit.models.train import train

# A net with dropout, whose random numbers must not depend on the image storage.
OPTIONS = {
    "model": "mobilenetv3-small",
    "image_size": 64,
    "fit": "square",
    "epochs": 1,
    "batch_size": 16,
    "precision": "fp32",
    "threads": 1,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colour pictures of two classes, 70 x 60 pixels."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 24), ("test", 6)):
        for index in range(count):
            file = folder / split / ("cup", "plate")[index % 2] / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image = generator.integers(0, 160, (60, 70, 3), dtype=np.uint8)
            image[..., index % 2] += 90
            assert cv2.imwrite(str(file), image)
    return folder


@pytest.fixture(scope="module")
def in_memory(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(data=pictures, output=folder, **OPTIONS)
    return folder


@pytest.mark.slow
def test_the_contract_export_and_eval_follow_the_size(in_memory: Path, pictures: Path, tmp_path: Path) -> None:
    contract = load_checkpoint(in_memory / "best.safetensors").contract
    assert contract.crop.resize_hw == (64, 64)
    assert contract.input.size_hw == contract.crop.center_crop_hw == (56, 56)
    exported = edgekit.export(in_memory, tmp_path / "net.onnx")  # the folder of a training is accepted as a model
    assert exported.contract.input.size_hw == (56, 56)
    ours = edgekit.evaluate(in_memory, pictures, split="testing")  # another usual name of "test"
    theirs = edgekit.evaluate(tmp_path / "net.onnx", pictures)
    assert np.allclose(ours.logits, theirs.logits, atol=1e-3)
    assert ours.split == "test"


def test_images_on_disk_give_the_same_weights(
    in_memory: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(disk, "fits_in_memory", lambda _size_bytes: False)
    train(data=pictures, output=tmp_path / "run", notify=messages.append, **OPTIONS)
    assert any("kept on disk" in message for message in messages)
    ours, theirs = (load_checkpoint(folder / "best.safetensors") for folder in (tmp_path / "run", in_memory))
    assert ours.training["data_sha256"] == theirs.training["data_sha256"]
    for name, tensor in theirs.state.items():
        assert torch.equal(ours.state[name], tensor), name
    assert not list((tmp_path / "run").glob(".images-*"))


def test_a_size_that_a_net_does_not_take_is_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="48 pixels only"):
        train(data=pictures, output=tmp_path / "run", model="edgecnn", image_size=64, fit="square")
