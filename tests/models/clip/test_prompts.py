"""Trained parameters and knowledge flow of the prompt learner; invalid settings raise a one-line error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from edgekit.errors import InputError
from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.hicropl import PRESETS, PromptConfig, PromptedClip, PromptLearner
from edgekit.models.clip.load import FrozenClip
from tests.clips import random_clip

CLASSES = {"happy": ["A smiling face."], "sad": ["Tears on the cheeks.", "A sad face."], "calm": []}
SMALL = PromptConfig(n_ctx=4, depth=3, cross_layer=2)
IMAGES, LABELS = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 1, 2, 1, 0])


def prompted(
    clip: FrozenClip, config: PromptConfig = SMALL, classes: Mapping[str, Sequence[str]] = CLASSES
) -> PromptedClip:
    torch.manual_seed(0)
    return PromptedClip(clip, config, classes)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, cross_layer=3),
        replace(SMALL, depth=1, cross_layer=1),
        replace(SMALL, n_ctx=6, depth=2, cross_layer=1),
    ],
)
def test_everything_that_is_learned_gets_a_gradient(small_clip: FrozenClip, config: PromptConfig) -> None:
    net = prompted(small_clip, config)
    net.loss(IMAGES, LABELS).total.backward()
    for name, parameter in net.learner.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if name.endswith("prompts"):  # one row per layer
            assert (parameter.grad.flatten(1).norm(dim=1) > 0).all(), name
        else:
            assert parameter.grad.norm() > 0, name


@torch.no_grad()
def moved(net: PromptedClip, name: str, layer: int) -> tuple[list[int], list[int]]:
    """Return the layers whose text and vision prompts change when the learned values of one layer change."""
    learned = getattr(net.learner, name)
    before = net.learner()
    before_text, before_vision = before.text.clone(), before.vision.clone()
    learned[layer] += torch.randn_like(learned[layer])
    after = net.learner()
    text = (after.text - before_text).abs().flatten(1).amax(dim=1) > 1e-6
    vision = (after.vision - before_vision).abs().flatten(1).amax(dim=1) > 1e-6
    return text.nonzero().flatten().tolist(), vision.nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("name", "layer", "text", "vision"),
    [
        ("text_prompts", 0, [0], [0, 1]),
        ("text_prompts", 1, [1], [0, 1]),
        ("text_prompts", 2, [2], []),
        ("vision_prompts", 1, [], [1]),
        ("vision_prompts", 2, [2], [2]),
    ],
)
def test_knowledge_flows_to_the_other_tower_up_to_and_after_the_cross_layer(
    small_clip: FrozenClip, name: str, layer: int, text: list[int], vision: list[int]
) -> None:
    assert moved(prompted(small_clip), name, layer) == (text, vision)


def test_short_contexts_start_from_words(small_clip: FrozenClip) -> None:
    words = small_clip.model.token_embedding(small_clip.tokenize(["a photo of a"]))[0, 1:5]
    assert torch.equal(prompted(small_clip).learner.text_prompts[0], words)
    two = prompted(small_clip, replace(SMALL, n_ctx=2))
    assert torch.equal(two.learner.text_prompts[0], words[:2])
    assert torch.equal(two.class_tokens, small_clip.tokenize([f"a photo of a {name}." for name in CLASSES]))
    long = prompted(small_clip, replace(SMALL, n_ctx=5))
    assert torch.equal(long.class_tokens, small_clip.tokenize([f"X X X X X {name}." for name in CLASSES]))
    noise = prompted(small_clip, replace(SMALL, context_words=""))
    assert noise.learner.text_prompts[0].std() < 0.03


@torch.no_grad()
def test_other_classes_share_the_learner(small_clip: FrozenClip) -> None:
    net = prompted(small_clip).eval()
    other = net.with_classes({"sad": CLASSES["sad"], "sleepy_head": ["Closed eyes."]})
    assert other.learner is net.learner
    assert other.classes == ("sad", "sleepy_head")
    assert torch.equal(other.class_tokens[1:], small_clip.tokenize(["a photo of a sleepy head."]))
    torch.testing.assert_close(other(IMAGES)[:, 0], net(IMAGES)[:, 1], rtol=0, atol=1e-4)


def test_a_class_without_description_gets_the_template(small_clip: FrozenClip) -> None:
    net = prompted(small_clip)
    plain = small_clip.encode_text(small_clip.tokenize(["a photo of a calm."]))[0]
    torch.testing.assert_close(net.frozen_text_features[2], plain / plain.norm())
    assert net.class_descriptions["calm"] == ("a photo of a calm.",)


def test_bfloat16_stays_near(small_clip: FrozenClip) -> None:
    net = prompted(small_clip)
    exact = net.loss(IMAGES, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net.loss(IMAGES, LABELS)
    rounded.total.backward()
    assert rounded.logits.dtype == torch.float32
    assert rounded.total.item() == pytest.approx(exact.total.item(), rel=0.1)
    assert all(parameter.grad is not None for parameter in net.learner.parameters())


def test_the_papers_settings() -> None:
    assert PRESETS["few-shot"] == PromptConfig(16, 12, 6, 12.0)
    assert PRESETS["cross-dataset"] == PromptConfig(2, 6, 5, 12.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_ctx": 0}, "n_ctx 0"),
        ({"depth": 0}, "depth 0"),
        ({"cross_layer": 0}, "cross_layer 0"),
        ({"cross_layer": 4}, "cross_layer 4"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SMALL, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 4}, "depth is 4, but the CLIP's image tower has 3 layers"),
        ({"n_ctx": 75}, "n_ctx is 75, but the CLIP's context has room for 74"),
        ({"n_ctx": 74}, "77"),
        ({"context_words": "a photo"}, "'a photo' are 2 tokens, n_ctx is 4"),
    ],
)
def test_prompts_that_do_not_fit_the_towers_are_refused(
    small_clip: FrozenClip, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prompted(small_clip, replace(SMALL, **changes))


def test_a_width_the_mappers_cannot_divide_is_refused(small_config: ClipConfig) -> None:
    odd = replace(small_config, text=Tower(60, 3, 1))
    with pytest.raises(InputError, match="text tower has width 60: mappers need a multiple of 8"):
        PromptLearner(SMALL, odd)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, "no class is given"),
        ({"long": ["word " * 80]}, "description of class 'long': text 'word .*82 tokens long"),
        ({"word " * 80: ["short"]}, "87 tokens long"),
    ],
)
def test_classes_that_do_not_fit_are_refused(
    small_clip: FrozenClip, classes: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prompted(small_clip, classes=classes)


def test_a_text_tower_of_fewer_layers_limits_the_depth(small_config: ClipConfig) -> None:
    shallow = random_clip(replace(small_config, text=Tower(64, 2, 1)))
    with pytest.raises(InputError, match="text tower has 2 layers"):
        prompted(shallow)
