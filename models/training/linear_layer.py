"""Linear layers on the frozen features of a pretrained net.

Before all layers of a pretrained net are trained, its last layer is fitted in this way. `choose_fit` compares the
accuracy of such layers on held-back pictures, to choose how pictures that are not square become square (`crop.fit`).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.contract import Contract, CropSpec, Fit
from edgekit.models.callbacks import Notify, ignore_message, of_stage
from edgekit.models.data import ImageSet, spread
from edgekit.models.data.readers import load_some
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.external_nets import EFFICIENTNET_LITE0, efficientnet_lite0
from edgekit.models.nets.registry import class_dimensions, create_model
from edgekit.models.training.init_weights import PRETRAINED, InitialWeights, pretrained_input, pretrained_state
from edgekit.preprocess import ImageU8, center_crop, to_tensor

# Regularisation of the weights, for standardised features: a layer that fits all images leaves the layers before it
# nothing to learn but noise.
_L2 = 1.0
# Smallest standard deviation of a feature, as a share of the mean over all features.
_LEAST_STD = 0.1
_STEPS = 200
_BATCH_IMAGES = 64
# More images cost time and change the start little.
_MOST_IMAGES = 10_000
_IMAGE_SIZE_PX = 176
_PICTURES = 300
_FOLDS = 4


def with_fitted_layer(initial: InitialWeights, contract: Contract, training: ImageSet) -> InitialWeights:
    """Return initial weights with a last layer for the contract's classes, fitted on the training images.

    A net whose last layer is not linear keeps its random one.
    """
    net = create_model(contract.architecture, len(contract.labels))
    net.load_state_dict(initial.merged_into(net.state_dict()))
    tensor_name = next(iter(class_dimensions(contract.architecture)))  # such as "classifier.weight"
    last_layer = tensor_name.rpartition(".")[0]
    layer = net.get_submodule(last_layer)
    if not isinstance(layer, nn.Linear):
        return initial
    part = training.subset(spread(len(training), _MOST_IMAGES))
    features = frozen_features(net, layer, part.images, contract)
    weight, bias = fit_linear(features, torch.from_numpy(part.labels), len(contract.labels))
    fitted = {f"{last_layer}.weight": weight, f"{last_layer}.bias": bias}
    return replace(initial, state={**initial.state, **fitted}, rows={})  # the fitted layer has a row for each class


@torch.no_grad()
def frozen_features(net: nn.Module, layer: nn.Module, images: ImageU8, contract: Contract) -> Tensor:
    """Return the inputs of the last layer `layer` for the centre crops of images: float32 (N, features)."""
    batches: list[Tensor] = []  # filled by the hook while the net runs
    hook = layer.register_forward_pre_hook(lambda _layer, inputs: batches.append(inputs[0].float()))
    net = net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        for start in range(0, len(images), _BATCH_IMAGES):
            crops = center_crop(images[start : start + _BATCH_IMAGES], contract.input.size_hw)
            net(torch.from_numpy(to_tensor(crops, contract.input)).contiguous(memory_format=torch.channels_last))
    finally:
        hook.remove()
    return torch.cat(batches)


def fit_linear(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return weight (classes, features) and bias (classes,) of a multinomial logistic regression, L2-regularised.

    Args:
        features: float32 (N, features).
        labels: int64 (N,).
        classes: Number of classes.
    """
    mean, std = features.mean(dim=0), features.std(dim=0)
    # Features with nearly the same value in all images, as of drawings, would get so large weights that the training
    # diverges.
    std = std.clamp(min=_LEAST_STD * std.mean().item() + 1e-6)
    standardised = (features - mean) / std
    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        """Return the regularised cross-entropy, and compute its gradients."""
        optimizer.zero_grad()
        result = F.cross_entropy(standardised @ weight.T + bias, labels) + _L2 / 2 * weight.square().sum()
        result.backward()  # type: ignore[no-untyped-call]
        return result

    # One call makes up to `_STEPS` iterations.
    optimizer.step(loss)  # type: ignore[no-untyped-call]
    scaled = weight.detach() / std  # for features that are not standardised
    return scaled, bias.detach() - scaled @ mean


