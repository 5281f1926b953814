"""Images that do not fit in memory are kept on disk; loading and evaluation give equal results."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import edgekit
from edgekit.errors import StorageError
from edgekit.models.data import disk
from edgekit.models.data.readers import load_dataset


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Simulate little free memory; return edgekit's cache folder."""
    monkeypatch.setattr(disk, "fits_in_memory", lambda _size_bytes: False)
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


def test_evaluation_reads_images_from_the_disk_where_memory_is_small(
    pictures: Path, small_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    stored = edgekit.evaluate("fer2013", pictures, notify=messages.append)
    assert any("decoded images are kept on disk" in message for message in messages)
    monkeypatch.undo()
    memory = edgekit.evaluate("fer2013", pictures)
    assert np.array_equal(stored.logits, memory.logits)
    assert list(small_memory.iterdir()) == []


def test_a_full_disk_is_one_clear_line(small_disk: Path) -> None:
    with pytest.raises(StorageError, match="no room for 4 MiB of images"):
        disk.disk_array(small_disk, (4, 1024, 1024))
