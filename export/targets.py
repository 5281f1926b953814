"""Presets per processor: the rewrites and the int8 types of the exported file.

Where operation counts or measured times exist, the presets are chosen by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from edgekit.errors import InputError

QuantizedTypes: TypeAlias = Literal["u8s8", "s8s8"]


@dataclass(frozen=True)
class Target:
    """A preset: rewrites of `edgekit.export.passes.table`, and data types (activations, weights) of an int8 file.

    `half_floats` states whether ncnn needs fewer instructions with half floats, by counts on an emulated core.
    """

    passes: frozenset[str]
    types: QuantizedTypes
    half_floats: bool = False


_SMALLER = frozenset({"gray-stem", "merge-pool"})

# The figures are in docs/reference/results-device.md.
TARGETS: dict[str, Target] = {
    # Standard layers, which every engine reads.
    "generic": Target(frozenset(), "u8s8"),
    "x86": Target(_SMALLER, "u8s8"),
    # Counted on emulated cores; not timed on a board.
    "a53": Target(_SMALLER | {"concat-free"}, "u8s8"),
    "a72": Target(_SMALLER | {"concat-free"}, "u8s8"),
    # Its dot products need fewer instructions for S8S8.
    "a76": Target(_SMALLER | {"concat-free"}, "s8s8", half_floats=True),
}
GENERIC = "generic"


# Its instructions were counted with float32 files only, so it is not applied to int8 files.
_FLOAT32_ONLY = frozenset({"concat-free"})


def chosen_passes(target: str, quantized: bool = False) -> frozenset[str]:
    """Return the rewrites of a target that are useful for this kind of file.

    Raises:
        InputError: The target is unknown.
    """
    if target not in TARGETS:
        raise InputError(f"target '{target}' is unknown: use one of {', '.join(TARGETS)}")
    return TARGETS[target].passes - (_FLOAT32_ONLY if quantized else frozenset())
