"""EdgeCNN equals the authors' net: outputs of each stage, one training step, and numbers of parameters."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.data import EXPRESSIONS
from edgekit.models.model_loading import build_net, import_authors_checkpoint
from edgekit.models.nets.edgecnn import EdgeCNN
from edgekit.models.nets.registry import create_model, parameter_count
from tests.sketch import check_sketch, sketch

FIGURES = Path(__file__).parents[2] / "fixtures/golden/edgecnn.json"
# Of the values of an array.
TOLERANCES = {"stage": 1e-4, "logits": 1e-3, "sgd_step/plain/logits_after": 1e-3, "sgd_step": 1e-4}


def seeded_net() -> tuple[EdgeCNN, Tensor]:
    """Return a net and images from numpy's seeds."""
    net = create_model("edgecnn", 7)
    assert isinstance(net, EdgeCNN)
    for index, (name, tensor) in enumerate(net.state_dict().items()):
        if tensor.is_floating_point():
            noise = torch.from_numpy(np.random.default_rng([1, index]).random(tensor.shape, np.float32) - 0.5)
            scale = math.sqrt(24 / tensor[0].numel()) if tensor.ndim > 1 else 0.4
            tensor.copy_(scale * noise + float(tensor.ndim == 1 and name.endswith(("weight", "var"))))
    return net, torch.from_numpy(np.random.default_rng(0).random((8, 3, 44, 44), np.float32))


def _stage_modules(net: EdgeCNN) -> dict[str, nn.Module]:
    stages: dict[str, nn.Module] = {"conv0": net.stem, "pool0": net.stem_pool}
    for block_number, block in enumerate(net.blocks, start=1):
        assert isinstance(block, nn.Sequential)
        stages |= {f"dense{block_number}_{index}": layer for index, layer in enumerate(block, start=1)}
    return stages


def computed(net: EdgeCNN, images: Tensor) -> dict[str, Tensor]:
    """Return logits, outputs of each stage for the first image, and results of one training step."""
    seen: dict[str, Tensor] = {}
    pooled: list[Tensor] = []

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen.update({f"stage/{name}": output})

    handles = [module.register_forward_hook(keep(name)) for name, module in _stage_modules(net).items()]
    handles.append(net.transition.register_forward_hook(lambda _module, _inputs, output: pooled.append(output)))
    net.eval()
    with torch.no_grad():
        net(images[:1])
        for handle in handles:
            handle.remove()
        seen["logits"] = net(images)
    seen |= {f"stage/trans{index}": output for index, output in enumerate(pooled, start=1)}

    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    loss = F.cross_entropy(net.train()(images), torch.tensor([0, 1, 2, 3, 4, 5, 6, 0]))
    loss.backward()
    gradients = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    nn.utils.clip_grad_value_(net.parameters(), 0.1)
    optimizer.step()
    first = _stage_modules(net)["dense1_1"]
    step = {
        "loss": loss,
        "grad_l2": gradients.norm(),
        "norm0_mean": first.expand_norm.running_mean,
        "norm1_mean": first.reduce_norm.running_mean,
        "classifier_weight_after": net.classifier.weight,
    }
    with torch.no_grad():
        step["logits_after"] = net.eval()(images)
    return seen | {f"sgd_step/plain/{name}": value for name, value in step.items()}


def check(found: dict[str, Tensor], expected: dict[str, list[float]]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        atol = next(tolerance for prefix, tolerance in TOLERANCES.items() if name.startswith(prefix))
        check_sketch(name, tensor.detach().numpy(), expected[name], atol)


def test_stages_logits_and_a_training_step_have_the_stored_figures() -> None:
    """The figures are those of this net, while it equalled the authors' net with the authors' weights."""
    check(computed(*seeded_net()), json.loads(FIGURES.read_text())["projections"])


def test_stages_logits_and_a_training_step_equal_the_authors(shared: Path) -> None:
    folder = shared / "reference/edgecnn"
    path = folder / "FER2013_EdgeCNN_PrivateTest_model.t7"
    net = build_net(import_authors_checkpoint(path, EXPRESSIONS, "fer2013", gray=True))
    assert isinstance(net, EdgeCNN)
    with np.load(folder / "golden_fer2013.npz") as file:
        arrays = {name: file[name] for name in file if "upstream" not in name and "n_clipped" not in name}
    images, precise = torch.from_numpy(arrays.pop("inputs")), arrays.pop("logits_f64")
    with torch.no_grad():
        np.testing.assert_allclose(net.double()(images.double()), precise, rtol=0, atol=1e-9)
    check(computed(net.float(), images), {name: sketch(array) for name, array in arrays.items()})


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
