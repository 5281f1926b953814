"""BatchNorm over all processes computes what the replaced module computes."""

from __future__ import annotations

import copy
from typing import cast

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgekit.models.nets.registry import create_model
from edgekit.models.training.machine import GatheredBatchNorm2d, gather_batchnorms


class _OneProcess:
    world_size = 1

    def all_gather(self, data: Tensor, sync_grads: bool) -> Tensor:
        assert sync_grads
        return data[None]


@pytest.mark.parametrize("name", ["mini-xception", "timm/mobilenetv3_small_050"])
def test_a_net_with_gathered_batchnorms_computes_the_same(name: str) -> None:
    torch.manual_seed(0)
    net, images = create_model(name, 7), torch.rand(8, 3, 44, 44)
    gathered = copy.deepcopy(net)
    gather_batchnorms(gathered, cast(Fabric, _OneProcess()))
    assert any(isinstance(module, GatheredBatchNorm2d) for module in gathered.modules())
    torch.testing.assert_close(gathered.train()(images), net.train()(images), rtol=1e-3, atol=1e-3)
    assert gathered.state_dict().keys() == net.state_dict().keys()
    gathered.load_state_dict(net.state_dict())
    assert torch.equal(gathered.eval()(images), net.eval()(images))
