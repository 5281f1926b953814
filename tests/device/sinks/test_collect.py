"""Collected crops: their selection, the stored files, full folders, and disk errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest

from edgekit.contract import Contract, CropSpec, Fit, InputSpec, OutputSpec
from edgekit.device.detections import Detections, FrameResult, Track
from edgekit.device.frame import Frame, Planes
from edgekit.device.imaging import read_image, resize
from edgekit.device.pipeline.loop import crop_faces
from edgekit.device.sinks.crop_strategies import CollectSink, EveryInterval, best_of_track, uncertain
from edgekit.errors import StorageError
from edgekit.preprocess import crop_face, crop_image
from tests.runs import Source, counts, run_of

LABELS = ("calm", "happy", "sad")
SURE, UNSURE, MORE_UNSURE = (0.1, 0.8, 0.1), (0.3, 0.4, 0.3), (0.33, 0.35, 0.32)
GRAY = Contract(
    architecture="mean",
    labels=LABELS,
    input=InputSpec("input", (44, 44), "gray", 1 / 255, (0.0,), (1.0,)),
    crop=CropSpec(margin=0.1, grayscale=True, resize_hw=(48, 48), center_crop_hw=(44, 44)),
    output=OutputSpec("logits"),
)
COLOUR = replace(
    GRAY,
    input=InputSpec("input", (44, 44), "rgb", 1 / 255, (0.0,) * 3, (1.0,) * 3),
    crop=replace(GRAY.crop, grayscale=False),
)
BOX = (40.3, 30.2, 140.9, 170.4)


class Run:
    """Passes generated frames to a `CollectSink`."""

    def __init__(
        self, folder: Path, strategy, notices: list[str], *, contract=GRAY, live: bool = False, **rules
    ) -> None:
        source = Source(live, fps=10.0)
        source.name = "clip.mp4"
        self.run = replace(run_of(notices.append, source, **rules), contract=contract)
        self.sink = CollectSink(strategy, folder, self.run)
        self.images = []
        self.tracks = {track_id: Track(track_id) for track_id in range(1, 41)}

    def __enter__(self) -> Run:
        self.sink.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.sink.__exit__(*exception)

    def write(self, time_s: float, *faces, box=BOX, image=None, are_regions=False) -> FrameResult:
        """Pass a frame with the given time; each face is (track id, probabilities). Return its result."""
        if image is None:
            image = np.random.default_rng(len(self.images)).integers(0, 256, (240, 320, 3), np.uint8)
        self.images.append(image)
        frame = Frame(round(time_s * 10), time_s, 1.7e9 + time_s, image)
        ids = [track for track, _ in faces]
        found = Detections(
            np.array([box] * len(faces), np.float32).reshape(-1, 4),
            np.full(len(faces), 0.9, np.float32),
            tracks=None if None in ids else np.array([self.tracks[track] for track in ids], np.object_),
            probabilities=np.array([row for _, row in faces], np.float32).reshape(-1, 3),
            classes=LABELS,
            label_indices=np.array([int(np.argmax(row)) for _, row in faces], np.int64),
            are_regions=are_regions,
        )
        result = FrameResult(frame.sequence, time_s, frame.wall_s, frame.size_wh, found, {}, 1.0)
        self.sink.write(frame, result)
        return result


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "crops.jsonl").read_text().splitlines()]


def test_a_line_describes_each_crop(tmp_path, notices):
    with Run(tmp_path / "c", EveryInterval(10), notices) as run:
        run.write(0, (3, UNSURE))
    (line,) = lines(tmp_path / "c")
    file = line.pop("file")
    assert (tmp_path / "c" / file).is_file()
    assert line.pop("track").endswith("-3")
    assert line == {
        "subject": "face",
        "time": "2023-11-14T22:13:20.000+00:00",
        "unix_s": 1.7e9,
        "label": "happy",
        "probability": 0.4,
        "probabilities": {"calm": 0.3, "happy": 0.4, "sad": 0.3},
        "raw_probabilities": {"calm": 0.3, "happy": 0.4, "sad": 0.3},
        "classified": True,
        "score": 0.9,
        "xyxy": [40.3, 30.2, 140.9, 170.4],
        "sequence": 0,
        "source": "clip.mp4",
    }
    assert notices == []


@pytest.mark.parametrize("contract", [GRAY, COLOUR], ids=["gray", "colour"])
@pytest.mark.parametrize("box", [BOX, (-20.0, 100.0, 90.0, 260.0), (10.0, 10.0, 22.0, 25.0)])
def test_training_on_a_saved_crop_gets_the_pixels_that_the_device_classified(tmp_path, notices, contract, box):
    with Run(tmp_path, EveryInterval(10), notices, contract=contract) as run:
        run.write(0, (1, SURE), box=box)
    seen = crop_face(run.images[0], np.array(box, np.float32), contract.crop, (44, 44), resize)
    saved = crop_image(read_image(tmp_path / lines(tmp_path)[0]["file"]), contract.crop, (44, 44), resize)
    np.testing.assert_array_equal(saved, seen)


@pytest.mark.parametrize("fit", get_args(Fit))
@pytest.mark.parametrize("box", [(0, 0, 200, 240), (40, 30, 140, 70)], ids=["frame", "region"])
def test_training_on_a_saved_region_gets_the_pixels_that_the_device_classified(tmp_path, notices, fit, box):
    contract = replace(COLOUR, crop=replace(COLOUR.crop, fit=fit))
    image = np.random.default_rng(0).integers(0, 256, (240, 200, 3), np.uint8)
    with Run(tmp_path, EveryInterval(10), notices, contract=contract) as run:
        result = run.write(0, (1, SURE), box=box, image=image, are_regions=True)
    (seen,) = crop_faces(Frame(0, 0.0, 0.0, image), result.faces, contract)
    saved = crop_image(read_image(tmp_path / lines(tmp_path)[0]["file"]), contract.crop, (44, 44), resize)
    np.testing.assert_array_equal(saved, seen)


def test_a_cameras_luma_is_saved_as_a_gray_net_sees_it(tmp_path, notices):
    generator = np.random.default_rng(0)
    luma, u, v = (generator.integers(16, 236, size, np.uint8) for size in ((240, 320), (120, 160), (120, 160)))
    planes = Planes(luma, u, v, full_range=False)
    with Run(tmp_path, EveryInterval(10), notices) as run:
        run.write(0, (1, SURE), image=planes)
    saved = crop_image(read_image(tmp_path / lines(tmp_path)[0]["file"]), GRAY.crop, (44, 44), resize)
    np.testing.assert_array_equal(saved, crop_face(planes.luma, BOX, GRAY.crop, (44, 44), resize))


def test_uncertain_saves_the_most_uncertain_crop_of_a_track_in_five_seconds(tmp_path, notices):
    with Run(tmp_path, uncertain(0.3), notices) as run:
        for tenth in range(100):
            rows = {20: MORE_UNSURE, 75: MORE_UNSURE}.get(tenth, UNSURE)
            run.write(tenth / 10, (1, rows), (2, SURE))
    assert [(line["sequence"], line["track"][-1]) for line in lines(tmp_path)] == [(20, "1"), (75, "1")]


def test_every_saves_all_faces_of_one_frame_per_interval(tmp_path, notices):
    with Run(tmp_path, EveryInterval(1.0), notices) as run:
        run.write(0)
        for tenth in range(5, 30):
            run.write(tenth / 10, (1, SURE), (2, SURE))
    assert [line["sequence"] for line in lines(tmp_path)] == [5, 5, 15, 15, 25, 25]


def test_best_of_track_saves_the_largest_and_sharpest_crop_when_the_track_ends(tmp_path, notices):
    sharp = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    blurred = cv2.GaussianBlur(sharp, (0, 0), 8)
    large, small = (40, 30, 180, 170), (40, 30, 80, 70)
    with Run(tmp_path, best_of_track(), notices) as run:
        for index, (image, box) in enumerate([(blurred, large), (sharp, small), (sharp, large), (blurred, small)]):
            run.write(index / 10, (1, SURE), image=image, box=box)
        run.tracks[1].ended_s = 3.0
        run.write(2)
        assert not (tmp_path / "crops.jsonl").exists(), "the track ends in a later frame"
        run.write(3)
        assert [line["sequence"] for line in lines(tmp_path)] == [2]
        run.write(4, (2, SURE))
    assert [line["sequence"] for line in lines(tmp_path)] == [2, 40], "the end of the run ends the tracks"


def test_a_full_folder_is_reported_once_and_what_is_left_out_is_counted(tmp_path, notices):
    with Run(tmp_path, EveryInterval(1), notices, pictures_max_mb=0.2) as run:
        for second in range(20):
            run.write(second, (1, SURE))
    saved = len(lines(tmp_path))
    assert 0 < len(list(tmp_path.glob("crops/*"))) == saved < 20
    assert sum(path.stat().st_size for path in tmp_path.glob("crops/*")) <= 200_000
    assert counts(run.run, "collect")["dropped"] == {"folder full": 20 - saved}
    assert len(notices) == 1


def test_a_second_run_appends_and_has_its_own_tracks(tmp_path, notices):
    for _ in range(2):
        with Run(tmp_path, EveryInterval(1), notices) as run:
            run.write(0, (1, SURE))
            run.write(1, (1, SURE))
    tracks = [line["track"] for line in lines(tmp_path)]
    assert tracks[0] == tracks[1] != tracks[2] == tracks[3]


def test_a_crop_without_its_line_is_removed_and_a_disk_error_ends_the_run_of_a_recording(tmp_path, notices):
    (tmp_path / "crops.jsonl").mkdir()
    with Run(tmp_path, EveryInterval(1), notices) as run, pytest.raises(StorageError):
        run.write(0, (1, SURE))
    assert list((tmp_path / "crops").iterdir()) == []
    assert run.sink.account.lost == 1
