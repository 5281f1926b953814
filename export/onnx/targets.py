"""What is exported for which processor: rewrites and quantisation that a count or a measurement there supports."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias

from edgekit.errors import InputError

QuantizedTypes: TypeAlias = Literal["u8s8", "s8s8"]
QuantizedForm: TypeAlias = Literal["qdq", "qoperator"]

# The rewrites of `edgekit.export.onnx.passes`, by the name --pass takes, and what each does.
PASSES: dict[str, str] = {
    "fold-class-vectors": "a student's class vectors and logit scale in one matrix",
    "fold-batchnorm": "BatchNorm in the convolutions' weights",
    "gray-stem": "one input channel for a net of gray pictures",
    "uint8-input": "input scaling in the first convolution; the file takes uint8 pixels",
    "pack-channels": "channels of dense blocks in vectors of 16",
    "merge-pool": "convolution and average pool in one",
    "concat-free": "dense blocks without concatenations, where results stay small",
}


@dataclass(frozen=True)
class Target:
    """A preset: names of rewrites, and types and form of a quantised file."""

    passes: frozenset[str]
    types: QuantizedTypes
    form: QuantizedForm


_FOLDING = frozenset({"fold-class-vectors", "fold-batchnorm"})
_SMALLER = _FOLDING | {"gray-stem", "uint8-input", "merge-pool"}

# The figures are in docs/export.md.
TARGETS: dict[str, Target] = {
    # The net as it is, float32 input: what every engine reads.
    "generic": Target(_FOLDING, "u8s8", "qdq"),
    # Timed on a PC with AVX-512, whose vectors have 16 lanes.
    "x86": Target(_SMALLER | {"pack-channels"}, "u8s8", "qdq"),
    # Counted on an emulated Cortex-A53, no board timed.
    "a53": Target(_SMALLER | {"concat-free"}, "u8s8", "qdq"),
    # Less work than the plain graph; nothing counted or timed there.
    "a72": Target(_SMALLER, "u8s8", "qdq"),
    "a76": Target(_SMALLER, "u8s8", "qdq"),
}
GENERIC = "generic"


# Of no use to a quantised file: eight bits have no vectors of 16 channels, a Cast before them costs what it saves, and
# for blocks without concatenations nothing was counted.
_FLOAT32_ONLY = frozenset({"pack-channels", "uint8-input", "concat-free"})


# ncnn's tensors are float32; it lays out its channels by itself.
_NOT_IN_NCNN = frozenset({"uint8-input"})
_OF_NO_USE_TO_NCNN = _NOT_IN_NCNN | {"pack-channels"}


def chosen_passes(
    target: str,
    on: Collection[str] = (),
    off: Collection[str] = (),
    quantized: bool = False,
    ncnn: bool = False,
) -> frozenset[str]:
    """Return a target's rewrites, without those of no use to a file of that kind, with some switched on or off by name.

    Raises:
        InputError: A name is not known, is switched both on and off, or cannot be done in a file for ncnn.
    """
    for name in (*on, *off):
        if name not in PASSES:
            raise InputError(f"rewrite '{name}' is not known: there are {', '.join(PASSES)}")
        if name in on and name in off:
            raise InputError(f"rewrite '{name}' is switched on and off: give --pass or --no-pass")
        if ncnn and name in on and name in _NOT_IN_NCNN:
            raise InputError(f"rewrite '{name}' cannot be done for ncnn, whose tensors are float32: leave it out")
    unfit = _FLOAT32_ONLY if quantized else _OF_NO_USE_TO_NCNN if ncnn else frozenset[str]()
    return (TARGETS[target].passes - unfit | frozenset(on)) - frozenset(off)
