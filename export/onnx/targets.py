"""Presets per processor: the rewrites and the int8 format of the exported file.

Where operation counts or measured times exist, the presets are chosen by them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias

from edgekit.errors import InputError

QuantizedTypes: TypeAlias = Literal["u8s8", "s8s8"]
QuantizedForm: TypeAlias = Literal["qdq", "qoperator"]

# Rewrites of `edgekit.export.onnx.passes` by the name that --pass takes.
PASSES: dict[str, str] = {
    "fold-class-vectors": "a student's class vectors and logit scale in one matrix",
    "fold-batchnorm": "BatchNorm in the convolutions' weights",
    "gray-stem": "one input channel for a net of gray pictures",
    "uint8-input": "input scaling in the first convolution; the file takes uint8 pixels",
    "merge-pool": "convolution and average pool in one",
    "concat-free": "dense blocks without concatenations, where results stay small",
}


@dataclass(frozen=True)
class Target:
    """A preset: names of the rewrites, and the data types and form (QDQ or QOperator) of an int8 file.

    `half_floats` states whether ncnn needs fewer instructions with half floats, by counts on an emulated core.
    """

    passes: frozenset[str]
    types: QuantizedTypes
    form: QuantizedForm
    half_floats: bool = False


_FOLDING = frozenset({"fold-class-vectors", "fold-batchnorm"})
_SMALLER = _FOLDING | {"gray-stem", "uint8-input", "merge-pool"}

# The figures are in docs/how-to/export.md.
TARGETS: dict[str, Target] = {
    # float32 input and standard layers, which every engine reads.
    "generic": Target(_FOLDING, "u8s8", "qdq"),
    "x86": Target(_SMALLER, "u8s8", "qdq"),
    # Counted on emulated cores; not timed on a board.
    "a53": Target(_SMALLER | {"concat-free"}, "u8s8", "qdq"),
    "a72": Target(_SMALLER | {"concat-free"}, "u8s8", "qdq"),
    # Its dot products need fewer instructions for S8S8.
    "a76": Target(_SMALLER | {"concat-free"}, "s8s8", "qdq", half_floats=True),
}
GENERIC = "generic"


# These rewrites have no known benefit for an int8 file: a Cast before QuantizeLinear costs as much as it saves, and
# concat-free was not counted for int8.
_FLOAT32_ONLY = frozenset({"uint8-input", "concat-free"})
# ncnn's tensors are float32.
_NOT_IN_NCNN = frozenset({"uint8-input"})


def chosen_passes(
    target: str,
    on: Collection[str] = (),
    off: Collection[str] = (),
    quantized: bool = False,
    ncnn: bool = False,
) -> frozenset[str]:
    """Return the rewrites of a target that are useful for this kind of file, plus those in `on`, minus those in `off`.

    Raises:
        InputError: The target or a name is unknown, a name is in both lists, or ncnn does not support the rewrite.
    """
    if target not in TARGETS:
        raise InputError(f"target '{target}' is unknown: use one of {', '.join(TARGETS)}")
    for name in (*on, *off):
        if name not in PASSES:
            raise InputError(f"rewrite '{name}' is unknown: use {', '.join(PASSES)}")
        if name in on and name in off:
            raise InputError(f"rewrite '{name}' is both added and left out: choose one")
        if ncnn and name in on and name in _NOT_IN_NCNN:
            raise InputError(f"rewrite '{name}' does not work for ncnn, whose tensors are float32: leave it out")
    useless = _FLOAT32_ONLY if quantized else _NOT_IN_NCNN if ncnn else frozenset[str]()
    return (TARGETS[target].passes - useless | frozenset(on)) - frozenset(off)
