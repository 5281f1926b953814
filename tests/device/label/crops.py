"""A folder of collected crops."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

CLASSES = ("calm", "happy", "sad")


def set_fields(folder: Path, **fields: object) -> None:
    """Change fields in the lines of all collected crops."""
    index = folder / "crops.jsonl"
    lines = [json.dumps(json.loads(line) | fields) for line in index.read_text().splitlines()]
    index.write_text("".join(f"{line}\n" for line in lines))


def collect(folder: Path, tracks: Sequence[int], *, prefix: str = "run") -> list[str]:
    """Append crops like `edgekit run --collect`, `tracks[i]` crops for track i; return their names.

    Earlier tracks are less certain, so the page shows them first.
    """
    (folder / "crops").mkdir(parents=True, exist_ok=True)
    names = []
    with (folder / "crops.jsonl").open("a") as index:
        for track, count in enumerate(tracks):
            best = round(0.4 + 0.5 * track / len(tracks), 4)
            probabilities = dict.fromkeys(CLASSES, round((1 - best) / 2, 4)) | {CLASSES[track % 3]: best}
            for number in range(count):
                name = f"{prefix}-{track:03}-{number}.png"
                pixels = np.random.default_rng(len(names)).integers(0, 256, (12, 12, 3), np.uint8)
                image = cv2.resize(pixels, (96, 96), interpolation=cv2.INTER_CUBIC)
                assert cv2.imwrite(str(folder / "crops" / name), image)
                line = {"file": f"crops/{name}", "probabilities": probabilities, "track": f"{prefix}-t{track}"}
                index.write(json.dumps({**line, "time": "2026-11-26T12:00:00.000+00:00"}) + "\n")
                names.append(name)
    return names
