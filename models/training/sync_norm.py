"""BatchNorm over the batch of all processes, on any device.

torch's SyncBatchNorm exists for GPUs only. This one gathers mean and mean square through Fabric, whose gather passes
gradients on, so that several CPU processes compute what one process would on the same global batch.
"""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn


class GatheredBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of all processes; each must hold equally many images."""

    def __init__(self, norm: nn.BatchNorm2d, fabric: Fabric) -> None:
        """Take over parameters and running statistics of `norm`."""
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.load_state_dict(norm.state_dict())
        self._fabric = [fabric]  # in a list, since nn.Module would otherwise look into it

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised (N, C, H, W)."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        count = x.numel() // x.shape[1] * self._fabric[0].world_size
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
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        normalised: Tensor = x * scale[:, None, None] + shift[:, None, None]
        return normalised.to(input.dtype)


def gather_batchnorms(net: nn.Module, fabric: Fabric) -> None:
    """Replace every BatchNorm2d below `net` by one that spans all processes."""
    for name, module in net.named_children():
        if isinstance(module, nn.BatchNorm2d):
            setattr(net, name, GatheredBatchNorm2d(module, fabric))
        else:
            gather_batchnorms(module, fabric)
