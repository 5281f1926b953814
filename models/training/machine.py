"""Processors and processes of a training: Lightning Fabric from torchrun's environment, BatchNorm over all, precision.

torch's SyncBatchNorm supports GPUs only. `GatheredBatchNorm2d` gathers mean and mean square through Fabric, whose
gather propagates gradients, so that several CPU processes compute what one process computes on the same global batch.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.models.training.options import Accelerator, Precision

_FABRIC_PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {"fp32": "32-true", "bf16": "bf16-mixed"}
_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
_CPUINFO = Path("/proc/cpuinfo")
# A step on one core with AVX-512 BF16 takes 163 ms in bf16 and 279 ms in fp32 (edgecnn; 59 and 71 ms: mini-xception).
# The depthwise convolutions of other projects' nets gain nothing.
_FASTER_IN_BF16 = ("edgecnn", "mini-xception")


def launch(accelerator: Accelerator, precision: str) -> Fabric:
    """Return a launched Fabric; the number of processes comes from torchrun's environment.

    Raises:
        InputError: There is no GPU.
    """
    world, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise InputError("torch finds no GPU: use accelerator cpu")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # Fabric and open_clip gather with a function that torch has deprecated.
    warnings.filterwarnings("ignore", message=".*all_gather is deprecated", category=FutureWarning)
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
    """Return whether this process has rank 0; valid after `launch`."""
    has_others = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not has_others or torch.distributed.get_rank() == 0


def summed(fabric: Fabric, totals: Tensor) -> list[float]:
    """Return the sums of `totals` over all processes."""
    result = fabric.all_reduce(totals, reduce_op="sum")
    assert isinstance(result, Tensor)
    values: list[float] = result.tolist()
    return values


class GatheredBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d with training statistics over all processes, each with the same number of images.

    Dropout and activation of timm's `BatchNormAct2d` are applied after the normalisation.
    """

    def __init__(self, norm: nn.BatchNorm2d, fabric: Fabric) -> None:
        """Copy parameters, running statistics and mode of `norm`; frozen parameters stay frozen."""
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        # BatchNorms of timm also contain the dropout and the activation that follow.
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())
        self.load_state_dict(norm.state_dict())
        self.train(norm.training)
        for own, copied in zip(self.parameters(), norm.parameters(), strict=True):
            own.requires_grad_(copied.requires_grad)
        self._fabric = [fabric]  # in a list, so that nn.Module does not register it

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised tensor (N, C, H, W), after dropout and activation where the replaced norm has them."""
        normalised = self._normalised_over_all(input) if self.training else super().forward(input)
        result: Tensor = self.act(self.drop(normalised))
        return result

    def _normalised_over_all(self, input: Tensor) -> Tensor:
        """Return the tensor (N, C, H, W) normalised with the statistics of all processes.

        The running statistics are updated with these statistics.
        """
        x = input.float()
        count = x.numel() // x.shape[1] * self._fabric[0].world_size  # values per channel in all processes
        moments = torch.stack([x.mean(dim=(0, 2, 3)), x.square().mean(dim=(0, 2, 3))])  # (2, C)
        gathered = self._fabric[0].all_gather(moments, sync_grads=True)  # (processes, 2, C)
        assert isinstance(gathered, Tensor)
        mean, mean_square = gathered.mean(dim=0)
        variance = mean_square - mean.square()
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)  # unbiased, as in torch
            self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        normalised: Tensor = x * scale[:, None, None] + shift[:, None, None]
        return normalised.to(input.dtype)


def gather_batchnorms(net: nn.Module, fabric: Fabric) -> None:
    """Replace every BatchNorm2d in `net` by a `GatheredBatchNorm2d`."""
    for name, module in net.named_children():
        if isinstance(module, nn.BatchNorm2d):
            setattr(net, name, GatheredBatchNorm2d(module, fabric))
        else:
            gather_batchnorms(module, fabric)


def choose_precision(architecture: str) -> Precision:
    """Return "bf16" where it is faster: for edgekit's own nets on a CPU with bf16 instructions; else "fp32".

    The processor decides, not a timing: times of a busy machine are noise. Several processes get "fp32", because all of
    them need the same precision, also on machines of different processors.
    """
    is_one_process = os.environ.get("WORLD_SIZE", "1") == "1"
    is_faster = architecture.startswith(_FASTER_IN_BF16) and processor_has_bf16()
    return "bf16" if is_faster and is_one_process else "fp32"


def processor_has_bf16() -> bool:
    """Return whether the CPU has instructions for bf16 (AVX-512 BF16, AMX or Arm BF16)."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return False
    # The first processor's line: "flags" of x86, "Features" of Arm.
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not _CPU_FLAGS.isdisjoint(flags.split())
