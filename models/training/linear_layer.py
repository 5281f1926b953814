"""The last layer of a pretrained net, fitted on the frozen features of the training images before all layers learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.contract import Contract
from edgekit.models.data import ImageSet
from edgekit.models.data.originals import spread
from edgekit.models.nets.registry import class_dimensions, create_model
from edgekit.models.training.init_weights import InitialWeights
from edgekit.preprocess import ImageU8, center_crop, to_tensor

# Regularisation of the weights, for standardised features; the accuracy differs little from 0.003 to 0.3.
_L2 = 0.01
# Of the start of a training: a layer that fits all images leaves the layers before it nothing to learn but noise.
_L2_OF_START = 1.0
_STEPS = 200
_BATCH_IMAGES = 64
# More images cost time and change the start little.
_MOST_IMAGES = 10_000


def with_fitted_layer(initial: InitialWeights, contract: Contract, training: ImageSet) -> InitialWeights:
    """Return initial weights with a last layer for the contract's classes, fitted on the training images.

    A net whose last layer is not linear keeps its random one.
    """
    net = create_model(contract.architecture, len(contract.labels))
    net.load_state_dict(initial.merged_into(net.state_dict()))
    names = list(class_dimensions(contract.architecture))
    layer = net.get_submodule(names[0].rpartition(".")[0])
    if not isinstance(layer, nn.Linear):
        return initial
    part = training.subset(spread(len(training), _MOST_IMAGES))
    features = frozen_features(net, layer, part.images, contract)
    weight, bias = fit_linear(features, torch.from_numpy(part.labels), len(contract.labels), _L2_OF_START)
    prefix = names[0].rpartition(".")[0]
    return replace(initial, state={**initial.state, f"{prefix}.weight": weight, f"{prefix}.bias": bias})


@torch.no_grad()
def frozen_features(net: nn.Module, layer: nn.Module, images: ImageU8, contract: Contract) -> Tensor:
    """Return the inputs of the last layer `layer` for the centre crops of images: float32 (N, features)."""
    found: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _layer, inputs: found.append(inputs[0].float()))
    net = net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        for start in range(0, len(images), _BATCH_IMAGES):
            crops = center_crop(images[start : start + _BATCH_IMAGES], contract.input.size_hw)
            net(torch.from_numpy(to_tensor(crops, contract.input)).contiguous(memory_format=torch.channels_last))
    finally:
        hook.remove()
    return torch.cat(found)


def fit_linear(features: Tensor, labels: Tensor, classes: int, strength: float = _L2) -> tuple[Tensor, Tensor]:
    """Return weight (classes, features) and bias (classes,) of a multinomial logistic regression, L2-regularised."""
    mean, std = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    standardised = (features - mean) / std
    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        result = F.cross_entropy(standardised @ weight.T + bias, labels) + strength / 2 * weight.square().sum()
        result.backward()  # type: ignore[no-untyped-call]
        return result

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    scaled = weight.detach() / std
    return scaled, bias.detach() - scaled @ mean


def cross_validated(features: Tensor, labels: NDArray[np.int64], folds: NDArray[np.int64], classes: int) -> float:
    """Return the share of images, 0..1, that a linear layer fitted without their fold classifies correctly."""
    correct = 0
    for fold in np.unique(folds):
        out = torch.from_numpy(folds == fold)
        weight, bias = fit_linear(features[~out], torch.from_numpy(labels)[~out], classes)
        correct += int(((features[out] @ weight.T + bias).argmax(dim=1).numpy() == labels[out.numpy()]).sum())
    return correct / len(labels)
