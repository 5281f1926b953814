"""Face crops from photographs: they have the device's pixels, and an interrupted run leaves only whole files."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device.imaging import read_image, resize
from edgekit.errors import InputError
from edgekit.model_store import asset
from edgekit.models.data import EXPRESSIONS
from edgekit.models.data.crop import CropReport, crop_photos
from edgekit.models.data.photos import PhotoDetector
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import with_contract_channels
from edgekit.models.model_loading import contract_for
from edgekit.preprocess import center_crop, crop_face
from tests.images import write_image

PORTRAIT = read_image(asset("astronaut.png"))
NOBODY = np.full((100, 150, 3), 90, np.uint8)


def crop(photos: Path, output: Path, **options) -> CropReport:
    return crop_photos(photos, output, detector="haar", **options)


def rows_of(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((output / "crops.csv").read_text())))


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs with one, two and no faces, and a file that is no image, in <split>/<class>/."""
    folder = tmp_path / "photos"
    write_image(folder / "train/happy/one.png", PORTRAIT)
    write_image(folder / "train/sad/two.png", np.hstack([PORTRAIT[:300, 90:390]] * 2))
    write_image(folder / "test/sad/none.png", NOBODY)
    (folder / "test/sad/text.jpg").write_text("no picture")
    return folder


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("gray_net", [True, False])
def test_training_gets_from_a_crop_the_pixels_that_the_device_gets_from_the_photograph(
    tmp_path: Path, colour: bool, gray_net: bool
) -> None:
    image = PORTRAIT if colour else cv2.cvtColor(PORTRAIT, cv2.COLOR_BGR2GRAY)
    write_image(tmp_path / "photos/happy/1.png", image)
    crop(tmp_path / "photos", tmp_path / "crops", max_side_px=10_000)
    contract = contract_for("edgecnn", EXPRESSIONS, "x", gray_net)

    [part] = load_dataset(tmp_path / "crops").splits.values()
    trained = center_crop(with_contract_channels(part, contract).images, contract.input.size_hw)[0]

    [face] = PhotoDetector("haar", notify=print).detect(image)
    frame_bgr = image if colour else np.repeat(image[..., np.newaxis], 3, axis=2)
    on_device = crop_face(frame_bgr, face.xyxy, contract.crop, contract.input.size_hw, resize)
    np.testing.assert_array_equal(np.broadcast_to(trained, on_device.shape), on_device)


def test_folders_stay_and_every_photograph_is_listed(photos: Path, tmp_path: Path) -> None:
    (photos / "photos.csv").write_text("path,person,label\ntrain/happy/one.png,Ann,happy\n")
    notices: list[str] = []
    report = crop(photos, tmp_path / "crops", notify=notices.append)
    assert files_in(tmp_path / "crops") == ["crops.csv", "train/happy/one.png", "train/sad/two.png"]
    assert (report.photographs, report.crops, report.without_face, report.several_faces) == (4, 2, 1, 1)
    assert report.unreadable == ("photos/test/sad/text.jpg",)
    assert report.per_folder == {"train/happy": 1, "train/sad": 1}
    assert [line for line in notices if "text.jpg" in line and "skipped" in line]
    by_source = {row["source"]: row for row in rows_of(tmp_path / "crops")}
    one = by_source["photos/train/happy/one.png"]
    assert (one["path"], one["person"], one["label"], one["faces"]) == ("train/happy/one.png", "Ann", "happy", "1")
    # The face of the portrait.
    assert 150 < float(one["x0"]) < 200 < 250 < float(one["x1"]) < 300
    assert by_source["photos/test/sad/none.png"]["status"] == "no face"
    assert by_source["photos/test/sad/text.jpg"]["status"] == "unreadable"
    assert by_source["photos/train/sad/two.png"]["faces"] == "2"


def test_all_faces_or_only_those_that_are_alone(photos: Path, tmp_path: Path) -> None:
    every = crop(photos, tmp_path / "all", faces="all")
    assert every.crops == 3
    assert (tmp_path / "all/train/sad/two-face2.png").exists()
    alone = crop(photos, tmp_path / "single", faces="single")
    assert (alone.crops, alone.several_faces) == (1, 1)
    assert not (tmp_path / "single/train/sad").exists()


