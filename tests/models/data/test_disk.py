"""Images that do not fit in memory are kept on disk; loading, evaluation and distillation give equal results."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import edgekit
from edgekit.errors import StorageError
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.data import disk
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation import run


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Simulate little free memory; return edgekit's cache folder."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 1000 kB\nMemAvailable: 400 kB\n")
    monkeypatch.setattr(disk, "_MEMINFO", meminfo)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/edgekit"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """60 pictures of two classes in `test`, the first half gray, the others in colour."""
    folder = tmp_path / "pictures"
    generator = np.random.default_rng(0)
    for index in range(60):
        file = folder / "test" / ("happy", "sad")[index // 10 % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        shape = (50, 60) if index < 30 else (50, 60, 3)
        assert cv2.imwrite(str(file), generator.integers(0, 255, shape, dtype=np.uint8))
    return folder


@pytest.mark.usefixtures("small_memory")
def test_images_on_disk_are_those_in_memory(pictures: Path, tmp_path: Path) -> None:
    memory = load_dataset(pictures, 32)
    stored = load_dataset(pictures, 32, cache_folder=tmp_path / "cache")
    assert memory.splits["test"].images.shape == (60, 32, 32, 3)
    assert disk.is_on_disk(stored.splits["test"].images)
    assert stored.checksum() == memory.checksum()
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("small_memory")
def test_gray_images_on_disk_have_one_channel_and_a_held_back_part_stays_there(
    bars_folder: Path, tmp_path: Path
) -> None:
    data = load_dataset(bars_folder, cache_folder=tmp_path)
    memory = load_dataset(bars_folder)
    assert data.is_gray
    assert data.checksum() == memory.checksum()
    part = data.splits["Training"].subset(np.arange(0, 56, 3))
    assert disk.is_on_disk(part.images)
    assert np.array_equal(part.images, memory.splits["Training"].images[::3])


def test_evaluation_reads_images_from_the_disk_where_memory_is_small(
    pictures: Path, small_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    evaluate_images = run.evaluate_images

    def spy(classifier, images, *rest):
        seen.append(disk.is_on_disk(images.images))
        return evaluate_images(classifier, images, *rest)

    monkeypatch.setattr(run, "evaluate_images", spy)
    messages: list[str] = []
    options = {"notify": messages.append}
    stored = edgekit.evaluate("fer2013", pictures, **options)
    assert any("decoded images are kept on disk" in message for message in messages)
    monkeypatch.undo()
    memory = edgekit.evaluate("fer2013", pictures, **options)
    assert seen == [True]
    assert np.array_equal(stored.logits, memory.logits)
    assert list(small_memory.iterdir()) == []


@pytest.mark.usefixtures("small_memory")
def test_distillation_from_the_disk_gives_the_same_weights(
    bars_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {
        "teachers": ["fer2013"], "data": bars_folder, "student": "mini-xception", "epochs": 1,
        "batch_size": 28, "accelerator": "cpu", "precision": "fp32", "threads": 1,
    }  # fmt: skip
    messages: list[str] = []
    edgekit.distill(output=tmp_path / "disk", notify=messages.append, **options)
    assert sum("kept on disk" in message for message in messages) == 1
    monkeypatch.undo()
    edgekit.distill(output=tmp_path / "memory", **options)
    stored, memory = (load_checkpoint(tmp_path / name / "best.safetensors") for name in ("disk", "memory"))
    for name, tensor in memory.state.items():
        assert torch.equal(stored.state[name], tensor), name
    assert list((tmp_path / "disk").glob(".images-*")) == []


@pytest.mark.usefixtures("small_memory")
def test_automatic_choice_depends_on_the_available_memory() -> None:
    assert disk.fits_in_memory(100 * 1024)
    assert not disk.fits_in_memory(101 * 1024)


def test_a_full_disk_is_one_clear_line(small_disk: Path) -> None:
    with pytest.raises(StorageError, match="no room for 4 MiB of images"):
        disk.disk_array(small_disk, (4, 1024, 1024))
