"""EdgeCNN equals the authors' net: outputs of each stage, one training step, and numbers of parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgekit.models.data import EXPRESSIONS
from edgekit.models.model_loading import build_net, import_authors_checkpoint
from edgekit.models.nets.edgecnn import EdgeCNN
from edgekit.models.nets.registry import create_model, parameter_count


@pytest.fixture
def authors_net(shared: Path) -> EdgeCNN:
    path = shared / "reference/edgecnn/FER2013_EdgeCNN_PrivateTest_model.t7"
    net = build_net(import_authors_checkpoint(path, EXPRESSIONS, "fer2013", gray=True))
    assert isinstance(net, EdgeCNN)
    return net


@pytest.fixture
def golden(shared: Path) -> dict[str, Any]:
    with np.load(shared / "reference/edgecnn/golden_fer2013.npz") as file:
        return dict(file)


def test_authors_checkpoint_gives_their_logits(authors_net: EdgeCNN, golden: dict[str, Any]) -> None:
    with torch.no_grad():
        logits = authors_net(torch.from_numpy(golden["inputs"])).numpy()
        precise = authors_net.double()(torch.from_numpy(golden["inputs"]).double()).numpy()
    np.testing.assert_allclose(logits, golden["logits"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(precise, golden["logits_f64"], rtol=0, atol=1e-9)


def _stage_modules(net: EdgeCNN) -> dict[str, nn.Module]:
    stages: dict[str, nn.Module] = {"conv0": net.stem, "pool0": net.stem_pool}
    for block_number, block in enumerate(net.blocks, start=1):
        assert isinstance(block, nn.Sequential)
        stages |= {f"dense{block_number}_{index}": layer for index, layer in enumerate(block, start=1)}
    return stages


def test_every_stage_gives_the_authors_output(authors_net: EdgeCNN, golden: dict[str, Any]) -> None:
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen.update({name: output})

    for name, module in _stage_modules(authors_net).items():
        module.register_forward_hook(keep(name))
    pooled: list[torch.Tensor] = []
    authors_net.transition.register_forward_hook(lambda _module, _inputs, output: pooled.append(output))
    with torch.no_grad():
        authors_net(torch.from_numpy(golden["inputs"][:1]))
    seen |= {f"trans{index}": output for index, output in enumerate(pooled, start=1)}
    expected = {key.removeprefix("stage/"): value for key, value in golden.items() if key.startswith("stage/")}
    assert seen.keys() == expected.keys()
    for name, output in seen.items():
        np.testing.assert_allclose(output.numpy(), expected[name], rtol=0, atol=1e-4, err_msg=name)


def test_one_training_step_changes_the_net_as_the_authors_step_does(
    authors_net: EdgeCNN, golden: dict[str, Any]
) -> None:
    step = {key.removeprefix("sgd_step/plain/"): value for key, value in golden.items() if "/plain/" in key}
    inputs, labels = torch.from_numpy(golden["inputs"]), torch.tensor([0, 1, 2, 3, 4, 5, 6, 0])
    optimizer = torch.optim.SGD(authors_net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    authors_net.train()
    loss = F.cross_entropy(authors_net(inputs), labels)
    loss.backward()
    gradients = torch.cat([p.grad.flatten() for p in authors_net.parameters() if p.grad is not None])
    nn.utils.clip_grad_value_(authors_net.parameters(), 0.1)
    optimizer.step()
    authors_net.eval()
    assert float(loss.detach()) == pytest.approx(float(step["loss"]), abs=1e-4)
    assert float(gradients.norm()) == pytest.approx(float(step["grad_l2"]), rel=1e-4)
    first = _stage_modules(authors_net)["dense1_1"]
    atol = {"rtol": 0, "atol": 1e-5}
    np.testing.assert_allclose(first.expand_norm.running_mean, step["norm0_mean"], **atol)
    np.testing.assert_allclose(first.reduce_norm.running_mean, step["norm1_mean"], **atol)
    np.testing.assert_allclose(authors_net.classifier.weight.detach(), step["classifier_weight_after"], **atol)
    with torch.no_grad():
        np.testing.assert_allclose(authors_net(inputs).numpy(), step["logits_after"], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("edgecnn", 418_487),
        ("edgecnn-wide", 1_388_807),
        ("edgecnn-g", 104_327),
        ("edgecnn-g-condensed", 104_327),
        ("edgecnn-g-learned", 419_687),
    ],
)
def test_nets_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert parameter_count(create_model(name, 7)) == parameters


@pytest.mark.parametrize("classes", [1, 2, 31])
def test_any_number_of_classes(classes: int) -> None:
    assert create_model("edgecnn", classes)(torch.zeros(2, 3, 44, 44)).shape == (2, classes)


def test_a_step_runs_the_forward_pass_once() -> None:
    net = create_model("edgecnn", 7).train()
    net(torch.rand(4, 3, 44, 44)).sum().backward()
    counts = {int(module.num_batches_tracked) for module in net.modules() if isinstance(module, nn.BatchNorm2d)}
    assert counts == {1}
