"""Choice of `crop.fit` on held-back pictures: how pictures that are not square become square."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np

from edgekit.contract import Fit
from edgekit.models.callbacks import Notify
from edgekit.models.data import named_split, usual_training_split
from edgekit.models.data.folds import fold_numbers
from edgekit.models.data.originals import spread
from edgekit.models.data.readers import Groups, Labels, Selection, load_dataset
from edgekit.models.model_loading import contract_for
from edgekit.models.nets import efficientnet_lite0
from edgekit.models.pretrained import pretrained_input
from edgekit.models.training.linear_layer import cross_validated, frozen_features

_IMAGE_SIZE_PX = 176
_PICTURES = 300
_FOLDS = 4


def choose_fit(path: Path, contempt: str, train_split: str | None, notify: Notify) -> Fit:
    """Return the fit with the highest accuracy on held-back pictures, and call `notify` with all accuracies.

    A linear layer on the frozen features of EfficientNet-Lite0 is cross-validated on up to 300 training pictures. Of
    accuracies that differ from the highest by at most a standard error, the first of "square", "pad" and "stretch" is
    returned.

    Raises:
        InputError: The data or the weights of EfficientNet-Lite0 cannot be read.
    """
    net = efficientnet_lite0.efficientnet_lite0(2)
    efficientnet_lite0.load_imagenet_weights(net)
    layer = net.get_submodule("classifier")
    accuracies: dict[Fit, float] = {}
    folds, images = None, 0
    for fit in get_args(Fit):

        def choose(labels: Labels, classes: tuple[str, ...], groups: Groups) -> Selection:
            del classes, groups
            name = named_split(labels, train_split) if train_split else usual_training_split(labels)
            if name is None or name not in labels:
                return {}
            return {"train": (name, spread(len(labels[name]), _PICTURES))}

        data = load_dataset(path, _IMAGE_SIZE_PX, contempt=contempt, fit=fit, select=choose)
        if not data.splits:
            return "square"  # the missing split is reported when the images are read
        part = data.splits["train"]
        images = len(part)
        folds = fold_numbers(part, _FOLDS) if folds is None else folds
        if len(np.unique(folds)) < 2:
            return "square"
        contract = contract_for(
            efficientnet_lite0.NAME,
            data.classes,
            data.name,
            data.is_gray,
            fit,
            _IMAGE_SIZE_PX,
            pretrained_input(efficientnet_lite0.NAME),
        )
        features = frozen_features(net, layer, part.images, contract)
        accuracies[fit] = cross_validated(features, part.labels, folds, len(data.classes))
    most = max(accuracies.values())
    share = (most * images + 1) / (images + 2)  # so that all right has an error, too
    error = (2 * share * (1 - share) / images) ** 0.5  # of a difference of two accuracies
    best = next(fit for fit, accuracy in accuracies.items() if accuracy >= most - error)
    shown = ", ".join(f"{fit} {accuracy:.1%}" for fit, accuracy in accuracies.items())
    notify(f"fit {best}: right on held-back pictures with a linear layer on frozen features: {shown}")
    return best
