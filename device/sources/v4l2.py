"""Properties of V4L2 devices, read by the ioctls of linux/videodev2.h, without OpenCV."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# struct v4l2_capability: driver[16], card[32], bus_info[32], version, capabilities, device_caps, reserved[3].
_CAPABILITY = struct.Struct("<16s32s32sIII3I")
# struct v4l2_fmtdesc: index, type, flags, description[32], pixelformat, mbus_code, reserved[3].
_FMTDESC = struct.Struct("<III32sI4I")
# struct v4l2_frmsizeenum: index, pixel_format, type, then width and height or six values (stepwise), reserved[2].
_FRMSIZE = struct.Struct("<III6I2I")
# struct v4l2_frmivalenum: index, pixel_format, width, height, type, then fractions: one, or minimum, maximum, step.
_FRMIVAL = struct.Struct("<IIIII6I2I")

_CAPTURE_BUFFER = 1
_CAN_CAPTURE = 0x1 | 0x1000  # single-planar, multi-planar
_HAS_DEVICE_CAPS = 0x8000_0000
_DISCRETE = 1
# Bound of each enumeration, for drivers whose lists never end.
_MAX_ITEMS = 256

Ioctl = Callable[[int, int, bytearray], int]


@dataclass(frozen=True)
class Mode:
    """A pixel format (four characters), an image size, and the frame rates; no rates if the driver reports none."""

    pixel_format: str
    size_wh: tuple[int, int]
    fps: tuple[float, ...]


@dataclass(frozen=True)
class Node:
    """A device node: card name, whether it captures images, and its modes."""

    card: str
    captures: bool
    modes: tuple[Mode, ...]


def query_node(path: Path) -> Node:
    """Return the properties of a V4L2 device, without disturbing programs that use it.

    Raises:
        OSError: The device cannot be opened, or is not a V4L2 device.
    """
    handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        return read_node(handle, fcntl.ioctl)
    finally:
        os.close(handle)


def read_node(handle: int, ioctl: Ioctl) -> Node:
    """Return the properties of an open V4L2 device."""
    answer = bytearray(_CAPABILITY.size)
    ioctl(handle, _request(0, _CAPABILITY.size, write=False), answer)
    _, card, _, _, capabilities, device_caps, *_ = _CAPABILITY.unpack(answer)
    own = device_caps if capabilities & _HAS_DEVICE_CAPS else capabilities
    captures = bool(own & _CAN_CAPTURE)
    modes = tuple(_modes(handle, ioctl)) if captures else ()
    return Node(_text(card), captures, modes)


def _modes(handle: int, ioctl: Ioctl) -> Iterator[Mode]:
    for index in range(_MAX_ITEMS):
        answer = _query(handle, ioctl, 2, _FMTDESC.pack(index, _CAPTURE_BUFFER, 0, b"", 0, 0, 0, 0, 0))
        if answer is None:
            return
        code = _FMTDESC.unpack(answer)[4]
        for size_wh in _sizes(handle, ioctl, code):
            yield Mode(_fourcc(code), size_wh, tuple(_rates(handle, ioctl, code, size_wh)))


def _sizes(handle: int, ioctl: Ioctl, code: int) -> Iterator[tuple[int, int]]:
    for index in range(_MAX_ITEMS):
        answer = _query(handle, ioctl, 74, _FRMSIZE.pack(index, code, 0, *[0] * 8))
        if answer is None:
            return
        _, _, kind, *values = _FRMSIZE.unpack(answer)
        if kind == _DISCRETE:
            yield values[0], values[1]
        else:
            # Stepwise sizes: the smallest and the largest stand for all.
            min_w, max_w, _, min_h, max_h, _ = values[:6]
            yield from ((min_w, min_h), (max_w, max_h))
            return


def _rates(handle: int, ioctl: Ioctl, code: int, size_wh: tuple[int, int]) -> Iterator[float]:
    for index in range(_MAX_ITEMS):
        answer = _query(handle, ioctl, 75, _FRMIVAL.pack(index, code, *size_wh, 0, *[0] * 8))
        if answer is None:
            return
        *_, kind, numerator, denominator, _, _, _, _, _, _ = _FRMIVAL.unpack(answer)
        if numerator and denominator:
            yield round(denominator / numerator, 2)
        if kind != _DISCRETE:
            return


def _query(handle: int, ioctl: Ioctl, number: int, request: bytes) -> bytearray | None:
    """Return one item of an enumeration, or None after the last."""
    answer = bytearray(request)
    try:
        ioctl(handle, _request(number, len(answer), write=True), answer)
    except OSError:
        return None
    return answer


def _request(number: int, size: int, write: bool) -> int:
    # The kernel's _IOR and _IOWR: direction, size, type 'V', number.
    return (3 if write else 2) << 30 | size << 16 | ord("V") << 8 | number


def _fourcc(code: int) -> str:
    """Return the four characters of a pixel format; the highest bit marks big-endian samples."""
    name = _text(struct.pack("<I", code & 0x7FFF_FFFF))
    return f"{name}-BE" if code >> 31 else name


def _text(data: bytes) -> str:
    text = data.split(b"\0")[0].decode("ascii", "replace").strip()
    return "".join(char if char.isprintable() else "?" for char in text)
