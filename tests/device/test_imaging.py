"""Images are decoded completely, or refused with an error of edgekit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device.imaging import check_picture_size, decode_image
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


def test_a_jpeg_with_a_marker_that_hides_its_size_is_refused() -> None:
    data = cv2.imencode(".jpg", np.zeros((300, 500, 3), np.uint8))[1].tobytes()
    # OpenCV skips the marker TEM, which has no length. With FF E0 as its length, the next header would be the second.
    hiding = data[:2] + b"\xff\x01" + data[2:]
    small = b"\xff\xc0\0\x11\x08\0\x10\0\x10" + bytes(20)
    hiding = hiding.ljust(4 + 0xFFE0, b"\0") + small
    assert decode_image(hiding, "p").shape == (300, 500, 3)
    with pytest.raises(InputError):
        check_picture_size(hiding, "p", 1000)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_size_of_a_picture_is_checked_before_it_is_decoded(suffix: str) -> None:
    data = cv2.imencode(suffix, np.zeros((30, 50, 3), np.uint8))[1].tobytes()
    check_picture_size(data, "p", 1500)
    with pytest.raises(InputError, match="50x30"):
        check_picture_size(data, "p", 1499)
    for cut in (b"", data[:10], b"GIF89a" + data, data[:2] + b"\0" + data[2:]):
        with pytest.raises(InputError):
            check_picture_size(cut, "p", 10_000)
