"""edgekit's forward passes through the towers equal those of open_clip; inserted prompts have an effect."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.options import Activation
from edgekit.models.clip.prompt_insertion import encode_image, encode_text
from tests.clips import random_clip

CONFIG = ClipConfig(32, 8, Tower(128, 3, 2), Tower(64, 3, 1), 32, context_length=20)


@pytest.mark.parametrize("activation", ["gelu", "quick-gelu"])
def test_without_prompts_features_are_open_clips(activation: Activation) -> None:
    clip = random_clip(replace(CONFIG, activation=activation), 1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, 32, 32, generator=generator)
    tokens = clip.tokenize(["a face", "a very long description of a face", "x"])
    with torch.no_grad():
        torch.testing.assert_close(encode_image(clip.model.visual, images), clip.model.encode_image(images))
        torch.testing.assert_close(encode_text(clip.model, tokens), clip.model.encode_text(tokens))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_prompts_of_the_last_layer_are_read_too(depth: int) -> None:
    clip = random_clip(CONFIG, 1)
    images, prompts = torch.randn(1, 3, 32, 32), torch.randn(depth, 2, 128)
    changed = prompts.clone()
    changed[-1] = torch.randn(2, 128)  # the normalisation would remove a constant
    with torch.no_grad():
        features = [encode_image(clip.model.visual, images, each) for each in (prompts, changed)]
    assert (features[0] - features[1]).abs().max() > 1e-3
