"""ncnn's text form of a graph, read strictly: ncnn itself trusts it, and dies of one that does not fit its weights.

Known are the kinds of layers that pnnx makes of classifiers; a shape is (width) or (channels, height, width), without
the batch, which ncnn does not have. ncnn's documentation calls the numbered settings of a layer its parameters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edgekit.errors import InputError

Shape: TypeAlias = tuple[int, ...]
Setting: TypeAlias = float | tuple[float, ...]

INPUT, OUTPUT = "in0", "out0"

_MAGIC = "7767517"
_MAX_LAYERS = 20_000
# Of all results together, and of what a convolution unfolds: 256 MiB.
_MAX_VALUES = 1 << 26
_MAX_SIDE = 4096
_NAME = re.compile(r"[A-Za-z0-9_.:/+-]{1,200}")
_SETTING = re.compile(r"(-?\d{1,6})=(\S{1,2000})")
_NUMBER = re.compile(r"-?\d{1,9}|-?\d{1,12}\.\d{1,12}(e[+-]?\d{1,3})?|-?\d{1,12}(\.\d{1,12})?e[+-]?\d{1,3}")
# A setting with this much less than its number is a list: its length, then its values.
_LIST = 23_300
# What ncnn takes for "the rest" in a list of slices.
_REST = -233


@dataclass(frozen=True)
class Layer:
    """One layer: what it reads and writes by name, the shape of its result, what it holds and does.

    `weights` are the numbers of values of each array it takes from the file of weights, in their order; the first comes
    behind a mark that says how it is stored. `macs` are multiply-accumulates.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shape: Shape
    weights: tuple[int, ...] = ()
    macs: int = 0

    @property
    def parameters(self) -> int:
        """Number of values it holds."""
        return sum(self.weights)


@dataclass(frozen=True)
class _Found:
    shapes: tuple[Shape, ...]
    weights: tuple[int, ...] = ()
    macs: int = 0


class _Settings:
    """The numbered settings of one layer; those that nobody asked for are unknown."""

    def __init__(self, values: Mapping[int, Setting]) -> None:
        self._values = values
        self._asked: set[int] = set()

    def whole(self, key: int, default: int, low: int, high: int) -> int:
        self._asked.add(key)
        value = self._values.get(key, default)
        if not isinstance(value, int | float) or value != int(value) or not low <= value <= high:
            raise InputError(f"setting {key} is {value}: expected a whole number from {low} to {high}")
        return int(value)

    def several(self, key: int) -> tuple[int, ...]:
        self._asked.add(key)
        values = self._values.get(key, ())
        if not isinstance(values, tuple) or any(value != int(value) for value in values):
            raise InputError(f"setting {key} is {values}: expected a list of whole numbers")
        return tuple(int(value) for value in values)

    def length(self, key: int) -> int:
        self._asked.add(key)
        values = self._values.get(key, ())
        return len(values) if isinstance(values, tuple) else -1

    def any_of(self, *keys: int) -> None:
        self._asked.update(keys)

    def check(self) -> None:
        if unknown := sorted(set(self._values) - self._asked):
            raise InputError(f"setting {unknown[0]} is unknown here")


_Rule: TypeAlias = Callable[[Sequence[Shape], _Settings, int], _Found]


def read_graph(text: str, input_shape: Shape) -> tuple[Layer, ...]:
    """Return the layers of a graph whose every tensor has a known shape and one reader.

    Args:
        text: What ncnn calls a .param file.
        input_shape: (channels, height, width) of `INPUT`.

    Raises:
        InputError: It is none, does not fit together, takes more than 256 MiB, or has a layer of a kind that is not
            known.
    """
    lines = text.split("\n")
    if lines[0].strip() != _MAGIC or len(lines) < 3:
        raise InputError("its graph is not ncnn's")
    counts = lines[1].split()
    rows = [line for line in lines[2:] if line.strip()]
    if len(counts) != 2 or not all(count.isascii() and count.isdigit() and len(count) < 9 for count in counts):
        raise InputError("its graph does not say how long it is")
    if int(counts[0]) != len(rows) or len(rows) > _MAX_LAYERS:
        raise InputError(f"its graph has {len(rows)} layers and says {counts[0]} (at most {_MAX_LAYERS})")
    shapes: dict[str, Shape] = {}
    unread: set[str] = set()
    layers, values = [], 0
    for row in rows:
        kind, name, inputs, outputs, settings = _parse(row)
        try:
            twice = len(set(inputs)) < len(inputs) or len(set(outputs)) < len(outputs)
            if twice or not unread.issuperset(inputs) or not shapes.keys().isdisjoint(outputs):
                raise InputError("a tensor is read before it is made, or made or read twice")
            found = _found(kind, [shapes[blob] for blob in inputs], settings, len(outputs), input_shape)
            values += sum(_values(shape) for shape in found.shapes)
            if values > _MAX_VALUES:
                raise InputError(f"results of more than {_MAX_VALUES} values")
        except InputError as error:
            raise InputError(f"its layer '{name}' ({kind}): {error}") from error
        if kind == "Input" and outputs != (INPUT,):
            raise InputError(f"its graph has the input '{outputs[0]}': expected '{INPUT}' alone")
        shapes |= dict(zip(outputs, found.shapes, strict=True))
        unread = (unread - set(inputs)) | set(outputs)
        layers.append(Layer(name, kind, inputs, outputs, found.shapes[0], found.weights, found.macs))
    if int(counts[1]) != len(shapes):
        raise InputError(f"its graph has {len(shapes)} tensors and says {counts[1]}")
    if unread != {OUTPUT}:
        raise InputError(f"its graph gives {', '.join(sorted(unread)[:5]) or 'nothing'}: expected '{OUTPUT}' alone")
    return tuple(layers)


