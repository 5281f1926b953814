"""Arithmetic of a training with `--precision auto`: bf16 where the processor has it and a short timing shows a gain."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn

from edgekit.models.training.distributed import count_in_environment
from edgekit.models.training.options import Precision

_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
_CPUINFO = Path("/proc/cpuinfo")
_ROUNDS = 3
# bf16 must be this much faster, because a timing of a few steps is noisy.
_MIN_GAIN = 1.1


def choose_precision(net: nn.Module, size_hw: tuple[int, int], batch_size: int) -> tuple[Precision, str]:
    """Return "bf16" or "fp32", and the reason as text, for a training on the CPU.

    Args:
        net: A net to time, float images (N, 3, H, W) → logits; it is left in training mode.
        size_hw: Height and width of its input.
        batch_size: Images per step.

    Raises:
        InputError: torchrun's environment is invalid.
    """
    if count_in_environment("WORLD_SIZE") > 1:
        return "fp32", "all processes of a training need the same: pass --precision bf16 to choose it"
    if not processor_has_bf16():
        return "fp32", "the processor has no bf16 arithmetic"
    images = torch.rand(batch_size, 3, *size_hw).contiguous(memory_format=torch.channels_last)
    net = net.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    times: dict[bool, float] = {}
    for is_bf16 in (False, True):
        _step_s(net, images, is_bf16)  # the first step compiles kernels
        times[is_bf16] = min(_step_s(net, images, is_bf16) for _ in range(_ROUNDS))
    text = f"a step takes {1000 * times[True]:.0f} ms in bf16, {1000 * times[False]:.0f} ms in fp32"
    return ("bf16" if times[False] > _MIN_GAIN * times[True] else "fp32"), text


def processor_has_bf16() -> bool:
    """Return whether the CPU has instructions for bf16 (AVX-512 BF16, AMX or Arm BF16)."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not _CPU_FLAGS.isdisjoint(flags.split())


def _step_s(net: nn.Module, images: torch.Tensor, is_bf16: bool) -> float:
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        loss = net(images).float().square().mean()
    loss.backward()
    return time.perf_counter() - started
