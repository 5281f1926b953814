"""One process or many: Lightning Fabric set up from torchrun's environment."""

from __future__ import annotations

import logging
import os
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgekit.errors import InputError

Precision = Literal["fp32", "bf16", "fp16"]
Accelerator = Literal["auto", "cpu", "gpu"]

_FABRIC_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


def launch(accelerator: Accelerator, precision: Precision) -> Fabric:
    """Return a launched Fabric; torchrun's environment says how many processes there are.

    Raises:
        InputError: The settings do not fit the machine.
    """
    world, local = _count_in_environment("WORLD_SIZE"), _count_in_environment("LOCAL_WORLD_SIZE")
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise InputError("no GPU is visible here: pass --accelerator cpu")
    if precision == "fp16" and (accelerator == "cpu" or not torch.cuda.is_available()):
        raise InputError("fp16 training needs a GPU: pass --precision bf16 or fp32")
    # Its announcements tell the user nothing they did not ask for.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision=_FABRIC_PRECISION[precision],
    )
    fabric.launch()
    return fabric


def is_first_process() -> bool:
    """Return whether this is the only process, or the first of several that `launch` has brought together."""
    return not (torch.distributed.is_available() and torch.distributed.is_initialized()) or (
        torch.distributed.get_rank() == 0
    )


def summed(fabric: Fabric, totals: Tensor) -> list[float]:
    """Return the sums over all processes."""
    result = fabric.all_reduce(totals, reduce_op="sum")
    assert isinstance(result, Tensor)
    values: list[float] = result.tolist()
    return values


def _count_in_environment(name: str) -> int:
    text = os.environ.get(name, "1")
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"environment variable {name} is {text!r}: torchrun sets it to a number of processes")
    return int(text)
