"""A net with branches is trained, and saved as the plain net with the same outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit.errors import InputError
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.data import DataSet
from edgekit.models.data.augment import Augmentation
from edgekit.models.model_loading import build_net, contract_for
from edgekit.models.nets.branched import BranchedConv2d, merged_name, merged_state
from edgekit.models.nets.embedding_net import EmbeddingNet
from edgekit.models.nets.registry import create_model, parameter_count
from edgekit.models.training.classification import ClassificationTask
from edgekit.models.training.init_weights import read_initial_weights
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.task import TrainingJob
from tests.resuming import train_whole_and_resumed

IMAGES = torch.rand(4, 3, 44, 44, generator=torch.Generator().manual_seed(0))


def _with_random_branches(net: nn.Module) -> nn.Module:
    """Set random gains, offsets and statistics, so that the branches change the output."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, BranchedConv2d):
            for _, norm in module.branches:  # type: ignore[misc]
                for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
                    tensor.normal_(0, 0.3, generator=generator)
                norm.running_var.uniform_(0.5, 2, generator=generator)
    return net.eval()


@pytest.mark.parametrize("name", ["edgecnn-branched", "edgecnn-branched@12"])
@torch.no_grad()
def test_the_merged_net_returns_the_logits_of_the_branched_one(name: str) -> None:
    torch.manual_seed(0)
    branched = create_model(name, 7).eval()
    plain = create_model(merged_name(name), 7).eval()
    if isinstance(branched, EmbeddingNet):
        branched.set_classes(torch.randn(7, 12), 8.0)
    before = branched(IMAGES)
    _with_random_branches(branched)
    plain.load_state_dict(merged_state(branched))
    assert not torch.allclose(branched(IMAGES), before, atol=1e-2), "the branches have an effect"
    torch.testing.assert_close(plain(IMAGES), branched(IMAGES), rtol=0, atol=1e-4)


@torch.no_grad()
def test_one_convolution_is_merged_exactly_up_to_the_border() -> None:
    torch.manual_seed(0)
    conv = BranchedConv2d(5, 6, 1)
    _with_random_branches(conv)
    x = torch.rand(2, 5, 9, 7)
    weight, bias = conv.merged()
    torch.testing.assert_close(torch.conv2d(x, weight, bias, padding=1), conv(x), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_it_starts_as_the_plain_net_and_is_saved_as_one(bars: DataSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = create_model("edgecnn", 7).eval()
    start = tmp_path / "plain.safetensors"
    contracts = {name: contract_for(name, bars.classes, bars.name, gray=True) for name in ("edgecnn", "edgecnn-wide")}
    save_checkpoint(start, Checkpoint(contracts["edgecnn"], plain.state_dict()))
    contract = contract_for("edgecnn-branched", bars.classes, bars.name, gray=True)
    initial = read_initial_weights(start, contract, lambda _message: None)
    recipe = Recipe(epochs=2, augmentation=Augmentation(crop_px=44), batch_size=28, max_lr=0.05, ema_decay=0.9)

    def job() -> TrainingJob:
        parts = bars.splits["Training"], bars.splits["PublicTest"]
        return TrainingJob(ClassificationTask(contract, recipe, *parts, initial=initial), recipe, {}, accelerator="cpu")

    net = job().task.build(torch.device("cpu")).eval()
    with torch.no_grad():
        assert torch.equal(net(IMAGES), plain(IMAGES))

    whole = train_whole_and_resumed(job, tmp_path, interrupted_after=3)  # in the second epoch
    assert (tmp_path / "whole/best.safetensors").stat().st_size < 2_000_000
    gains = [value for name, value in whole.items() if name.endswith("branches.1.1.weight")]
    assert gains
    assert all(float(gain.abs().max()) > 0 for gain in gains), "the branches learn"
    checkpoint = load_checkpoint(tmp_path / "whole/best.safetensors")
    assert checkpoint.contract.architecture == "edgecnn"
    assert checkpoint.training["architecture"] == "edgecnn-branched"
    assert parameter_count(build_net(checkpoint)) == 418_487

    save_checkpoint(start, Checkpoint(contracts["edgecnn-wide"], create_model("edgecnn-wide", 7).state_dict()))
    with pytest.raises(InputError, match="is a checkpoint of edgecnn-wide, but the net to train is edgecnn-branched"):
        read_initial_weights(start, contract, lambda _message: None)
