"""Generated pictures of two things: red discs and blue squares on noise; stripes are neither."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from edgekit.preprocess import ImageU8

Thing = Literal["disc", "square", "stripes"]


def picture(thing: Thing, seed: int) -> ImageU8:
    """Return a picture, uint8 (120, 160, 3) B, G, R."""
    random = np.random.default_rng(seed)
    image = random.integers(90, 160, (120, 160, 3)).astype(np.uint8)
    x, y, size = (int(random.integers(low, high)) for low, high in ((60, 100), (50, 70), (25, 40)))
    if thing == "disc":
        cv2.circle(image, (x, y), size, (20, 20, 220), -1)
    elif thing == "square":
        cv2.rectangle(image, (x - size, y - size), (x + size, y + size), (220, 60, 20), -1)
    else:
        image[:, (np.arange(160) // 4) % 2 == 0] = 255
        image[:, (np.arange(160) // 4) % 2 == 1] = 0
    return image


def write_pictures(folder: Path, count: int = 6) -> Path:
    """Write `folder`/disc/N.png and `folder`/square/N.png, and return the folder."""
    things: tuple[Thing, ...] = ("disc", "square")
    for thing in things:
        (folder / thing).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(folder / thing / f"{number}.png"), picture(thing, number))
    return folder