def _parse(row: str) -> tuple[str, str, tuple[str, ...], tuple[str, ...], _Settings]:
    words = row.split()
    if len(words) < 4 or not all(word.isascii() and word.isdigit() and len(word) < 5 for word in words[2:4]):
        raise InputError(f"its graph has a line that is no layer: '{row[:60]}'")
    reads, writes = int(words[2]), int(words[3])
    names, rest = words[4 : 4 + reads + writes], words[4 + reads + writes :]
    if len(names) < reads + writes or not all(_NAME.fullmatch(word) for word in (*words[:2], *names)):
        raise InputError(f"its graph has a line that is no layer: '{row[:60]}'")
    values: dict[int, Setting] = {}
    for word in rest:
        match = _SETTING.fullmatch(word)
        key = int(match[1]) if match else 0
        parts = match[2].split(",") if match else [""]
        is_list = key <= -_LIST
        number = -key - _LIST if is_list else key
        fits = all(_NUMBER.fullmatch(part) for part in parts) and 0 <= number < 100 and number not in values
        if not fits or (not is_list and len(parts) > 1) or (is_list and int(float(parts[0])) != len(parts) - 1):
            raise InputError(f"its layer '{words[1]}' ({words[0]}): '{word[:60]}' is no setting")
        values[number] = tuple(map(float, parts[1:])) if is_list else float(parts[0])
    return words[0], words[1], tuple(names[:reads]), tuple(names[reads:]), _Settings(values)


def _found(kind: str, inputs: Sequence[Shape], settings: _Settings, outputs: int, input_shape: Shape) -> _Found:
    if kind == "Input":
        if inputs or outputs != 1:
            raise InputError("an input reads nothing and gives one tensor")
        for key, side in enumerate(reversed(input_shape)):
            if settings.whole(key, side, 1, _MAX_SIDE) != side:
                raise InputError("it is not the contract's size")
        found = _Found((input_shape,))
    elif kind in _RULES:
        reads, writes, rule = _RULES[kind]
        if not (reads or 1) <= len(inputs) <= (reads or 1000) or not (writes or 1) <= outputs <= (writes or 1000):
            raise InputError(f"it reads {len(inputs)} and gives {outputs} tensors")
        found = rule(inputs, settings, outputs)
    else:
        raise InputError(f"edgekit knows no such layer in ncnn, but {', '.join(_RULES)}")
    settings.check()
    if any(len(shape) not in (1, 3) or min(shape) < 1 for shape in found.shapes):
        raise InputError(f"it gives {list(found.shapes[0])}")
    return found