def test_the_largest_face_is_cropped(tmp_path: Path) -> None:
    small = resize(PORTRAIT[:300], (256, 150))
    together = np.zeros((300, 768, 3), np.uint8)
    together[:150, :256], together[:, 256:] = small, PORTRAIT[:300]
    write_image(tmp_path / "photos/1.png", together)
    report = crop(tmp_path / "photos", tmp_path / "crops", min_face_px=40)
    assert report.several_faces == 1
    [row] = report.rows
    assert row.x0 is not None
    assert row.x0 > 256


def test_large_crops_are_made_smaller(photos: Path, tmp_path: Path) -> None:
    crop(photos, tmp_path / "crops", max_side_px=64)
    assert read_image(tmp_path / "crops/train/happy/one.png").shape == (64, 64, 3)


def test_an_interrupted_run_leaves_whole_files_and_their_table(photos: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        assert total == 4
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crop(photos, tmp_path / "crops", progress=interrupt)
    assert files_in(tmp_path / "crops") == ["crops.csv", "train/happy/one.png"]
    assert [row["source"] for row in rows_of(tmp_path / "crops")] == [
        "photos/test/sad/none.png",
        "photos/test/sad/text.jpg",
        "photos/train/happy/one.png",
    ]


def test_an_archive_gives_what_its_folder_gives(photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as archive:
        archive.add(photos, "photos")
    report = crop(tmp_path / "photos.tar.gz", tmp_path / "crops")
    assert (report.crops, len(report.unreadable)) == (2, 1)
    assert (tmp_path / "crops/photos/train/happy/one.png").exists()
    [part] = [split for name, split in load_dataset(tmp_path / "crops").splits.items() if name == "train"]
    assert len(part) == 2


def test_names_of_an_archive_cannot_lead_out_of_the_folder(photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(photos / "train/happy/one.png", "a/../../../outside/one.png")
    with pytest.raises(InputError, match="leads out of the folder of crops"):
        crop(tmp_path / "photos.tar", tmp_path / "crops")
    assert not (tmp_path.parent / "outside").exists()


def test_frames_of_a_video_are_taken_at_intervals(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "ann.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (256, 256))
    for _ in range(25):
        writer.write(resize(PORTRAIT, (256, 256)))
    writer.release()
    totals: set[int | None] = set()
    report = crop(
        tmp_path / "ann.mp4", tmp_path / "crops", every_s=1.0, progress=lambda _done, total: totals.add(total)
    )
    assert [(row.source, row.time_s) for row in report.rows] == [("ann.mp4", 0.0), ("ann.mp4", 1.0), ("ann.mp4", 2.0)]
    assert files_in(tmp_path / "crops") == ["ann-000000.png", "ann-000010.png", "ann-000020.png", "crops.csv"]
    assert totals == {3}


def test_a_second_call_adds_other_photographs_and_overwrites_nothing(tmp_path: Path) -> None:
    for name in ("monday/1", "tuesday/1", "friday/2"):
        write_image(tmp_path / f"{name}.png", PORTRAIT)
    crop(tmp_path / "monday", tmp_path / "crops")
    with pytest.raises(InputError, match=r"1\.png' exists already: name another folder"):
        crop(tmp_path / "tuesday", tmp_path / "crops")
    report = crop(tmp_path / "friday", tmp_path / "crops")
    assert [row.source for row in report.rows] == ["friday/2.png"]
    assert [row["source"] for row in rows_of(tmp_path / "crops")] == ["monday/1.png", "friday/2.png"]


def test_folders_that_are_not_for_crops_are_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("")
    (tmp_path / "empty").mkdir()
    for source, output, message in (
        (photos, photos / "crops", "lies in the photographs' folder"),
        (photos, tmp_path / "mine", "contains other files and no crops.csv: name a new folder"),
        (tmp_path / "absent", tmp_path / "crops", "do not exist"),
        (tmp_path / "empty", tmp_path / "crops", "contain no image: expected .*, or the path of one video"),
    ):
        with pytest.raises(InputError, match=message):
            crop(source, output)
    assert not (tmp_path / "crops").exists()
    assert files_in(tmp_path / "mine") == ["letter.txt"]


def test_another_table_is_named_and_kept(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "crops/crops.csv"
    table.parent.mkdir()
    table.write_text("path;label\n")
    with pytest.raises(InputError, match=r"crops.csv' has other columns: name a new folder"):
        crop(photos, tmp_path / "crops")
    assert table.read_text() == "path;label\n"
