"""The check of a data set finds and counts each kind of fault."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np

from edgekit.models.data import EXPRESSIONS
from edgekit.models.data.check import Findings, analyse, scan_dataset


def check(path: Path) -> Findings:
    return analyse(scan_dataset(path))


def copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(source, target))


def blank(path: Path) -> Path:
    assert cv2.imwrite(str(path), np.full((48, 48), 7, np.uint8))
    return path


def test_a_sound_data_set_has_no_faults(bars_folder: Path) -> None:
    scan = scan_dataset(bars_folder)
    found = analyse(scan)
    assert found.faults == ()
    assert (len(scan.records), found.distinct) == (98, 98)
    assert found.counts["Training"] == dict.fromkeys(EXPRESSIONS, 8)
    assert found.counts["PublicTest"] == dict.fromkeys(EXPRESSIONS, 3)
    assert found.sizes == {(48, 48): 98}
    assert found.modes == {"gray": 98}
    assert found.imbalance == 1


def test_unreadable_images_are_listed_and_counted(bars_folder: Path) -> None:
    cut, empty = sorted(bars_folder.glob("Training/sad/*.png"))[:2]
    cut.write_bytes(cut.read_bytes()[:40])
    empty.write_bytes(b"")
    scan = scan_dataset(bars_folder)
    found = analyse(scan)
    assert {record.name for record in found.unreadable} == {f"Training/sad/{file.name}" for file in (cut, empty)}
    assert all("cannot be decoded" in (record.problem or "") for record in found.unreadable)
    assert found.faults == ("2 unreadable images",)
    assert found.counts["Training"]["sad"] == 8
    assert (len(scan.records), found.distinct) == (98, 96)


def test_repeated_crossing_and_conflicting_images_are_distinguished(bars_folder: Path) -> None:
    happy, sad, fear, angry = (
        next((bars_folder / "Training" / name).glob("*.png")) for name in ("happy", "sad", "fear", "angry")
    )
    copy(happy, happy.with_name("again.png"))
    copy(happy, happy.with_name("once more.png"))
    copy(sad, bars_folder / "PublicTest/sad/leak.png")
    copy(fear, bars_folder / "PublicTest/surprise/leak.png")
    copy(angry, bars_folder / "Training/disgust/other.png")
    seen = next((bars_folder / "PrivateTest/neutral").glob("*.png"))
    copy(seen, bars_folder / "PublicTest/neutral/seen.png")
    found = check(bars_folder)
    assert (len(found.repeated), found.surplus) == (2, 3)
    assert len(found.crossing) == 3
    assert found.pairs == {("Training", "PublicTest"): 2, ("PublicTest", "PrivateTest"): 1}
    assert (found.training, found.leaking) == ("Training", 2)
    assert {tuple(sorted(record.class_name for record in group)) for group in found.conflicting} == {
        ("fear", "surprise"),
        ("angry", "disgust"),
    }
    assert found.faults == (
        "3 groups of identical images in several splits",
        "2 groups of identical images with different labels",
    )
    assert found.distinct == 98


def test_blank_images_sizes_and_colours_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "cat"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (48, 60, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "colour.png"), noise)
    cv2.imwrite(str(folder / "gray.png"), noise[..., 0])
    cv2.imwrite(str(folder / "gray as colour.png"), np.dstack([noise[..., 0]] * 3))
    cv2.imwrite(str(folder / "blank red.png"), np.full((20, 20, 3), (0, 0, 200), np.uint8))
    blank(folder / "blank.png")
    found = check(tmp_path)
    assert found.modes == {"colour": 2, "gray": 2, "gray stored as colour": 1}
    assert found.sizes == {(60, 48): 3, (20, 20): 1, (48, 48): 1}
    assert {record.name for record in found.blank} == {"train/cat/blank.png", "train/cat/blank red.png"}
    assert {record.name for record in found.repeated[0]} == {"train/cat/gray.png", "train/cat/gray as colour.png"}
