"""The prompt learner: text and vision prompts of every layer, and how knowledge flows between them (arXiv 2507.14976).

In the first k layers text prompts teach vision prompts, after them vision prompts teach text prompts. A proxy condenses
a layer's prompts of the teaching side into one token; a mapper lets the prompts of the other side attend to the proxies
of all layers of the group.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.config import HEADS, PromptConfig, require_fit

_PROMPT_STD = 0.02


@dataclass(frozen=True)
class Prompts:
    """What the towers are given: text (depth, n_ctx, text width), vision (depth, n_ctx, vision width)."""

    text: Tensor
    vision: Tensor


class PromptLearner(nn.Module):
    """All that is trained."""

    def __init__(self, config: PromptConfig, clip: ClipConfig, context: Tensor | None = None) -> None:
        """Draw initial values from torch's global generator.

        Args:
            config: Values of the method.
            clip: The towers the prompts are for.
            context: Embedded words (n_ctx, text width) for the first layer's text prompts; default: noise.

        Raises:
            InputError: The towers cannot carry the prompts.
        """
        super().__init__()
        require_fit(config, clip)
        self.config = config
        depth, n_ctx = config.depth, config.n_ctx
        text_width, vision_width = clip.text.width, clip.vision.width
        self.text_prompts = nn.Parameter(torch.randn(depth, n_ctx, text_width) * _PROMPT_STD)
        self.vision_prompts = nn.Parameter(torch.randn(depth, n_ctx, vision_width) * _PROMPT_STD)
        if context is not None:
            with torch.no_grad():
                self.text_prompts[0] = context
        down, up = config.text_to_vision_layers, config.vision_to_text_layers
        equal = config.upstream_compat
        proxy = {"attention": KnowledgeProxy, "mean": MeanProxy}[config.proxy]
        mapper = {"attention": Mapper, "linear": LinearMapper}[config.mapper]
        self.text_proxies = _layers(down, lambda: proxy(text_width), equal)
        self.vision_proxies = _layers(up, lambda: proxy(vision_width), equal)
        self.text_to_vision = mapper(vision_width, text_width) if down else None
        self.vision_to_text = mapper(text_width, vision_width) if up else None
        if equal:
            with torch.no_grad():
                self.vision_prompts.copy_(self.vision_prompts[:1].clone().expand_as(self.vision_prompts))

    def forward(self) -> Prompts:
        """Return the prompts of all layers, mapped ones in the graph."""
        if not self.config.upstream_compat:
            return self._mapped()
        # The released code copies the mapped values into the parameters, outside the graph, at every pass.
        with torch.no_grad():
            mapped = self._mapped()
            self.text_prompts.copy_(mapped.text)
            self.vision_prompts.copy_(mapped.vision)
        return Prompts(self.text_prompts, self.vision_prompts)

    def _mapped(self) -> Prompts:
        text: Tensor = self.text_prompts
        vision: Tensor = self.vision_prompts
        k = self.config.text_to_vision_layers
        if self.text_to_vision is not None:
            mapped = self.text_to_vision(vision[:k], _condensed(self.text_proxies, text[:k]))
            vision = torch.cat([mapped, vision[k:]])
        if self.vision_to_text is not None:
            mapped = self.vision_to_text(text[k:], _condensed(self.vision_proxies, self.vision_prompts[k:]))
            text = torch.cat([text[:k], mapped])
        return Prompts(text, vision)


class KnowledgeProxy(nn.Module):
    """One layer's prompts in one token: LN₂(q + MHA(LN₁ q, LN₁ X, LN₁ X)), q learned."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, width))
        self.attn = nn.MultiheadAttention(width, HEADS)
        self.ln_1 = nn.LayerNorm(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, prompts: Tensor) -> Tensor:
        """Return (1, width) of prompts (n_ctx, width)."""
        keys = self.ln_1(prompts)
        attended, _ = self.attn(self.ln_1(self.query), keys, keys, need_weights=False)
        proxy: Tensor = self.ln_2(self.query + attended)
        return proxy


class Mapper(nn.Module):
    """Prompts of one side attend to the proxies of the other, all layers of a group at once.

    q = W_q Q, h = q + MHA(LN₁ q, LN₁ W_k P, LN₁ W_v P), out = h + FFN(LN₂ h). The residual starts at W_q Q, and one
    LN₁ serves all three.
    """

    def __init__(self, width: int, proxy_width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, HEADS)
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(proxy_width, width)
        self.linear_v = nn.Linear(proxy_width, width)
        self.ln_1 = nn.LayerNorm(width)
        self.ffn = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, prompts: Tensor, proxies: Tensor) -> Tensor:
        """Return mapped prompts (layers, n_ctx, width), given proxies (layers, proxy width)."""
        q = self.linear_q(prompts.flatten(0, 1))  # (layers * n_ctx, width)
        keys, values = self.ln_1(self.linear_k(proxies)), self.ln_1(self.linear_v(proxies))  # (layers, width)
        attended, _ = self.attn(self.ln_1(q), keys, values, need_weights=False)
        h = q + attended
        hidden = self.ffn["c_fc"](self.ln_2(h))
        out: Tensor = h + self.ffn["c_proj"](hidden * torch.sigmoid(1.702 * hidden))  # QuickGELU
        return out.view_as(prompts)


class MeanProxy(nn.Module):
    """One layer's prompts in one token: their mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        del width

    def forward(self, prompts: Tensor) -> Tensor:
        """Return (1, width) of prompts (n_ctx, width)."""
        return prompts.mean(dim=0, keepdim=True)


class LinearMapper(nn.Module):
    """Prompts take from the other side's proxy of their own layer: W_q Q + W_v p."""

    def __init__(self, width: int, proxy_width: int) -> None:
        super().__init__()
        self.linear_q = nn.Linear(width, width)
        self.linear_v = nn.Linear(proxy_width, width)

    def forward(self, prompts: Tensor, proxies: Tensor) -> Tensor:
        """Return mapped prompts (layers, n_ctx, width), given proxies (layers, proxy width)."""
        mapped: Tensor = self.linear_q(prompts) + self.linear_v(proxies)[:, None]
        return mapped


def _condensed(proxies: nn.ModuleList, prompts: Tensor) -> Tensor:
    """Return (layers, width): one token a layer."""
    return torch.cat([proxy(layer) for proxy, layer in zip(proxies, prompts, strict=True)])


def _layers(count: int, make: Callable[[], nn.Module], equal: bool) -> nn.ModuleList:
    if equal and count:
        first = make()
        return nn.ModuleList([first, *(copy.deepcopy(first) for _ in range(count - 1))])
    return nn.ModuleList(make() for _ in range(count))
