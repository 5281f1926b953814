"""ncnn's text form of a graph, read strictly: ncnn itself trusts it, and dies of one that does not fit its weights.

What each kind of layer may be, `ncnn_layers` says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.device.engines.ncnn_layers import MAX_VALUES, RULES, Found, Setting, Settings, Shape
from edgekit.errors import InputError

INPUT, OUTPUT = "in0", "out0"

_MAGIC = "7767517"
_MAX_LAYERS = 20_000
_MAX_SIDE = 4096
_NAME = re.compile(r"[A-Za-z0-9_.:/+-]{1,200}")
_SETTING = re.compile(r"(-?\d{1,6})=(\S{1,2000})")
_NUMBER = re.compile(r"-?\d{1,9}|-?\d{1,12}\.\d{1,12}(e[+-]?\d{1,3})?|-?\d{1,12}(\.\d{1,12})?e[+-]?\d{1,3}")
# A setting with this much less than its number is a list: its length, then its values.
_LIST = 23_300


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
            if values > MAX_VALUES:
                raise InputError(f"results of more than {MAX_VALUES} values")
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


def _parse(row: str) -> tuple[str, str, tuple[str, ...], tuple[str, ...], Settings]:
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
    return words[0], words[1], tuple(names[:reads]), tuple(names[reads:]), Settings(values)


def _found(kind: str, inputs: Sequence[Shape], settings: Settings, outputs: int, input_shape: Shape) -> Found:
    if kind == "Input":
        if inputs or outputs != 1:
            raise InputError("an input reads nothing and gives one tensor")
        for key, side in enumerate(reversed(input_shape)):
            if settings.whole(key, side, 1, _MAX_SIDE) != side:
                raise InputError("it is not the contract's size")
        found = Found((input_shape,))
    elif kind in RULES:
        reads, writes, rule = RULES[kind]
        if not (reads or 1) <= len(inputs) <= (reads or 1000) or not (writes or 1) <= outputs <= (writes or 1000):
            raise InputError(f"it reads {len(inputs)} and gives {outputs} tensors")
        found = rule(inputs, settings, outputs)
    else:
        raise InputError(f"edgekit knows no such layer in ncnn, but {', '.join(RULES)}")
    settings.check()
    if any(len(shape) not in (1, 3) or min(shape) < 1 for shape in found.shapes):
        raise InputError(f"it gives {list(found.shapes[0])}")
    return found


def _values(shape: Shape) -> int:
    # ncnn lets each channel begin at a multiple of 16 bytes.
    return shape[0] if len(shape) == 1 else shape[0] * -(-shape[1] * shape[2] // 4) * 4
