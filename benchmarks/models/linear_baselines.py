"""Classifiers without prompts on a frozen CLIP, to compare with prompts: a bias per class, and a linear probe.

Both start as the zero-shot classifier and are fitted to the same few images by L-BFGS, without random numbers:

    bias:   logits = s cos(image, text) + b                   b starts at 0
    probe:  logits = s W image + b                            W starts at the text features (classes, embed_dim)

The penalty `ridge` on the distance from the start keeps a fit to one image per class from growing without bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edgekit.models.clip.frozen import FrozenClip
from edgekit.models.clip.prompt_task import normalized
from edgekit.preprocess import FloatArray, ImageU8

Baseline = Literal["bias", "probe"]
# Not tuned: the same for all tasks and numbers of images.
_RIDGE: dict[Baseline, float] = {"bias": 1e-3, "probe": 1e-2}
_STEPS = 200
_BATCH_IMAGES = 160


@dataclass(frozen=True)
class LinearClassifier:
    """Linear classifier of unit features: `weights` (classes, embed_dim), `bias` (classes,)."""

    weights: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> FloatArray:
        """Return logits, float32 (N, classes), of features (N, embed_dim)."""
        values: FloatArray = (features @ self.weights.T + self.bias).numpy().astype(np.float32)
        return values


@torch.no_grad()
def tower_input(clip: FrozenClip, images: ImageU8) -> Tensor:
    """Return the image tower's input of images uint8 (N, size, size, C): normalised (N, 3, size, size).

    If the CLIP has a trunk, these are the trunk's feature maps (N, channels, h, w), which its tower takes as well.
    """
    parts = []
    for start in range(0, len(images), _BATCH_IMAGES):
        pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH_IMAGES]))
        ready = normalized(pixels.permute(0, 3, 1, 2).float().div(255).expand(-1, 3, -1, -1), clip.config)
        parts.append(ready if clip.config.trunk is None else clip.model.visual.conv1.feature_maps(ready))
    return torch.cat(parts)


@torch.no_grad()
def unit_features(clip: FrozenClip, inputs: Tensor) -> Tensor:
    """Return the plain CLIP's image features, unit vectors (N, embed_dim), of inputs from `tower_input`."""
    batches = torch.split(inputs, _BATCH_IMAGES)
    return torch.cat([F.normalize(clip.encode_image(batch).float(), dim=-1) for batch in batches])


def zero_shot(clip: FrozenClip, text_features: Tensor) -> LinearClassifier:
    """Return the zero-shot classifier of class vectors (classes, embed_dim)."""
    return LinearClassifier(clip.logit_scale.detach() * text_features, torch.zeros(len(text_features)))


def fit_baseline(
    kind: Baseline,
    start: LinearClassifier,
    scale: float,
    features: Tensor,
    labels: NDArray[np.int64],
    ridge: float | None = None,
) -> LinearClassifier:
    """Return the classifier fitted to features by cross-entropy.

    Args:
        kind: "bias" fits the bias only, "probe" the weights too.
        start: The zero-shot classifier.
        scale: The CLIP's logit scale; the penalty counts the weights divided by it.
        features: Unit vectors (N, embed_dim).
        labels: int64 (N,).
        ridge: Weight of the penalty; None: the kind's own.
    """
    penalty = _RIDGE[kind] if ridge is None else ridge
    bias = start.bias.clone().requires_grad_()
    shift = torch.zeros_like(start.weights).requires_grad_(kind == "probe")
    truths = torch.from_numpy(labels)
    learned = [bias, shift] if kind == "probe" else [bias]
    optimizer = torch.optim.LBFGS(learned, max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = features @ (start.weights + scale * shift).T + bias
        loss = F.cross_entropy(logits, truths) + penalty * ((bias**2).sum() + (shift**2).sum())
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return LinearClassifier((start.weights + scale * shift).detach(), bias.detach())
