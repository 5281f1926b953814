"""`edgekit teach` as a process: its memory with many pictures, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.device.teach.shapes import write_pictures

TEACH = [sys.executable, "-m", "edgekit.cli", "teach"]
# Features of 2,500 more pictures are 13 MB, and their copies while a fold is fitted; decoded pictures would be 1.4 GB.
MOST_GROWTH_MIB = 150


def many_pictures(folder: Path, count: int) -> Path:
    """Write `count` pictures of two classes, 600x300, each of another shade; most of them are equal but for a byte."""
    for label, colour in (("red", (40, 40, 200)), ("blue", (200, 40, 40))):
        (folder / label).mkdir(parents=True)
        for number in range(count // 2):
            image = np.full((300, 600, 3), colour, np.uint8)
            image[:, number % 600] = number // 3 % 256
            cv2.imwrite(str(folder / label / f"{number}.jpg"), image)
    return folder


def peak_mib(pictures: Path) -> int:
    """Return the peak memory of a process that teaches the pictures."""
    arguments = [*TEACH, str(pictures), "-o", str(pictures.with_suffix(".onnx")), "--image-size", "96"]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss >> 10


@pytest.mark.slow
def test_the_memory_does_not_grow_with_the_pictures_but_by_their_features(tmp_path: Path) -> None:
    few, many = (peak_mib(many_pictures(tmp_path / str(count), count)) for count in (500, 3000))
    assert many - few < MOST_GROWTH_MIB


def test_ctrl_c_while_the_file_is_written_leaves_the_one_before(tmp_path: Path) -> None:
    pictures, folder = write_pictures(tmp_path / "things"), tmp_path / "models"
    folder.mkdir()
    output = folder / "my.onnx"
    output.write_bytes(b"the one before")
    command = [*TEACH, str(pictures), "-o", str(output), "--image-size", "96"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while len(list(folder.iterdir())) == 1 and process.poll() is None:  # the temporary file, until it is verified
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert [each.name for each in folder.iterdir()] == ["my.onnx"]
    assert output.read_bytes() == b"the one before"
