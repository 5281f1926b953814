"""(module) A plain baseline of `teach_flowers.py`: EfficientNet-Lite0 in torch and a linear layer, in thirty lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from edgekit.models.nets.external_nets import efficientnet_lite0, imagenet_weights


def features(files: Sequence[Path], size_px: int) -> Tensor:
    """Return the features (N, 1280) of stretched pictures."""
    net = efficientnet_lite0(1000)
    net.load_state_dict(imagenet_weights())
    net.reset_classifier(0)  # type: ignore[operator]
    rows = []
    for file in files:
        image_rgb = cv2.resize(cv2.imread(str(file)), (size_px, size_px), interpolation=cv2.INTER_AREA)[:, :, ::-1]
        with torch.no_grad():
            rows.append(net.eval()((torch.from_numpy(image_rgb.copy()).permute(2, 0, 1)[None].float() - 127) / 128))
    return torch.cat(rows)


def accuracy(train: Tensor, labels: Tensor, test: Tensor, truths: Tensor) -> float:
    """Return the accuracy of a linear layer on standardised features, L2 1e-2, fitted by L-BFGS."""
    mean, std = train.mean(0), train.std(0) + 1e-6
    layer = nn.Linear(train.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(layer((train - mean) / std), labels) + 5e-3 * layer.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return float(np.mean((layer((test - mean) / std).argmax(1) == truths).numpy()))