def choose_fit(path: Path, contempt: str, train_split: str | None, notify: Notify) -> Fit:
    """Return the fit with the highest accuracy on held-back pictures, and call `notify` with all accuracies.

    A linear layer on the frozen features of EfficientNet-Lite0 is cross-validated on up to 300 training pictures. Of
    accuracies that differ from the highest by at most a standard error, the first of "square", "pad" and "stretch" is
    returned.

    Raises:
        InputError: The data or the weights of EfficientNet-Lite0 cannot be read.
    """
    net = efficientnet_lite0(num_classes=2)  # any number: its last layer is not used
    net.load_state_dict(pretrained_state(EFFICIENTNET_LITE0, PRETRAINED), strict=False)  # without the last layer
    layer = net.get_submodule("classifier")
    accuracies: dict[Fit, float] = {}
    split = train_split or "Training"  # "Training" also means "train" and other usual names
    size_hw = (_IMAGE_SIZE_PX, _IMAGE_SIZE_PX)
    folds = np.zeros(0, np.int64)  # set by the first fit: all fits have the same images, although the pixels differ
    for fit in get_args(Fit):
        # Whole squares: `frozen_features` takes the centre crop.
        crop = CropSpec(margin=0.0, grayscale=False, resize_hw=size_hw, center_crop_hw=size_hw, fit=fit)
        # Without messages and progress, because the training reads the data again and then reports.
        data, part = load_some(
            path, split, _PICTURES, crop, contempt=contempt, notify=ignore_message, progress=of_stage(None, "")
        )
        if len(folds) == 0:
            folds = _fold_numbers(part)
            if len(np.unique(folds)) < 2:  # too few groups to validate with
                return "square"
        values = pretrained_input(EFFICIENTNET_LITE0)
        contract = contract_for(EFFICIENTNET_LITE0, data.classes, data.name, data.is_gray, fit, _IMAGE_SIZE_PX, values)
        features = frozen_features(net, layer, part.images, contract)
        accuracies[fit] = _cross_validated(features, part.labels, folds, len(data.classes))
    best = _first_of_best(accuracies, images=len(folds))
    shown = ", ".join(f"{fit} {accuracy:.1%}" for fit, accuracy in accuracies.items())
    notify(f"fit {best}: right on held-back pictures with a linear layer on frozen features: {shown}")
    return best


def _first_of_best(accuracies: dict[Fit, float], images: int) -> Fit:
    """Return the first fit whose accuracy on `images` images is at most a standard error below the highest one."""
    highest = max(accuracies.values())
    # As if two more images had been classified, one of them correctly: 100 % gets a standard error above 0.
    share = (highest * images + 1) / (images + 2)
    standard_error = (2 * share * (1 - share) / images) ** 0.5  # of the difference of two accuracies
    return next(fit for fit, accuracy in accuracies.items() if accuracy >= highest - standard_error)


def _fold_numbers(part: ImageSet) -> NDArray[np.int64]:
    """Return the fold of each image, int64 (N,): equal images, or those of a group, are in one fold."""
    groups = part.groups
    keys = [image.tobytes() for image in part.images] if groups is None else [name.encode() for name in groups]
    return np.array([hashlib.sha256(key).digest()[0] % _FOLDS for key in keys], np.int64)


def _cross_validated(features: Tensor, labels: NDArray[np.int64], folds: NDArray[np.int64], classes: int) -> float:
    """Return the share of images, 0..1, that a linear layer fitted without their fold classifies correctly."""
    correct, truths = 0, torch.from_numpy(labels)
    for fold in np.unique(folds):
        is_held_out = torch.from_numpy(folds == fold)
        weight, bias = fit_linear(features[~is_held_out], truths[~is_held_out], classes)
        predicted = (features[is_held_out] @ weight.T + bias).argmax(dim=1)
        correct += int((predicted == truths[is_held_out]).sum())
    return correct / len(labels)
