"""Arithmetic of a training with `--precision auto`."""

from __future__ import annotations

from pathlib import Path

from edgekit.models.training.distributed import count_in_environment
from edgekit.models.training.options import Precision

_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
_CPUINFO = Path("/proc/cpuinfo")
# A step on one core with AVX-512 BF16 takes 163 ms in bf16 and 279 ms in fp32 (edgecnn; 59 and 71 ms: mini-xception).
# The depthwise convolutions of other projects' nets gain nothing.
_FASTER = ("edgecnn", "mini-xception")


def choose_precision(architecture: str) -> Precision:
    """Return "bf16" on a CPU with bf16 instructions for edgekit's own nets in one process, else "fp32".

    The processor decides, not a timing: times of a busy machine are noise. With several processes, all of them need the
    same precision, also on machines of different processors.

    Raises:
        InputError: torchrun's environment is invalid.
    """
    is_faster = architecture.startswith(_FASTER) and processor_has_bf16()
    return "bf16" if is_faster and count_in_environment("WORLD_SIZE") == 1 else "fp32"


def processor_has_bf16() -> bool:
    """Return whether the CPU has instructions for bf16 (AVX-512 BF16, AMX or Arm BF16)."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not _CPU_FLAGS.isdisjoint(flags.split())
