"""The states of a camera: from synthetic images, clips of faces, and streams whose encoder repeats images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest

from edgekit.device.frame import Frame, Planes
from edgekit.device.health import camera_watch
from edgekit.device.health.camera_watch import CameraWatch
from edgekit.preprocess import ImageU8
from tests.device.videos import video_frames

SIZE_HW = (120, 160)
PERIOD_S = 0.5


@pytest.fixture
def watch(notices: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterable[object]], list[str]]:
    """Return a function that shows images, two per second, and returns the state after each."""
    clock = Mock(**{"monotonic.return_value": 100.0})
    monkeypatch.setattr(camera_watch, "time", clock)
    watched = CameraWatch(notices.append)

    def show(images: Iterable[object]) -> list[str]:
        states = []
        for image in images:
            clock.monotonic.return_value += PERIOD_S
            if image is not None:
                watched.write(Frame(0, clock.monotonic.return_value, 0.0, image), Mock())
            states.append(watched.check())
        return states

    return show


def scene(seed: int = 0) -> ImageU8:
    """A still scene."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    return cv2.resize(small, SIZE_HW[::-1], interpolation=cv2.INTER_CUBIC)


def noisy(image: np.ndarray, seconds: float, sigma: float) -> Iterable[ImageU8]:
    generator = np.random.default_rng(0)
    for _ in range(round(seconds / PERIOD_S)):
        yield np.clip(image + generator.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def shading(share: float) -> np.ndarray:
    """A uniform image whose corners are darker by `share`, as behind tape on the lens."""
    y, x = np.mgrid[-1:1:120j, -1:1:160j]
    return np.repeat((150 * (1 - share * (x**2 + y**2) / 2))[:, :, None], 3, axis=2)


def test_a_still_scene_with_the_noise_of_a_sensor_is_ok(watch, notices):
    assert set(watch(noisy(scene().astype(float), 60, sigma=0.3))) == {"ok"}
    assert notices == []


def test_identical_images_are_frozen_after_half_a_minute_until_they_change(watch, notices):
    states = watch([scene()] * 120)
    assert 29 <= states.index("frozen") * PERIOD_S <= 32
    assert set(states) == {"ok", "frozen"}
    assert watch([scene(1)]) == ["ok"]
    assert len(notices) == 2


def test_the_repeated_images_between_two_key_frames_are_not_frozen(watch):
    assert set(watch(scene(number // 20) for number in range(240))) == {"ok"}


@pytest.mark.parametrize("sigma", [0, 2, 6])
@pytest.mark.parametrize(
    ("image", "state"),
    [(np.zeros((*SIZE_HW, 3)), "dark"), (np.full((*SIZE_HW, 3), 12.0), "dark"), (shading(0.2), "covered")],
)
def test_an_image_without_structure_is_dark_or_covered(watch, image, state, sigma):
    states = watch(noisy(image, 40, sigma))
    assert (states[0], states[-1]) == ("ok", state)


def test_a_face_before_a_blank_wall_ends_the_state(watch):
    wall = shading(0.1)
    assert watch(noisy(wall, 40, 2))[-1] == "covered"
    wall[50:60, 70:80] -= 60
    assert watch(noisy(wall, 1, 2)) == ["ok", "ok"]


def test_the_planes_of_a_camera_are_watched_too(watch):
    plane = np.full((240, 320), 16, np.uint8)
    chroma = np.full((120, 160), 128, np.uint8)
    assert watch([Planes(plane, chroma, chroma, full_range=False)] * 80)[-1] == "dark"


def test_without_images_the_camera_is_lost_until_the_next_one(watch, notices):
    assert watch([scene(), *[None] * 40])[-1] == "lost"
    assert watch([scene(1)]) == ["ok"]
    assert len(notices) == 2


@pytest.mark.parametrize("clip", ["fer_test.mp4", "carphone_pristine.mp4"])
def test_clips_of_faces_are_ok_also_with_a_tenth_of_the_light(watch, shared: Path, clip):
    images = video_frames(shared / "data/media" / clip)
    assert set(watch(images)) == {"ok"}
    assert set(watch((image // 10) for image in images)) == {"ok"}