def _values(shape: Shape) -> int:
    # ncnn lets each channel begin at a multiple of 16 bytes.
    return shape[0] if len(shape) == 1 else shape[0] * -(-shape[1] * shape[2] // 4) * 4


def _image(inputs: Sequence[Shape]) -> Shape:
    if len(inputs[0]) != 3:
        raise InputError(f"it is given {list(inputs[0])}: expected channels, height and width")
    return inputs[0]


def _activation(settings: _Settings) -> None:
    kind = settings.whole(9, 0, 0, 6)
    if settings.length(10) != {2: 1, 3: 2, 6: 2}.get(kind, 0):
        raise InputError(f"its activation {kind} wants other settings")


def _kernel(settings: _Settings) -> tuple[int, int]:
    width = settings.whole(1, 0, 1, 64)
    return settings.whole(11, width, 1, 64), width


def _window(side: int, kernel: int, stride: int, padding: int, dilation: int = 1, to_the_end: bool = False) -> int:
    left = side + padding - dilation * (kernel - 1) - 1
    return (-(-left // stride) if to_the_end else left // stride) + 1 if left >= 0 else 0


def _convolution(inputs: Sequence[Shape], settings: _Settings, grouped: bool) -> _Found:
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
    if shape[1] * shape[2] * channels * kernel_h * kernel_w > _MAX_VALUES:
        raise InputError(f"it unfolds its input to more than {_MAX_VALUES} values")
    return _Found((shape,), _with_bias(size, outputs, settings), size * shape[1] * shape[2])


def _inner_product(inputs: Sequence[Shape], settings: _Settings, _: int) -> _Found:
    outputs = settings.whole(0, 0, 1, 1 << 24)
    size = outputs * math.prod(inputs[0])
    _same("weights", settings.whole(2, 0, 0, 1 << 30), size)
    weights = _with_bias(size, outputs, settings, key=1)
    _activation(settings)
    return _Found(((outputs,),), weights, size)


def _with_bias(size: int, outputs: int, settings: _Settings, key: int = 5) -> tuple[int, ...]:
    return (size, outputs) if settings.whole(key, 0, 0, 1) else (size,)


def _same(what: str, said: int, computed: int) -> None:
    if said != computed:
        raise InputError(f"it has {said} {what}: its sizes ask for {computed}")


def _pooling(inputs: Sequence[Shape], settings: _Settings, _: int) -> _Found:
    channels, height, width = _image(inputs)
    settings.whole(0, 0, 0, 1)
    settings.any_of(6)
    if settings.whole(4, 0, 0, 1):
        settings.any_of(*range(19))
        return _Found(((channels,),))
    if settings.whole(7, 0, 0, 1):
        sides = settings.whole(18, 1, 1, height), settings.whole(8, 1, 1, width)
        settings.any_of(*range(19))
        return _Found(((channels, *sides),))
    kernel_h, kernel_w = _kernel(settings)
    stride_w = settings.whole(2, 1, 1, 64)
    stride_h = settings.whole(12, stride_w, 1, 64)
    left = settings.whole(3, 0, 0, 64)
    top = settings.whole(13, left, 0, 64)
    right, bottom = settings.whole(14, left, 0, 64), settings.whole(15, top, 0, 64)
    to_the_end = settings.whole(5, 0, 0, 1) == 0
    if max(left, right) >= kernel_w or max(top, bottom) >= kernel_h:
        raise InputError("its padding is as wide as its window")
    return _Found(
        (
            (
                channels,
                _window(height, kernel_h, stride_h, top + bottom, to_the_end=to_the_end),
                _window(width, kernel_w, stride_w, left + right, to_the_end=to_the_end),
            ),
        )
    )


def _concat(inputs: Sequence[Shape], settings: _Settings, _: int) -> _Found:
    rank = len(inputs[0])
    axis = settings.whole(0, 0, -rank, rank - 1) % rank
    bare = {(*shape[:axis], *shape[axis + 1 :]) for shape in inputs if len(shape) == rank}
    if len(bare) > 1 or any(len(shape) != rank for shape in inputs):
        raise InputError(f"{', '.join(map(str, inputs))} do not fit together")
    return _Found(((*inputs[0][:axis], sum(shape[axis] for shape in inputs), *inputs[0][axis + 1 :]),))


def _slice(inputs: Sequence[Shape], settings: _Settings, outputs: int) -> _Found:
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
    return _Found(tuple(parts))


def _split(inputs: Sequence[Shape], _: _Settings, outputs: int) -> _Found:
    return _Found((inputs[0],) * outputs)


def _binary(inputs: Sequence[Shape], settings: _Settings, _: int) -> _Found:
    settings.whole(0, 0, 0, 11)
    if settings.whole(1, 0, 0, 1):
        settings.any_of(2)
        if len(inputs) > 1:
            raise InputError("it reads a second tensor beside a number")
        return _Found((inputs[0],))
    if len(inputs) != 2 or len(inputs[0]) != len(inputs[1]):
        raise InputError(f"{', '.join(map(str, inputs))} do not fit together")
    if any(a != b and 1 not in (a, b) for a, b in zip(*inputs, strict=True)):
        raise InputError(f"{', '.join(map(str, inputs))} do not fit together")
    return _Found((tuple(map(max, *inputs)),))


def _reduction(inputs: Sequence[Shape], settings: _Settings, _: int) -> _Found:
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
        return _Found((tuple(1 if axis in gone else side for axis, side in enumerate(shape)),))
    return _Found((tuple(side for axis, side in enumerate(shape) if axis not in gone) or (1,),))


def _reshape(inputs: Sequence[Shape], settings: _Settings, _: int) -> _Found:
    there = math.prod(inputs[0])
    width, height, channels = (settings.whole(key, 0, -1, there) for key in (0, 1, 2))
    sides = [width] if not height and not channels else [channels, height, width]
    known = math.prod(side for side in sides if side != -1)
    if sides.count(-1) > 1 or known < 1 or there % known or (-1 not in sides and known != there):
        raise InputError(f"{sides} is no shape of {there} values")
    return _Found((tuple(there // known if side == -1 else side for side in sides),))


def _flatten(inputs: Sequence[Shape], _: _Settings, __: int) -> _Found:
    return _Found(((math.prod(inputs[0]),),))


def _shuffle(inputs: Sequence[Shape], settings: _Settings, _: int) -> _Found:
    channels = _image(inputs)[0]
    groups = settings.whole(0, 1, 1, channels)
    settings.whole(1, 0, 0, 1)
    if channels % groups:
        raise InputError(f"{groups} groups do not divide {channels} channels")
    return _Found((inputs[0],))


def _each_value(*keys: int) -> _Rule:
    def rule(inputs: Sequence[Shape], settings: _Settings, _: int) -> _Found:
        settings.any_of(*keys)
        return _Found((inputs[0],))

    return rule


# Kind: how many tensors it reads and gives, 0 for any number from one on, and what follows from them.
_RULES: dict[str, tuple[int, int, _Rule]] = {
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
