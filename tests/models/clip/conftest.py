"""Fixtures: a small CLIP, and a toy CLIP with prompts and the figures of the authors' code for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgekit.models.clip.architecture import ClipConfig, Tower, config_from_weights
from edgekit.models.clip.hicropl import PromptConfig, PromptedClip
from edgekit.models.clip.load import FrozenClip, seeded_model
from edgekit.models.model_loading import load_weights
from tests.clips import random_clip
from tests.models.clip import reference
from tests.sketch import check_sketch

FIGURES = Path(__file__).parents[2] / "fixtures/golden/hicropl-tiny.json"

_RENAMED = {
    "text2visual_net.": "text_to_vision.",
    "visual2text_net.": "vision_to_text.",
    "attn_pooling_text_nets.": "text_proxies.",
    "attn_pooling_visual_nets.": "vision_proxies.",
}
_SIDES = {"text": "text", "visual": "vision"}


@pytest.fixture(scope="session")
def small_config() -> ClipConfig:
    return ClipConfig(image_size_px=32, patch_size_px=16, vision=Tower(128, 3, 2), text=Tower(64, 3, 1), embed_dim=24)


@pytest.fixture(scope="session")
def small_clip(small_config: ClipConfig) -> FrozenClip:
    return random_clip(small_config, seed=1)


@dataclass
class Golden:
    clip: FrozenClip
    prompt_state: dict[str, Tensor]
    images: Tensor
    figures: dict[str, Any]
    labels: Tensor = field(default_factory=lambda: torch.tensor(reference.LABELS))

    def prompted(self) -> PromptedClip:
        """Return a prompted CLIP with the fixture's state."""
        config = PromptConfig(reference.N_CTX, reference.DEPTH, reference.CROSS_LAYER)
        descriptions = {name: list(lines) for name, lines in reference.DESCRIPTIONS.items()}
        net = PromptedClip(self.clip, config, descriptions)
        load_weights(net.learner, self.prompt_state, "the fixture")
        return net

    def check(self, name: str, actual: Tensor, atol: float) -> None:
        check_sketch(name, actual.detach().numpy(), self.figures["projections"][name], atol)

    @staticmethod
    def gradients(net: PromptedClip) -> dict[str, Tensor | None]:
        """Return the gradients under the fixture's names, with one entry for each layer of a stack of prompts."""
        found: dict[str, Tensor | None] = {}
        for name, parameter in net.learner.named_parameters():
            theirs = _fixture_name(name)
            if theirs.endswith("."):
                assert parameter.grad is not None
                found |= {f"{theirs}{index}": grad for index, grad in enumerate(parameter.grad)}
            else:
                found[theirs] = parameter.grad
        found["ctx"] = found.pop("cross_prompts_text.0")
        return found


@pytest.fixture(scope="session")
def golden() -> Golden:
    return _load_golden("tiny", json.loads(FIGURES.read_text()))


@pytest.fixture
def full_golden(shared: Path) -> Golden:
    return _load_golden("full", reference.figures_of(shared / "reference/hicropl/full"))


def _load_golden(size: str, figures: dict[str, Any]) -> Golden:
    sizes = reference.SIZES[size]
    state = {name: torch.from_numpy(value) for name, value in reference.clip_state(sizes).items()}
    config = config_from_weights(state, "quick-gelu")
    model = seeded_model(config, 0)
    load_weights(model, state, "the fixture")
    prompts = {name: torch.from_numpy(value) for name, value in reference.prompt_state(sizes).items()}
    images = torch.from_numpy(reference.images(sizes))
    return Golden(FrozenClip(model, config, "fixture"), _learner_state(prompts), images, figures)


def _learner_state(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the fixture's tensors under this package's names."""
    state = {}
    for name, tensor in theirs.items():
        for old, new in _RENAMED.items():
            if name.startswith(old):
                state[new + name.removeprefix(old)] = tensor
    for side, own in _SIDES.items():
        state[f"{own}_prompts"] = torch.stack(
            [tensor for name, tensor in theirs.items() if name.startswith(f"cross_prompts_{side}.")]
        )
        for name, tensor in theirs.items():
            if name.startswith(f"{side}_proxy_token."):
                state[f"{own}_proxies.{name.rpartition('.')[2]}.query"] = tensor
    return state


def _fixture_name(name: str) -> str:
    """Return the fixture's name of a parameter; for a stack of prompts, the name without the layer number."""
    for side, own in _SIDES.items():
        if name == f"{own}_prompts":
            return f"cross_prompts_{side}."
        if name.startswith(f"{own}_proxies.") and name.endswith(".query"):
            return f"{side}_proxy_token.{name.split('.')[1]}"
    old, new = next((old, new) for old, new in _RENAMED.items() if name.startswith(new))
    return old + name.removeprefix(new)
