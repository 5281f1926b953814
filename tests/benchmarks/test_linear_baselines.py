"""Bias per class and linear probe on a frozen CLIP."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.classifier import zero_shot_classifier
from edgekit.models.clip.load import random_clip
from edgekit.models.clip.mini import CLIP_MINI, hybrid_config
from edgekit.models.clip.prompted import frozen_classifier
from edgekit.models.data import EXPRESSIONS, ImageSet
from edgekit.models.evaluation.evaluate import evaluate

SCALE = 20.0


@pytest.fixture
def baselines(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("linear_baselines")


def start_and_features(baselines: ModuleType, count: int) -> tuple[Any, Tensor]:
    generator = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(3, 8, generator=generator), dim=1)
    return baselines.LinearClassifier(SCALE * text, torch.zeros(3)), F.normalize(
        torch.randn(count, 8, generator=generator), dim=1
    )


def test_a_bias_learns_other_frequencies_and_leaves_the_weights(baselines: ModuleType) -> None:
    start, features = start_and_features(baselines, 300)
    shifted = start.logits(features) + np.array([0, 2, -1], np.float32)
    labels = shifted.argmax(axis=1)
    fitted = baselines.fit_baseline("bias", start, SCALE, features, labels)
    assert torch.equal(fitted.weights, start.weights)
    before, after = ((one.logits(features).argmax(axis=1) == labels).mean() for one in (start, fitted))
    assert after > 0.97 > before
    assert float(fitted.bias[1] - fitted.bias[2]) == pytest.approx(3, abs=1)


def test_a_probe_learns_what_a_bias_cannot(baselines: ModuleType) -> None:
    start, features = start_and_features(baselines, 120)
    labels = (start.logits(features).argmax(axis=1) + 1) % 3  # another assignment of the classes
    accuracy = {
        kind: (
            baselines.fit_baseline(kind, start, SCALE, features, labels, 1e-5).logits(features).argmax(axis=1) == labels
        ).mean()
        for kind in ("bias", "probe")
    }
    assert accuracy["probe"] > 0.95
    assert accuracy["bias"] < 0.7


def test_a_large_penalty_keeps_the_zero_shot_classifier(baselines: ModuleType) -> None:
    start, features = start_and_features(baselines, 30)
    fitted = baselines.fit_baseline("probe", start, SCALE, features, np.zeros(30, np.int64), 1e6)
    torch.testing.assert_close(fitted.weights, start.weights, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("config", [CLIP_MINI, hybrid_config("edgecnn", 1)], ids=["plain", "trunk"])
def test_zero_shot_is_the_classifier_of_the_descriptions(baselines: ModuleType, config: ClipConfig) -> None:
    clip = random_clip(config)
    pixels = np.random.default_rng(0).integers(0, 255, (5, 48, 48, 1), dtype=np.uint8)
    images = ImageSet(pixels, np.arange(5))
    described = {name: [f"a {name} face"] for name in EXPRESSIONS}
    features = baselines.unit_features(clip, baselines.tower_input(clip, images.images))
    logits = baselines.zero_shot(clip, frozen_classifier(clip, described)).logits(features)
    expected = evaluate(zero_shot_classifier(clip, described, "bars"), images, "center-crop").logits
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
