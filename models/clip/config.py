"""The values of prompt learning, and the paper's two settings of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edgekit.errors import InputError
from edgekit.models.clip.architecture import ClipConfig

Flow = Literal["hicropl", "one-way", "independent"]
ConsistencyOn = Literal["ensembled", "prompted"]
Proxy = Literal["attention", "mean"]
MapperKind = Literal["attention", "linear"]

# Of every attention between prompts; both towers' widths must be a multiple of it.
HEADS = 8
# Longer contexts start from noise: words would no longer fill them.
MAX_WORDS_N_CTX = 4


@dataclass(frozen=True)
class PromptConfig:
    """Values of HiCroPL (arXiv 2507.14976); the defaults are its few-shot and base-to-novel setting.

    Attributes:
        n_ctx: Prompt tokens a layer, in each tower.
        depth: Layers with prompts, D, counted from the input.
        cross_layer: k: up to this layer knowledge flows from text to vision, after it from vision to text.
        consistency_weight: λ, the weight of staying close to the frozen features.
        context_words: What the first layer's text prompts start from if n_ctx is at most 4; words beyond n_ctx stay
            in front of the class name, unlearned.
        flow: "hicropl"; "one-way": text to vision in all prompted layers, as MaPLe has it (`cross_layer` is not used);
            "independent": no flow, each tower learns its own prompts (`cross_layer` is not used).
        ensemble: Whether the features are the mean of prompted and frozen ones.
        consistency_on: Which features are kept close to the frozen ones: those of the ensemble, as in the authors'
            code, or the prompted ones alone.
        upstream_compat: Do as the authors' released code does: mapped prompts overwrite the learned ones at every
            pass, evaluation included, so that mappers and proxies receive no gradient, and layers start equal.
        proxy: What condenses a layer's prompts into one token: the method's attention, or their mean, to measure what
            it brings.
        mapper: How prompts take from the proxies: the method's attention over all layers of the group, or one linear
            map of the own layer's proxy, added to one of the prompts.
    """

    n_ctx: int = 16
    depth: int = 12
    cross_layer: int = 6
    consistency_weight: float = 12.0
    context_words: str = "a photo of a"
    flow: Flow = "hicropl"
    ensemble: bool = True
    consistency_on: ConsistencyOn = "ensembled"
    upstream_compat: bool = False
    proxy: Proxy = "attention"
    mapper: MapperKind = "attention"

    def __post_init__(self) -> None:
        if self.n_ctx < 1:
            raise InputError(f"n_ctx is {self.n_ctx}: expected at least 1 prompt token")
        if self.depth < 1:
            raise InputError(f"depth is {self.depth}: expected at least 1 prompted layer")
        if self.flow == "hicropl" and not 1 <= self.cross_layer <= self.depth:
            raise InputError(f"cross_layer is {self.cross_layer}: expected 1 to depth, {self.depth}")
        if not (math.isfinite(self.consistency_weight) and self.consistency_weight >= 0):
            raise InputError(f"consistency_weight is {self.consistency_weight}: expected a number of at least 0")
        if not self.ensemble and self.consistency_on == "ensembled":
            raise InputError("consistency_on is 'ensembled' without an ensemble: set it to 'prompted'")
        if self.upstream_compat and self.flow != "hicropl":
            raise InputError(f"upstream_compat with flow '{self.flow}': the released code knows only 'hicropl'")

    @property
    def text_to_vision_layers(self) -> int:
        """How many layers, from the first on, take knowledge from text to vision."""
        return {"hicropl": self.cross_layer, "one-way": self.depth, "independent": 0}[self.flow]

    @property
    def vision_to_text_layers(self) -> int:
        """How many layers, the last prompted ones, take knowledge from vision to text."""
        return self.depth - self.cross_layer if self.flow == "hicropl" else 0


PRESETS: Mapping[str, PromptConfig] = {
    "few-shot": PromptConfig(),
    "base-to-novel": PromptConfig(),
    "cross-dataset": PromptConfig(n_ctx=2, depth=6, cross_layer=5),
}


def shortened(config: PromptConfig, clip: ClipConfig) -> PromptConfig:
    """Return `config` with depth and cross_layer scaled down to the layers of a smaller CLIP, if it has fewer."""
    return at_depth(config, min(config.depth, clip.vision.layers, clip.text.layers))


def at_depth(config: PromptConfig, depth: int) -> PromptConfig:
    """Return `config` with another depth and cross_layer scaled along.

    Raises:
        InputError: The depth is less than 1.
    """
    cross_layer = min(max(round(config.cross_layer * depth / config.depth), 1), depth)
    return replace(config, depth=depth, cross_layer=cross_layer)


def require_fit(config: PromptConfig, clip: ClipConfig) -> None:
    """Check that a CLIP can carry the prompts.

    Raises:
        InputError: It has too few layers, too short a context, or a width the mappers cannot divide.
    """
    for name, tower in (("image", clip.vision), ("text", clip.text)):
        if config.depth > tower.layers:
            raise InputError(f"depth is {config.depth}, but the CLIP's {name} tower has {tower.layers} layers")
        if tower.width % HEADS and config.flow != "independent":
            raise InputError(f"the CLIP's {name} tower is {tower.width} wide: mappers need a multiple of {HEADS}")
    # Start, end and one token of a class name.
    room = clip.context_length - 3
    if config.n_ctx > room:
        raise InputError(f"n_ctx is {config.n_ctx}, but the CLIP's context has room for {room}")
