"""Hyper-parameters of HiCroPL (arXiv 2507.14976), and the two sets of values that the paper uses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgekit.errors import InputError
from edgekit.models.clip.architecture import ClipConfig

# Heads of every attention in proxies and mappers; the widths of both towers must be multiples of it.
HEADS = 8
# Contexts with more tokens are initialised with noise, because the context words do not fill them.
MAX_WORDS_N_CTX = 4


@dataclass(frozen=True)
class PromptConfig:
    """Hyper-parameters of HiCroPL; the defaults are the paper's for few-shot and base-to-novel.

    Attributes:
        n_ctx: n, prompt tokens per layer, in each tower.
        depth: D, number of layers with prompts, counted from the input.
        cross_layer: k: knowledge flows from text to vision in layers 1 to k, from vision to text in layers k + 1 to D.
        consistency_weight: λ, weight of the distance between trained and frozen features.
        context_words: Initial text prompts of the first layer if n is at most 4; words beyond n stay in front of the
            class name and are not trained. No training option sets this field.
    """

    n_ctx: int = 16
    depth: int = 12
    cross_layer: int = 6
    consistency_weight: float = 12.0
    context_words: str = "a photo of a"

    def __post_init__(self) -> None:
        if self.n_ctx < 1:
            raise InputError(f"n_ctx is {self.n_ctx}: expected at least 1 prompt token")
        if self.depth < 1:
            raise InputError(f"depth is {self.depth}: expected at least 1 layer with prompts")
        if not 1 <= self.cross_layer <= self.depth:
            raise InputError(f"cross_layer is {self.cross_layer}: expected 1 to depth, {self.depth}")
        if not (math.isfinite(self.consistency_weight) and self.consistency_weight >= 0):
            raise InputError(f"consistency_weight is {self.consistency_weight}: expected a finite number of at least 0")


PRESETS: Mapping[str, PromptConfig] = {
    "few-shot": PromptConfig(),
    "cross-dataset": PromptConfig(n_ctx=2, depth=6, cross_layer=5),
}


def shortened(config: PromptConfig, clip: ClipConfig) -> PromptConfig:
    """Return `config`; if the CLIP has fewer layers than its depth, depth and cross_layer are scaled down to them."""
    return at_depth(config, min(config.depth, clip.vision.layers, clip.text.layers))


def at_depth(config: PromptConfig, depth: int) -> PromptConfig:
    """Return `config` with another depth, and with `cross_layer` scaled in proportion to the depth.

    Raises:
        InputError: The depth is less than 1.
    """
    cross_layer = min(max(round(config.cross_layer * depth / config.depth), 1), depth)
    return replace(config, depth=depth, cross_layer=cross_layer)


def require_fit(config: PromptConfig, clip: ClipConfig) -> None:
    """Check that prompts of this configuration can be inserted into a CLIP.

    Raises:
        InputError: The CLIP has too few layers, too short a context, or a width that is not a multiple of the number of
            attention heads.
    """
    for name, tower in (("image", clip.vision), ("text", clip.text)):
        if config.depth > tower.layers:
            raise InputError(f"depth is {config.depth}, but the CLIP's {name} tower has {tower.layers} layers")
        if tower.width % HEADS:
            raise InputError(f"the CLIP's {name} tower has width {tower.width}: mappers need a multiple of {HEADS}")
    # The context also contains the start token, the end token and at least one token of a class name.
    room = clip.context_length - 3
    if config.n_ctx > room:
        raise InputError(f"n_ctx is {config.n_ctx}, but the CLIP's context has room for {room}")
