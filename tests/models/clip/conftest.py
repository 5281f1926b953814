"""Fixtures: a small CLIP, and a toy CLIP with prompts and expected outputs from shared/reference/hicropl."""

from __future__ import annotations

import json
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekit.models.clip.architecture import ClipConfig, Tower, config_from_weights
from edgekit.models.clip.config import PromptConfig
from edgekit.models.clip.frozen import FrozenClip
from edgekit.models.clip.load import random_clip, seeded_model
from edgekit.models.clip.prompted import PromptedClip
from edgekit.models.model_loading import load_weights

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
    descriptions: dict[str, list[str]]
    arrays: dict[str, Any]
    facts: dict[str, Any]

    def prompted(self, **changes: Any) -> PromptedClip:
        """Return a prompted CLIP with the fixture's state."""
        sizes = self.facts["config"]
        config = PromptConfig(sizes["n_ctx"], sizes["depth"], sizes["cross"], **changes)
        net = PromptedClip(self.clip, config, self.descriptions)
        load_weights(net.learner, self.prompt_state, "the fixture")
        return net

    def array(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

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
def golden(shared: Path) -> Golden:
    return _load_golden(shared, "tiny")


@pytest.fixture
def full_golden(shared: Path) -> Golden:
    return _load_golden(shared, "full")


def _load_golden(shared: Path, size: str) -> Golden:
    folder = shared / "reference/hicropl"
    fixture = runpy.run_path(str(folder / "fixture.py"))
    sizes = fixture["CONFIGS"][size]
    state = {name: torch.from_numpy(np.asarray(value)) for name, value in fixture["clip_state"](sizes).items()}
    config = config_from_weights(state, "quick-gelu")
    model = seeded_model(config, 0)
    load_weights(model, state, "the fixture")
    with np.load(folder / size / "golden.npz") as file:
        arrays = dict(file)
    facts = json.loads((folder / size / "golden.json").read_text())
    prompts = {name: torch.from_numpy(value) for name, value in fixture["prompt_state"](sizes).items()}
    clip = FrozenClip(model, config, "fixture")
    return Golden(clip, _learner_state(prompts), fixture["DESCRIPTIONS"], arrays, facts)


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
