"""Real media made on the spot."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.preprocess import ImageU8

WriteClip = Callable[..., Path]


@pytest.fixture
def write_clip(tmp_path: Path) -> WriteClip:
    """Write an .mp4 whose frames are plain grays of the given levels: a frame can be told by its mean."""

    def write(name: str = "clip.mp4", levels: Sequence[int] = range(0, 250, 10), size_wh: tuple[int, int] = (64, 48)):
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, size_wh)
        assert writer.isOpened()
        for level in levels:
            writer.write(np.full((size_wh[1], size_wh[0], 3), level, np.uint8))
        writer.release()
        return path

    return write


@pytest.fixture
def picture() -> ImageU8:
    """Noise that no encoder makes small: cutting its file cuts pixels."""
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture
def told() -> list[str]:
    """What a source notified; hand it `told.append`."""
    return []


class ScriptedBoard:
    """A Raspberry Pi's files below `root`, and its `vcgencmd` in `tools`; what they say changes with `set`.

    The tool prints what the real one does: see tests/fixtures/boards/pi3bplus-hot.txt for where that is from.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.tools = folder / "tools"
        self._state = folder / "state"
        for path in (self.root / "sys/class/thermal/thermal_zone0", self.tools, self._state, self.root / "proc"):
            path.mkdir(parents=True)
        (self.root / "sys/class/thermal/thermal_zone0/type").write_text("cpu-thermal\n")
        tool = self.tools / "vcgencmd"
        tool.write_text(
            "#!/bin/sh\n"
            f"echo >> '{self._state}/asked'\n"
            'case "$*" in\n'
            f"get_throttled) echo throttled=$(cat '{self._state}/throttled') ;;\n"
            f"'measure_clock arm') echo 'frequency(45)='$(cat '{self._state}/clock') ;;\n"
            "esac\n"
        )
        tool.chmod(0o755)
        self.set()

    def set(self, temperature_c: float = 45.0, flags: int = 0, clock_mhz: int = 1400) -> None:
        """Say this from now on."""
        for path, text in {
            self.root / "sys/class/thermal/thermal_zone0/temp": f"{temperature_c * 1000:.0f}",
            self._state / "throttled": f"{flags:#x}",
            self._state / "clock": f"{clock_mhz}000000",
        }.items():
            # Replaced, so that a reader never sees an empty file.
            path.with_suffix(".new").write_text(f"{text}\n")
            path.with_suffix(".new").replace(path)

    @property
    def times_asked(self) -> int:
        """How often the firmware's tool ran."""
        asked = self._state / "asked"
        return len(asked.read_text()) if asked.exists() else 0


@pytest.fixture
def scripted_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedBoard:
    """A board whose state the test decides; its tool is found before any other."""
    board = ScriptedBoard(tmp_path / "board")
    monkeypatch.setenv("PATH", f"{board.tools}:{os.environ['PATH']}")
    return board
