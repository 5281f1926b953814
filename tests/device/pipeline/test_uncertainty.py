"""When a face is uncertain: a threshold with hysteresis, and crops that show nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgekit
from edgekit.contract import DistanceSpec
from edgekit.device.detections import Classification
from edgekit.device.engines.engine import contract_in
from edgekit.device.imaging import read_image
from edgekit.device.pipeline.smoothing import check_crop, check_threshold, is_blank, is_uncertain, smooth
from edgekit.model_store import asset
from edgekit.preprocess import ImageU8


def checked(values: list[float], below: float) -> tuple[list[bool], list[bool]]:
    """Return whether a face with these largest probabilities is uncertain, and whether it is close to a change."""
    face = Classification(*[np.zeros(3, np.float32)] * 3, label=0, classified_s=0.0, seen_s=0.0)
    uncertain, close = [], []
    for value in values:
        face.shown = np.array([value, 0.0, 0.0], np.float32)
        check_threshold(face, below)
        uncertain.append(face.uncertain)
        close.append(face.is_close)
    return uncertain, close


@pytest.mark.parametrize(("below", "back"), [(0.5, 0.6), (0.9, 0.95)])
def test_an_uncertain_face_has_a_label_again_when_it_exceeds_the_threshold_clearly(below: float, back: float) -> None:
    values = [below + 0.02, below - 0.02, below + 0.02, back - 0.01, back + 0.01, below + 0.09]
    uncertain, close = checked(values, below)
    assert uncertain == [False, True, True, True, False, False]
    assert (close[3], close[5]) == (True, False)


def test_an_uncertain_face_is_close_to_a_change_earlier_than_a_face_with_a_label() -> None:
    _, close = checked([0.58, 0.55, 0.48, 0.502, 0.53], 0.5)
    # The limit of the first three frames is 0.5, and that of the last two is 0.6.
    assert close == [False, True, True, False, True]


def test_no_face_is_uncertain_without_a_threshold() -> None:
    assert checked([0.01, 0.6], 0.0) == ([False, False], [False, False])


@pytest.mark.parametrize(("below", "returns_s"), [(0.8, 0.7), (0.97, 1.4)])
def test_the_distance_to_the_threshold_delays_the_label_by_a_third_of_a_second(below: float, returns_s: float) -> None:
    face, times_s = None, []
    for frame in range(61):
        row = np.array([1, 0] if frame else [0.5, 0.5], np.float32)
        face = smooth(face, row, frame / 30, 0.4, is_new=True, is_cut=False)
        check_threshold(face, below)
        times_s.append((frame / 30, face.shown.max() >= below, not face.uncertain))
    exceeds_s = min(time_s for time_s, exceeds, _ in times_s if exceeds)
    label_s = min(time_s for time_s, _, has_label in times_s if has_label)
    assert label_s == pytest.approx(returns_s, abs=0.05)
    assert label_s - exceeds_s == pytest.approx(0.3, abs=0.05)


def test_an_image_unlike_the_classes_has_a_label_again_when_it_is_clearly_nearer_than_the_threshold() -> None:
    contract = replace(contract_in(asset("default.onnx")), subject="image", distance=DistanceSpec("distance", 0.6))
    face = Classification(*[np.zeros(3, np.float32)] * 3, label=0, classified_s=0.0, seen_s=0.0)
    uncertain = []
    for distance in (0.59, 0.61, 0.59, 0.61, 0.56, 0.59):
        check_crop(face, np.zeros((8, 8, 3), np.uint8), distance, contract)
        uncertain.append(is_uncertain(face))
    assert uncertain == [False, True, True, True, False, False]


@pytest.fixture(scope="module")
def portrait() -> ImageU8:
    return read_image(asset("astronaut.png"))[60:210, 150:300]


@pytest.mark.parametrize("size_px", [16, 44, 150])
def test_a_face_is_not_blank_in_low_light_or_from_afar(portrait: ImageU8, size_px: int) -> None:
    small = cv2.resize(portrait, (size_px, size_px), interpolation=cv2.INTER_AREA)
    crop = cv2.resize(small, (44, 44), interpolation=cv2.INTER_LINEAR)
    assert not is_blank(crop)
    assert not is_blank((crop * 0.3).astype(np.uint8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["dark", "blurred", "plain"])
def test_a_nearly_black_a_plain_and_a_blurred_crop_are_blank(portrait: ImageU8, kind: str, channels: int) -> None:
    crop = cv2.resize(portrait, (44, 44), interpolation=cv2.INTER_AREA)
    faults = {"dark": crop * 0.05, "blurred": cv2.GaussianBlur(crop, (0, 0), 6), "plain": np.full_like(crop, 90)}
    assert is_blank(faults[kind].astype(np.uint8)[..., :channels])


@pytest.mark.parametrize(
    ("crop", "blank"),
    [
        # Standard deviations 5.5 and 6.
        ((np.indices((44, 44)).sum(axis=0) % 2) * 11 + 90, True),
        ((np.indices((44, 44)).sum(axis=0) % 2) * 12 + 90, False),
        # Vertical waves: the variances of the Laplacian are 4.98 and 5.34.
        (np.round(90 + 16 * np.sin(np.arange(44) / 44 * np.pi * 4))[None].repeat(44, axis=0), True),
        (np.round(90 + 17 * np.sin(np.arange(44) / 44 * np.pi * 4))[None].repeat(44, axis=0), False),
    ],
)
def test_the_limits_of_a_blank_crop(crop: np.ndarray, blank: bool) -> None:
    assert is_blank(crop.astype(np.uint8)[..., None]) == blank


def test_a_blank_face_is_uncertain_unless_there_is_no_threshold(portrait: ImageU8, tmp_path: Path) -> None:
    dark = tmp_path / "dark.png"
    cv2.imwrite(str(dark), (portrait * 0.04).astype(np.uint8))
    (result,) = edgekit.stream(source=dark, detector="none")
    assert result.faces.labels == ("uncertain",)
    assert result.faces[0].probability > 0.5, "the threshold alone would not mark it"
    (result,) = edgekit.stream(source=dark, detector="none", uncertain_below=0)
    assert result.faces.labels != ("uncertain",)
