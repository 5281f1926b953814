"""ncnn's text form of a graph (.param): its layers, restricted to the kinds that `edgekit export` writes.

Other kinds of ncnn can read and write outside their tensors at places the file chooses. Shapes are not inferred here;
`ncnn_check` finds out whether ncnn can run the graph.
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
_SETTING = re.compile(r"([0-9]{1,3})=([0-9]{1,9})")
KINDS = frozenset(
    {"Input", "Convolution", "ConvolutionDepthWise", "InnerProduct", "Pooling", "Concat", "Slice", "Split", "BinaryOp"}
    | {"UnaryOp", "Reduction", "Reshape", "Flatten", "ShuffleChannel", "Clip", "Dropout", "ReLU", "Sigmoid", "Swish"}
    | {"HardSigmoid", "HardSwish"}
)
# For each kind of layer: the keys of its number of weights, its bias (0: none) and its number of outputs.
_WEIGHTED = {
    "Convolution": ("6", "5", "0"),
    "ConvolutionDepthWise": ("6", "5", "0"),
    "InnerProduct": ("2", "1", "0"),
}


@dataclass(frozen=True)
class Layer:
    """One layer: the tensors it reads and writes by name, and its number of weights and biases.

    `parameters` is 0 for kinds other than convolutions and inner products.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: int


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
    return sum(4 * (layer.parameters + 1) for layer in layers if layer.kind in _WEIGHTED)


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
    settings = {match[1]: int(match[2]) for word in rest if (match := _SETTING.fullmatch(word))}
    parameters = 0
    if words[0] in _WEIGHTED:
        weights, bias, outputs = (settings.get(key, 0) for key in _WEIGHTED[words[0]])
        parameters = weights + (outputs if bias else 0)
    return Layer(words[1], words[0], tuple(names[:reads]), tuple(names[reads:]), parameters)
