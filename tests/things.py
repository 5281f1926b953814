"""Drawn things that move, as a camera would see them: a red mug and a blue bolt on a table."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from edgekit.preprocess import ImageU8

SIZE_WH = (480, 360)
FPS = 8


def thing(kind: str, time_s: float) -> ImageU8:
    """Return a frame that shows the thing; any other kind shows the empty table."""
    frame = np.full((*SIZE_WH[::-1], 3), (150, 175, 190), np.uint8)
    cv2.rectangle(frame, (0, 240), SIZE_WH, (90, 120, 150), -1)
    x, y = 240 + 70 * math.sin(1.3 * time_s), 190 + 20 * math.cos(1.7 * time_s)
    scale = 1 + 0.2 * math.sin(0.9 * time_s)
    if kind == "mug":
        _mug(frame, round(x), round(y), scale)
    elif kind == "bolt":
        _bolt(frame, (x, y), scale, 40 * math.sin(0.8 * time_s))
    return frame


def write_clip(path: Path, kinds: list[str], seconds_each: float, repeats: int = 1) -> None:
    """Write a video in which the things follow each other."""
    frames = [thing(kind, index / FPS) for kind in kinds for index in range(round(seconds_each * FPS))]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, SIZE_WH)
    for frame in frames * repeats:
        writer.write(frame)
    writer.release()


def _mug(frame: ImageU8, x: int, y: int, scale: float) -> None:
    width, height = round(45 * scale), round(60 * scale)
    red, dark = (40, 40, 200), (30, 30, 120)
    cv2.rectangle(frame, (x - width, y - height), (x + width, y + height), red, -1)
    cv2.ellipse(frame, (x, y - height), (width, round(12 * scale)), 0, 0, 360, dark, -1)
    axes = (round(28 * scale), round(34 * scale))
    cv2.ellipse(frame, (x + round(55 * scale), y), axes, 0, -90, 90, red, round(12 * scale))


def _bolt(frame: ImageU8, center_xy: tuple[float, float], scale: float, angle_deg: float) -> None:
    turn = cv2.getRotationMatrix2D((0, 0), angle_deg, scale)[:, :2]

    def placed(points: list[tuple[float, float]]) -> np.ndarray:
        return (np.array(points) @ turn.T + center_xy).astype(np.int32)

    head = [(30 * math.cos(k * math.pi / 3) - 60, 30 * math.sin(k * math.pi / 3)) for k in range(6)]
    cv2.fillPoly(frame, [placed(head)], (170, 90, 30))
    cv2.fillPoly(frame, [placed([(-45, -13), (80, -13), (80, 13), (-45, 13)])], (200, 120, 50))
    for offset in range(10, 80, 12):
        first, second = placed([(offset, -13), (offset - 6, 13)])
        cv2.line(frame, first.tolist(), second.tolist(), (110, 60, 20), 2)
