"""EdgeCNN-G: connections are removed on schedule, and the condensed net computes the same logits."""

from __future__ import annotations

import pytest
import torch

from edgekit.models.nets.edgecnn import EdgeCNN
from edgekit.models.nets.grouped import LearnedGroupConv2d, condensed, set_training_progress
from edgekit.models.nets.registry import create_model, parameter_count


@pytest.fixture
def learned() -> EdgeCNN:
    torch.manual_seed(1)
    net = create_model("edgecnn-g-learned", 7)
    assert isinstance(net, EdgeCNN)
    return net


def _kept(net: EdgeCNN) -> set[float]:
    convs = [module for module in net.modules() if isinstance(module, LearnedGroupConv2d)]
    return {float(conv.mask.float().mean()) * conv.groups for conv in convs if conv.groups == 4}


def test_connections_fall_in_steps_to_one_share_per_group(learned: EdgeCNN) -> None:
    seen = []
    for progress in (0.0, 0.13, 0.26, 0.38, 0.9):
        set_training_progress(learned, progress)
        (share,) = _kept(learned)
        seen.append(share)
    assert seen == [4.0, 3.0, 2.0, 1.0, 1.0]


def test_dropped_connections_stay_dropped(learned: EdgeCNN) -> None:
    set_training_progress(learned, 0.3)
    conv = next(module for module in learned.modules() if isinstance(module, LearnedGroupConv2d))
    dropped = ~conv.mask
    with torch.no_grad():
        conv.conv.weight.normal_(std=10)
    set_training_progress(learned, 0.4)
    assert not bool(conv.mask[dropped].any())


def test_a_further_training_keeps_the_learned_groups(learned: EdgeCNN) -> None:
    set_training_progress(learned, 1.0)
    before = [module.mask.clone() for module in learned.modules() if isinstance(module, LearnedGroupConv2d)]
    set_training_progress(learned, 0.0)
    after = [module.mask for module in learned.modules() if isinstance(module, LearnedGroupConv2d)]
    assert all(map(torch.equal, before, after))


def test_condensed_net_computes_the_same_logits(learned: EdgeCNN) -> None:
    learned.train()
    for progress in (0.1, 0.6):
        set_training_progress(learned, progress)
        learned(torch.rand(8, 3, 44, 44))
    learned.eval()
    images = torch.rand(4, 3, 44, 44)
    small = condensed(learned)
    assert parameter_count(small) == 104_327
    with torch.no_grad():
        torch.testing.assert_close(small(images), learned(images), rtol=0, atol=1e-5)
