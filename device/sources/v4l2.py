"""V4L2 devices asked what they can do, without OpenCV: the kernel's own questions (linux/videodev2.h)."""

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
# struct v4l2_frmivalenum: index, pixel_format, width, height, type, then fractions: one, or least, most, step.
_FRMIVAL = struct.Struct("<IIIII6I2I")

_CAPTURE_BUFFER = 1
_CAN_CAPTURE = 0x1 | 0x1000  # single-planar, multi-planar
_HAS_DEVICE_CAPS = 0x8000_0000
_DISCRETE = 1
# A driver that answers for ever would keep us for ever.
_MAX_ANSWERS = 256

Ioctl = Callable[[int, int, bytearray], int]


@dataclass(frozen=True)
class Mode:
    """A pixel format (four characters) in one size, and the frame rates it comes in; none where they are not told."""

    pixel_format: str
    size_wh: tuple[int, int]
    fps: tuple[float, ...]


@dataclass(frozen=True)
class Node:
    """A device node: what it calls itself, its driver, whether it gives pictures, and how."""

    card: str
    driver: str
    captures: bool
    modes: tuple[Mode, ...]


def ask_node(path: Path) -> Node:
    """Return what a V4L2 node says of itself. Asking does not disturb who uses it.

    Raises:
        OSError: It cannot be opened, or is no V4L2 device.
    """
    handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        return read_node(handle, fcntl.ioctl)
    finally:
        os.close(handle)


def read_node(handle: int, ioctl: Ioctl) -> Node:
    """Return what the opened node answers through `ioctl`."""
    answer = bytearray(_CAPABILITY.size)
    ioctl(handle, _request(0, _CAPABILITY.size, write=False), answer)
    driver, card, _, _, capabilities, device_caps, *_ = _CAPABILITY.unpack(answer)
    own = device_caps if capabilities & _HAS_DEVICE_CAPS else capabilities
    captures = bool(own & _CAN_CAPTURE)
    modes = tuple(_modes(handle, ioctl)) if captures else ()
    return Node(_text(card), _text(driver), captures, modes)


def _modes(handle: int, ioctl: Ioctl) -> Iterator[Mode]:
    for index in range(_MAX_ANSWERS):
        asked = _FMTDESC.pack(index, _CAPTURE_BUFFER, 0, b"", 0, 0, 0, 0, 0)
        answer = _ask(handle, ioctl, 2, asked)
        if answer is None:
            return
        code = _FMTDESC.unpack(answer)[4]
        for size_wh in _sizes(handle, ioctl, code):
            yield Mode(_fourcc(code), size_wh, tuple(_rates(handle, ioctl, code, size_wh)))


def _sizes(handle: int, ioctl: Ioctl, code: int) -> Iterator[tuple[int, int]]:
    for index in range(_MAX_ANSWERS):
        answer = _ask(handle, ioctl, 74, _FRMSIZE.pack(index, code, 0, *[0] * 8))
        if answer is None:
            return
        _, _, kind, *values = _FRMSIZE.unpack(answer)
        if kind == _DISCRETE:
            yield values[0], values[1]
        else:
            # Any size in steps: the smallest and the largest tell enough.
            min_w, max_w, _, min_h, max_h, _ = values[:6]
            yield from ((min_w, min_h), (max_w, max_h))
            return


def _rates(handle: int, ioctl: Ioctl, code: int, size_wh: tuple[int, int]) -> Iterator[float]:
    for index in range(_MAX_ANSWERS):
        answer = _ask(handle, ioctl, 75, _FRMIVAL.pack(index, code, *size_wh, 0, *[0] * 8))
        if answer is None:
            return
        *_, kind, numerator, denominator, _, _, _, _, _, _ = _FRMIVAL.unpack(answer)
        if numerator and denominator:
            yield round(denominator / numerator, 2)
        if kind != _DISCRETE:
            return


def _ask(handle: int, ioctl: Ioctl, number: int, asked: bytes) -> bytearray | None:
    """Return the answer to one question of an enumeration, None after its last."""
    answer = bytearray(asked)
    try:
        ioctl(handle, _request(number, len(answer), write=True), answer)
    except OSError:
        return None
    return answer


def _request(number: int, size: int, write: bool) -> int:
    # _IOR and _IOWR of the kernel: direction, size, type 'V', number.
    return (3 if write else 2) << 30 | size << 16 | ord("V") << 8 | number


def _fourcc(code: int) -> str:
    """Return a pixel format's four characters; the highest bit says that its samples are big-endian."""
    name = _text(struct.pack("<I", code & 0x7FFF_FFFF))
    return f"{name}-BE" if code >> 31 else name


def _text(data: bytes) -> str:
    text = data.split(b"\0")[0].decode("ascii", "replace").strip()
    return "".join(char if char.isprintable() else "?" for char in text)
