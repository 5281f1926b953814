"""The examples of docs/how-to/python.md run, with substitutes for the camera and for YuNet."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/python.md"
EXAMPLES = dict(re.findall(r"^## ([^\n]+)\n.*?```python\n(.*?)```", PAGE.read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_faces: Callable[..., Path]) -> Path:
    """The files that the examples name: a face, a portrait and a data set."""
    import cv2

    folder = tmp_path_factory.mktemp("page")
    shutil.copy(ROOT / "edgekit" / "assets" / "astronaut.png", folder / "portrait.png")
    assert cv2.imwrite(str(folder / "face.png"), cv2.imread(str(folder / "portrait.png"))[66:190, 172:276])
    (folder / "photos" / "happy").mkdir(parents=True)
    shutil.copy(folder / "portrait.png", folder / "photos" / "happy")
    draw_faces(folder / "faces", {"train": 70, "val": 28, "test": 28})
    return folder


# Examples that train or export.
SLOW = {"Train, export and check"}


@pytest.mark.parametrize(
    "title", [pytest.param(title, marks=[pytest.mark.slow] if title in SLOW else []) for title in EXAMPLES]
)
def test_an_example_runs(title: str, folder: Path, play: Callable[..., Any]) -> None:
    code = EXAMPLES[title]
    if "camera=" in code:
        # The test machine has no camera: a simulated network camera replaces it.
        address = play([("pictures", 1_000_000, (64, 48))]).url
        code = code.replace('camera="auto"', f'source="{address}"')
        assert address in code
    # Haar replaces YuNet, whose file would be downloaded.
    code = code.replace('edgekit.stream(source="', 'edgekit.stream(detector="haar", source="', 1)
    code = code.replace(', detector="haar", max_frames', ", max_frames")
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "print(" in code:
        assert done.stdout.strip()
