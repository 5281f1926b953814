"""Images are decoded completely, or refused with an error of edgekit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device.imaging import decode_image
from edgekit.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("position", [20, 60, 200, -30, -6])
def test_a_flipped_byte_in_a_png_is_refused(position: int) -> None:
    data = bytearray(cv2.imencode(".png", PIXELS)[1].tobytes())
    data[position] ^= 0x55
    with pytest.raises(InputError):
        decode_image(bytes(data), "a.png")


def test_a_small_file_of_more_pixels_than_any_camera_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    assert cv2.imwrite(str(path), np.zeros((12_000, 12_000), np.uint8))
    assert path.stat().st_size < 1_000_000
    # In a separate process, because OpenCV reads its limit when it is loaded.
    code = f"from pathlib import Path\nfrom edgekit.device.imaging import read_image\nread_image(Path({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "InputError: image" in done.stderr
