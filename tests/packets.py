"""H.264 packets like those of a camera's encoder."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.device.sources.settings import EncodedPacket

SIZE_WH = (160, 96)
KEY_EVERY = 5
FPS = 25


def level(number: int) -> int:
    return 40 + 10 * (number % 20)


def packets(count: int, noise: int = 0) -> list[EncodedPacket]:
    """Return encoded frames of different brightness (`level`), with headers at key frames."""
    av = pytest.importorskip("av", reason="no PyAV here: pip install av")
    rng = np.random.default_rng(1)
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = *SIZE_WH, "yuv420p"
    codec.framerate = FPS
    codec.gop_size = KEY_EVERY
    codec.options = {"tune": "zerolatency", "preset": "ultrafast"}
    coded = []
    for number in range(count):
        gray = level(number) + rng.integers(0, noise + 1, SIZE_WH[::-1])
        picture = av.VideoFrame.from_ndarray(gray.astype(np.uint8), format="gray").reformat(format="yuv420p")
        picture.pts = number
        coded += codec.encode(picture)
    coded += codec.encode(None)
    return [EncodedPacket(bytes(one), one.is_keyframe, number * 1_000_000 // FPS) for number, one in enumerate(coded)]
