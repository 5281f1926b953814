"""Generated images for the tutorials on training a model: drawn parts, and shifted and rotated copies of a portrait.

`python -m tests.docs.own_pictures FOLDER` makes the data set of the tutorial "Own objects".
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import edgekit
from edgekit.preprocess import ImageU8

PARTS = ("bolt", "nut", "washer")
# The classes of faces are artificial: each is the same portrait, multiplied by this brightness factor.
BRIGHTNESS = {"happy": 1.0, "neutral": 0.5, "surprise": 1.6}
_PORTRAIT = Path(edgekit.__file__).parent / "assets" / "astronaut.png"


def draw_part(kind: str, generator: np.random.Generator) -> ImageU8:
    """Return a BGR image of 320 x 180 pixels: a part of random colour and angle on a random, blurred background."""
    width, height = 320, 180
    ground = cv2.resize(generator.integers(60, 200, (4, 6, 3), dtype=np.uint8), (width, height))
    image = _noisy(ground.astype(float), generator)
    x, y = int(width * generator.uniform(0.3, 0.7)), int(height * generator.uniform(0.4, 0.6))
    radius, angle = int(height * generator.uniform(0.2, 0.32)), generator.uniform(0, 360)
    colour = generator.integers(0, 256, 3).tolist()
    if kind == "washer":
        cv2.circle(image, (x, y), radius, colour, radius // 3)
    elif kind == "nut":
        turns = np.radians(angle + 60 * np.arange(6))
        corners = np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], axis=1)
        cv2.fillPoly(image, [corners.astype(np.int32)], colour)
        cv2.circle(image, (x, y), radius // 2, [255 - value for value in colour], -1)
    else:
        shaft = cv2.boxPoints(((x, y), (2.4 * radius, 0.6 * radius), angle))
        cv2.fillPoly(image, [shaft.astype(np.int32)], colour)
        turn = np.radians(angle)
        head = (int(x + 1.2 * radius * np.cos(turn)), int(y + 1.2 * radius * np.sin(turn)))
        cv2.circle(image, head, radius // 2, colour, -1)
    return image


def draw_face(kind: str, generator: np.random.Generator) -> ImageU8:
    """Return a BGR image of 400 x 300 pixels: the portrait, slightly shifted, rotated and scaled."""
    portrait = cv2.imread(str(_PORTRAIT))
    turn = cv2.getRotationMatrix2D((224, 128), generator.uniform(-6, 6), generator.uniform(0.95, 1.1))
    turn[:, 2] += generator.integers(-20, 21, 2)
    moved = cv2.warpAffine(portrait, turn, portrait.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    return _noisy(moved[:300, 60:460] * BRIGHTNESS[kind], generator)


def save_classes(
    folder: Path, draw: Callable[[str, np.random.Generator], ImageU8], kinds: tuple[str, ...], count: int, seed: int
) -> None:
    """Write `count` pictures of each kind to `folder`/KIND/N.jpg."""
    generator = np.random.default_rng(seed)
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            assert cv2.imwrite(str(folder / kind / f"{number}.jpg"), draw(kind, generator))


def save_parts(folder: Path) -> None:
    """Write the data set of the tutorial "Own objects": 60 training and 20 test pictures of each part."""
    save_classes(folder / "train", draw_part, PARTS, 60, seed=0)
    save_classes(folder / "test", draw_part, PARTS, 20, seed=1)


def save_video(path: Path, frames: list[ImageU8]) -> None:
    """Write a video of one frame per second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 1, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()


def passers_by(count: int, seed: int) -> list[ImageU8]:
    """Return frames with a face in every third one, so that each face is a separate track."""
    generator = np.random.default_rng(seed)
    kinds = tuple(BRIGHTNESS)
    empty = np.full((300, 400, 3), 90, np.uint8)
    return [
        frame for index in range(count) for frame in (draw_face(kinds[index % len(kinds)], generator), empty, empty)
    ]


def face_class(crop: ImageU8) -> str | None:
    """Return the artificial class of a crop by its brightness, or None if the brightness fits no class."""
    brightness = float(crop.mean())
    nearest = min(BRIGHTNESS, key=lambda kind: abs(brightness - _SEEN[kind]))
    return nearest if abs(brightness - _SEEN[nearest]) < 25 else None


_SEEN = {"neutral": 72.0, "happy": 145.0, "surprise": 197.0}


def _noisy(pixels: NDArray[np.float64], generator: np.random.Generator) -> ImageU8:
    return np.clip(pixels + generator.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit("usage: python -m tests.docs.own_pictures FOLDER")
    save_parts(Path(sys.argv[1]))
