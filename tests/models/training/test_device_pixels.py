"""The check after a training detects pixels that differ from those of a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgekit.contract import Fit
from edgekit.errors import GateError, InputError
from edgekit.models.checkpoints.checkpoint import Checkpoint
from edgekit.models.data.readers import load_dataset
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import create_model
from edgekit.models.training.finish import check_device_pixels

LABELS = ("cat", "dog")
BEST = Path("best.safetensors")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six colour pictures that are not square."""
    folder = tmp_path_factory.mktemp("wide")
    generator = np.random.default_rng(0)
    for index in range(6):
        file = folder / LABELS[index % 2] / f"{index}.png"
        file.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(file), generator.integers(0, 256, (60, 110, 3), np.uint8))
    return folder


@pytest.fixture(scope="module")
def checkpoint() -> Callable[[Fit], Checkpoint]:
    """Return a function that returns an untrained checkpoint with a given fit in its contract."""
    torch.manual_seed(0)
    net = create_model("mini-xception", 2)

    def make(fit: Fit) -> Checkpoint:
        return Checkpoint(contract_for("mini-xception", LABELS, "wide", False, fit), net.state_dict(), {})

    return make


@pytest.mark.parametrize("fit", ["square", "pad", "stretch"])
def test_images_read_with_the_contracts_fit_pass(wide: Path, checkpoint: Callable[[Fit], Checkpoint], fit: Fit) -> None:
    lines: list[str] = []
    check_device_pixels(checkpoint(fit), BEST, load_dataset(wide, fit=fit).split("all"), wide, "drop", lines.append)
    assert lines == ["a device reads 6 of 6 validation images as training did"]


def test_images_read_with_another_fit_are_an_error_and_the_first_is_named(
    wide: Path, checkpoint: Callable[[Fit], Checkpoint]
) -> None:
    stretched = load_dataset(wide, fit="stretch").split("all")
    with pytest.raises(GateError, match=r"'cat/0.png'"):
        check_device_pixels(checkpoint("square"), BEST, stretched, wide, "drop")


def test_images_without_files_are_not_reported_as_checked(wide: Path, checkpoint: Callable[[Fit], Checkpoint]) -> None:
    part = replace(load_dataset(wide).split("all"), names=None)
    lines: list[str] = []
    check_device_pixels(checkpoint("square"), BEST, part, Path("fer2013.csv"), "drop", lines.append)
    assert not lines


def test_a_file_that_is_gone_is_named(wide: Path, checkpoint: Callable[[Fit], Checkpoint]) -> None:
    part = load_dataset(wide).split("all")
    assert part.names is not None
    gone = replace(part, names=np.array([name.replace("0.png", "9.png") for name in part.names.tolist()]))
    with pytest.raises(InputError, match=r"'cat/9\.png' does not exist any more"):
        check_device_pixels(checkpoint("square"), BEST, gone, wide, "drop")
