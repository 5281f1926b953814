"""ncnn's text form of a graph (.param): its layers, restricted to the kinds that `edgekit export` writes.

Other kinds of layers can make ncnn read and write memory outside their tensors, at addresses that the file determines.
Shapes are not inferred here; `ncnn_check` tests whether ncnn can run the graph.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edgekit.errors import InputError

INPUT, OUTPUT = "in0", "out0"

_MAGIC = "7767517"
_MAX_LAYERS = 20_000
_COUNT = re.compile(r"[0-9]{1,5}")
_SETTING = re.compile(r"(-?[0-9]{1,6})=(.+)")
_NUMBER = re.compile(r"[0-9]{1,9}")
# ncnn stores an array of the key k under -23300 - k.
_ARRAY_KEY = -23300
KINDS = frozenset(
    {"Input", "Convolution", "ConvolutionDepthWise", "InnerProduct", "Pooling", "Concat", "Slice", "Split", "BinaryOp"}
    | {"UnaryOp", "Reduction", "Reshape", "Flatten", "ShuffleChannel", "Clip", "Dropout", "ReLU", "Sigmoid", "Swish"}
    | {"HardSigmoid", "HardSwish"}
)
# For each kind of layer: the keys of its number of weights and its bias (0: none). Key 0 is its number of outputs.
_WEIGHTED = {"Convolution": (6, 5), "ConvolutionDepthWise": (6, 5), "InnerProduct": (2, 1)}
_KERNEL_W, _GROUPS, _KERNEL_H, _DYNAMIC_WEIGHT = 1, 7, 11, 19


@dataclass(frozen=True)
class Layer:
    """One layer: the tensors it reads and writes by name, and its numbers of weights and biases.

    The numbers are 0 for kinds other than convolutions and inner products. `weights_per_input` is the number of weights
    that ncnn reads for each input channel, or for each input value of an inner product.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: int = 0
    biases: int = 0
    weights_per_input: float = 0.0

    def fits(self, size_whdc: tuple[int, int, int, int], dims: int) -> bool:
        """Return whether the layer has the weights that an input blob of this size needs; ncnn does not check this."""
        width, height, depth, channels = size_whdc
        if self.kind == "InnerProduct":
            # With two dimensions each row may be an input of its own.
            inputs = {width * height * depth * channels, *([width] if dims == 2 else [])}
        else:
            # A convolution of one dimension is an inner product.
            inputs = {channels, *([width] if dims == 1 else [])}
        return any(self.weights == self.weights_per_input * count for count in inputs)


def read_graph(text: str) -> tuple[Layer, ...]:
    """Return the layers of a .param file.

    Raises:
        InputError: The text is not a .param file, or has no `INPUT` or `OUTPUT`.
    """
    lines = text.split("\n")
    rows = [line.split() for line in lines[2:] if line.strip()]
    if lines[0].strip() != _MAGIC or not rows:
        raise InputError("its graph is not a .param file of ncnn")
    if len(rows) > _MAX_LAYERS:
        raise InputError(f"its graph has {len(rows)} layers: at most {_MAX_LAYERS} are supported")
    layers = tuple(map(_layer, rows))
    if not any(INPUT in layer.outputs for layer in layers) or not any(OUTPUT in layer.outputs for layer in layers):
        raise InputError(f"its graph lacks the input '{INPUT}' or the output '{OUTPUT}'")
    return layers


def weight_bytes(layers: Iterable[Layer]) -> int:
    """Return the size of the weights' file: float32 values, and a tag of four bytes per layer with weights."""
    return sum(4 * (layer.weights + layer.biases + 1) for layer in layers if layer.kind in _WEIGHTED)


def _layer(words: list[str]) -> Layer:
    """Return the layer of a line `kind name reads writes input… output… key=value…`."""
    if len(words) < 4 or not all(_COUNT.fullmatch(word) for word in words[2:4]):
        raise InputError(f"its graph has a line that is not a layer: '{' '.join(words)[:60]}'")
    reads, writes = int(words[2]), int(words[3])
    names, rest = words[4 : 4 + reads + writes], words[4 + reads + writes :]
    if len(names) < reads + writes:
        raise InputError(f"its graph has a line that is not a layer: '{' '.join(words)[:60]}'")
    if words[0] not in KINDS:
        raise InputError(f"its graph has a layer of kind '{words[0][:30]}', which 'edgekit export' does not write")
    if words[0] not in _WEIGHTED:
        return Layer(words[1], words[0], tuple(names[:reads]), tuple(names[reads:]))
    settings = _settings(rest)
    weights, bias = (settings.get(key, 0) for key in _WEIGHTED[words[0]])
    outputs = settings.get(0, 0)
    per_input = float(outputs)
    if words[0] != "InnerProduct":
        kernel_w = settings.get(_KERNEL_W, 0)
        per_input *= kernel_w * settings.get(_KERNEL_H, kernel_w) / (settings.get(_GROUPS, 1) or 1)
    if reads != 1 or settings.get(_DYNAMIC_WEIGHT, 0):
        raise InputError(f"its graph has a layer '{words[1][:30]}' whose weights are computed: it cannot be checked")
    biases = outputs if bias else 0
    return Layer(words[1], words[0], tuple(names[:reads]), tuple(names[reads:]), weights, biases, per_input)


def _settings(words: list[str]) -> dict[int, int]:
    """Return the whole numbers among the settings `key=value`, by key; other values are left out."""
    settings: dict[int, int] = {}
    keys = set()
    for word in words:
        match = _SETTING.fullmatch(word)
        key = int(match[1]) if match else -1
        key = _ARRAY_KEY - key if key <= _ARRAY_KEY else key
        if match is None or key < 0 or key in keys:
            raise InputError(f"its graph has a setting that is not valid or occurs twice: '{word[:30]}'")
        keys.add(key)
        if _NUMBER.fullmatch(match[2]):
            settings[key] = int(match[2])
    return settings
