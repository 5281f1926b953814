"""The kinds of layers that pnnx makes of classifiers for ncnn: what each takes, gives and holds, by ncnn's own rules.

A shape is (width) or (channels, height, width), without the batch, which ncnn does not have. ncnn's documentation calls
the numbered settings of a layer its parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edgekit.errors import InputError

Shape: TypeAlias = tuple[int, ...]
Setting: TypeAlias = float | tuple[float, ...]

# Of all results together, and of what a convolution unfolds: 256 MiB.
MAX_VALUES = 1 << 26
# What ncnn takes for "the rest" in a list of slices.
_REST = -233


@dataclass(frozen=True)
class Found:
    """What follows from a layer: the shapes it gives; `weights` and `macs` as in `ncnn_graph.Layer`."""

    shapes: tuple[Shape, ...]
    weights: tuple[int, ...] = ()
    macs: int = 0


class Settings:
    """The numbered settings of one layer; those that nobody asked for are unknown."""

    def __init__(self, values: Mapping[int, Setting]) -> None:
        self._values = values
        self._asked: set[int] = set()

    def whole(self, key: int, default: int, low: int, high: int) -> int:
        """Return a whole number within limits, `default` where it is not set."""
        self._asked.add(key)
        value = self._values.get(key, default)
        if not isinstance(value, int | float) or value != int(value) or not low <= value <= high:
            raise InputError(f"setting {key} is {value}: expected a whole number from {low} to {high}")
        return int(value)

    def several(self, key: int) -> tuple[int, ...]:
        """Return a list of whole numbers, empty where it is not set."""
        self._asked.add(key)
        values = self._values.get(key, ())
        if not isinstance(values, tuple) or any(value != int(value) for value in values):
            raise InputError(f"setting {key} is {values}: expected a list of whole numbers")
        return tuple(int(value) for value in values)

    def length(self, key: int) -> int:
        """Return the length of a list, -1 for what is no list."""
        self._asked.add(key)
        values = self._values.get(key, ())
        return len(values) if isinstance(values, tuple) else -1

    def any_of(self, *keys: int) -> None:
        """Let these have any value."""
        self._asked.update(keys)

    def check(self) -> None:
        """Refuse settings that nobody asked for."""
        if unknown := sorted(set(self._values) - self._asked):
            raise InputError(f"setting {unknown[0]} is unknown here")


Rule: TypeAlias = Callable[[Sequence[Shape], Settings, int], Found]


def _image(inputs: Sequence[Shape]) -> Shape:
    if len(inputs[0]) != 3:
        raise InputError(f"it is given {list(inputs[0])}: expected channels, height and width")
    return inputs[0]


def _activation(settings: Settings) -> None:
    kind = settings.whole(9, 0, 0, 6)
    if settings.length(10) != {2: 1, 3: 2, 6: 2}.get(kind, 0):
        raise InputError(f"its activation {kind} wants other settings")


def _kernel(settings: Settings) -> tuple[int, int]:
    width = settings.whole(1, 0, 1, 64)
    return settings.whole(11, width, 1, 64), width


def _window(side: int, kernel: int, stride: int, padding: int, dilation: int = 1, to_the_end: bool = False) -> int:
    left = side + padding - dilation * (kernel - 1) - 1
    return (-(-left // stride) if to_the_end else left // stride) + 1 if left >= 0 else 0


def _convolution(inputs: Sequence[Shape], settings: Settings, grouped: bool) -> Found:
    channels, height, width = _image(inputs)
    outputs = settings.whole(0, 0, 1, 1 << 20)
    kernel_h, kernel_w = _kernel(settings)
    dilation_w = settings.whole(2, 1, 1, 64)
    stride_w = settings.whole(3, 1, 1, 64)
    left = settings.whole(4, 0, 0, 64)
    top = settings.whole(14, left, 0, 64)
    groups = settings.whole(7, 1, 1, 1 << 20) if grouped else 1
    settings.any_of(18)
    _activation(settings)
    if channels % groups or outputs % groups:
        raise InputError(f"{groups} groups do not divide {channels} and {outputs} channels")
    shape = (
        outputs,
        _window(
            height,
            kernel_h,
            settings.whole(13, stride_w, 1, 64),
            top + settings.whole(16, top, 0, 64),
            settings.whole(12, dilation_w, 1, 64),
        ),
        _window(width, kernel_w, stride_w, left + settings.whole(15, left, 0, 64), dilation_w),
    )
    size = outputs * (channels // groups) * kernel_h * kernel_w
    _same("weights", settings.whole(6, 0, 0, 1 << 30), size)
    if shape[1] * shape[2] * channels * kernel_h * kernel_w > MAX_VALUES:
        raise InputError(f"it unfolds its input to more than {MAX_VALUES} values")
    return Found((shape,), _with_bias(size, outputs, settings), size * shape[1] * shape[2])


def _inner_product(inputs: Sequence[Shape], settings: Settings, _: int) -> Found:
    outputs = settings.whole(0, 0, 1, 1 << 24)
    size = outputs * math.prod(inputs[0])
    _same("weights", settings.whole(2, 0, 0, 1 << 30), size)
    weights = _with_bias(size, outputs, settings, key=1)
    _activation(settings)
    return Found(((outputs,),), weights, size)


def _with_bias(size: int, outputs: int, settings: Settings, key: int = 5) -> tuple[int, ...]:
    return (size, outputs) if settings.whole(key, 0, 0, 1) else (size,)


def _same(what: str, said: int, computed: int) -> None:
    if said != computed:
        raise InputError(f"it has {said} {what}: its sizes ask for {computed}")


def _pooling(inputs: Sequence[Shape], settings: Settings, _: int) -> Found:
    channels, height, width = _image(inputs)
    settings.whole(0, 0, 0, 1)
    settings.any_of(6)
    if settings.whole(4, 0, 0, 1):
        settings.any_of(*range(19))
        return Found(((channels,),))
    if settings.whole(7, 0, 0, 1):
        sides = settings.whole(18, 1, 1, height), settings.whole(8, 1, 1, width)
        settings.any_of(*range(19))
        return Found(((channels, *sides),))
    kernel_h, kernel_w = _kernel(settings)
    stride_w = settings.whole(2, 1, 1, 64)
    stride_h = settings.whole(12, stride_w, 1, 64)
    left = settings.whole(3, 0, 0, 64)
    top = settings.whole(13, left, 0, 64)
    right, bottom = settings.whole(14, left, 0, 64), settings.whole(15, top, 0, 64)
    to_the_end = settings.whole(5, 0, 0, 1) == 0
    if max(left, right) >= kernel_w or max(top, bottom) >= kernel_h:
        raise InputError("its padding is as wide as its window")
    return Found(
        (
            (
                channels,
                _window(height, kernel_h, stride_h, top + bottom, to_the_end=to_the_end),
                _window(width, kernel_w, stride_w, left + right, to_the_end=to_the_end),
            ),
        )
    )


def _concat(inputs: Sequence[Shape], settings: Settings, _: int) -> Found:
    rank = len(inputs[0])
    axis = settings.whole(0, 0, -rank, rank - 1) % rank
    bare = {(*shape[:axis], *shape[axis + 1 :]) for shape in inputs if len(shape) == rank}
    if len(bare) > 1 or any(len(shape) != rank for shape in inputs):
        raise InputError(f"{', '.join(map(str, inputs))} do not fit together")
    return Found(((*inputs[0][:axis], sum(shape[axis] for shape in inputs), *inputs[0][axis + 1 :]),))


def _slice(inputs: Sequence[Shape], settings: Settings, outputs: int) -> Found:
    shape = inputs[0]
    axis = settings.whole(1, 0, -len(shape), len(shape) - 1) % len(shape)
    sizes = settings.several(0)
    taken, parts = 0, []
    for position, size in enumerate(sizes):
        part = (shape[axis] - taken) // (len(sizes) - position) if size == _REST else size
        taken += part
        parts.append((*shape[:axis], part, *shape[axis + 1 :]))
    if len(sizes) != outputs or taken != shape[axis] or any(part[axis] < 1 for part in parts):
        raise InputError(f"{list(sizes)} do not cut {list(shape)} into {outputs}")
    return Found(tuple(parts))


def _split(inputs: Sequence[Shape], _: Settings, outputs: int) -> Found:
    return Found((inputs[0],) * outputs)


def _binary(inputs: Sequence[Shape], settings: Settings, _: int) -> Found:
    settings.whole(0, 0, 0, 11)
    if settings.whole(1, 0, 0, 1):
        settings.any_of(2)
        if len(inputs) > 1:
            raise InputError("it reads a second tensor beside a number")
        return Found((inputs[0],))
    if len(inputs) != 2 or len(inputs[0]) != len(inputs[1]):
        raise InputError(f"{', '.join(map(str, inputs))} do not fit together")
    if any(a != b and 1 not in (a, b) for a, b in zip(*inputs, strict=True)):
        raise InputError(f"{', '.join(map(str, inputs))} do not fit together")
    return Found((tuple(map(max, *inputs)),))


def _reduction(inputs: Sequence[Shape], settings: Settings, _: int) -> Found:
    shape = inputs[0]
    settings.whole(0, 0, 0, 10)
    settings.any_of(2)
    settings.whole(5, 0, 1, 1)  # that axes count as they do since 2018
    axes = settings.several(3)
    if any(not -len(shape) <= axis < len(shape) for axis in axes):
        raise InputError(f"axes {list(axes)} are not those of {list(shape)}")
    if settings.whole(1, 1, 0, 1) or not axes:
        if len(shape) != 1:
            raise InputError("it reduces all of an image")
        axes = (0,)
    gone = {axis % len(shape) for axis in axes}
    if settings.whole(4, 0, 0, 1):
        return Found((tuple(1 if axis in gone else side for axis, side in enumerate(shape)),))
    return Found((tuple(side for axis, side in enumerate(shape) if axis not in gone) or (1,),))


def _reshape(inputs: Sequence[Shape], settings: Settings, _: int) -> Found:
    there = math.prod(inputs[0])
    width, height, channels = (settings.whole(key, 0, -1, there) for key in (0, 1, 2))
    sides = [width] if not height and not channels else [channels, height, width]
    known = math.prod(side for side in sides if side != -1)
    if sides.count(-1) > 1 or known < 1 or there % known or (-1 not in sides and known != there):
        raise InputError(f"{sides} is no shape of {there} values")
    return Found((tuple(there // known if side == -1 else side for side in sides),))


def _flatten(inputs: Sequence[Shape], _: Settings, __: int) -> Found:
    return Found(((math.prod(inputs[0]),),))


def _shuffle(inputs: Sequence[Shape], settings: Settings, _: int) -> Found:
    channels = _image(inputs)[0]
    groups = settings.whole(0, 1, 1, channels)
    settings.whole(1, 0, 0, 1)
    if channels % groups:
        raise InputError(f"{groups} groups do not divide {channels} channels")
    return Found((inputs[0],))


def _each_value(*keys: int) -> Rule:
    def rule(inputs: Sequence[Shape], settings: Settings, _: int) -> Found:
        settings.any_of(*keys)
        return Found((inputs[0],))

    return rule


# Kind: how many tensors it reads and gives, 0 for any number from one on, and what follows from them.
RULES: dict[str, tuple[int, int, Rule]] = {
    "Convolution": (1, 1, lambda inputs, settings, _: _convolution(inputs, settings, grouped=False)),
    "ConvolutionDepthWise": (1, 1, lambda inputs, settings, _: _convolution(inputs, settings, grouped=True)),
    "InnerProduct": (1, 1, _inner_product),
    "Pooling": (1, 1, _pooling),
    "Concat": (0, 1, _concat),
    "Slice": (1, 0, _slice),
    "Split": (1, 0, _split),
    "BinaryOp": (0, 1, _binary),
    "Reduction": (1, 1, _reduction),
    "Reshape": (1, 1, _reshape),
    "Flatten": (1, 1, _flatten),
    "ShuffleChannel": (1, 1, _shuffle),
    "Clip": (1, 1, _each_value(0, 1)),
    "Dropout": (1, 1, _each_value(0)),
    "HardSigmoid": (1, 1, _each_value(0, 1)),
    "HardSwish": (1, 1, _each_value(0, 1)),
    "ReLU": (1, 1, _each_value(0)),
    "Sigmoid": (1, 1, _each_value()),
    "Swish": (1, 1, _each_value()),
}
