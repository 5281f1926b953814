"""HiCroPL's prompt learner: prompts of every layer, knowledge proxies and mappers (arXiv 2507.14976, section 3).

- `KnowledgeProxy`: the paper's layer-specific knowledge proxy (LKP, figure 2b); it condenses the prompts of one layer
  to one token p_l.
- `Mapper`: the paper's hierarchical knowledge mapper M; the prompts of one modality attend to the other modality's
  proxies of all layers of a group, which fuses knowledge of several scales.
- `PromptLearner`: both directions of the flow. With text prompts T_l, vision prompts V_l and cross layer k:

      [V_1 … V_k]   ← M_tv([V_1 … V_k],   [p_1 … p_k])      with p_l = LKP(T_l)
      [T_k+1 … T_D] ← M_vt([T_k+1 … T_D], [p_k+1 … p_D])    with p_l = LKP(V_l)

Shapes: D layers with prompts, n prompts per layer, d_t and d_v the widths of text and image tower, d one of them, G
layers in a group (k or D - k).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.config import HEADS, PromptConfig, require_fit

_PROMPT_STD = 0.02


@dataclass(frozen=True)
class Prompts:
    """Inputs of the towers: text prompts (D, n, d_t) and vision prompts (D, n, d_v)."""

    text: Tensor
    vision: Tensor


class PromptLearner(nn.Module):
    """All trained parameters: text prompts (D, n, d_t), vision prompts (D, n, d_v), proxies and mappers."""

    def __init__(self, config: PromptConfig, clip: ClipConfig, context: Tensor | None = None) -> None:
        """Create the learner; initial values are drawn from torch's global generator.

        Args:
            config: Hyper-parameters.
            clip: Architecture of the CLIP.
            context: Initial text prompts of the first layer (n, d_t), embedded words; default: noise.

        Raises:
            InputError: The prompts do not fit the CLIP.
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
        k = config.cross_layer
        self.text_proxies = nn.ModuleList(KnowledgeProxy(text_width) for _ in range(k))
        self.vision_proxies = nn.ModuleList(KnowledgeProxy(vision_width) for _ in range(depth - k))
        self.text_to_vision = Mapper(vision_width, text_width)
        self.vision_to_text = Mapper(text_width, vision_width) if k < depth else None

    def forward(self) -> Prompts:
        """Return the prompts of all layers; gradients flow through them to mappers and proxies."""
        text, vision, k = self.text_prompts, self.vision_prompts, self.config.cross_layer  # (D, n, d_t), (D, n, d_v)
        mapped = self.text_to_vision(vision[:k], _condensed(self.text_proxies, text[:k]))  # (k, n, d_v)
        all_vision = torch.cat([mapped, vision[k:]])
        if self.vision_to_text is None:
            return Prompts(text, all_vision)
        mapped = self.vision_to_text(text[k:], _condensed(self.vision_proxies, vision[k:]))  # (D - k, n, d_t)
        return Prompts(torch.cat([text[:k], mapped]), all_vision)


class KnowledgeProxy(nn.Module):
    """Layer-specific knowledge proxy: p = LN₂(q + MHA(LN₁ q, LN₁ X, LN₁ X)) of a layer's prompts X, with learned q."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, width))
        self.attn = nn.MultiheadAttention(width, HEADS)
        self.ln_1 = nn.LayerNorm(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, prompts: Tensor) -> Tensor:
        """Return the proxy (1, d) of prompts (n, d)."""
        keys = self.ln_1(prompts)
        attended, _ = self.attn(self.ln_1(self.query), keys, keys, need_weights=False)  # (1, d)
        proxy: Tensor = self.ln_2(self.query + attended)
        return proxy


class Mapper(nn.Module):
    """Hierarchical knowledge mapper: prompts Q (G, n, d) of one tower attend to the proxies P (G, d') of the other.

    q = W_q Q,  h = q + MHA(LN₁ q, LN₁ W_k P, LN₁ W_v P),  out = h + FFN(LN₂ h)

    The three LN₁ share their parameters. The FFN has 4 d hidden units and QuickGELU.
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
        """Return the mapped prompts (G, n, d) for prompts (G, n, d) of one tower and proxies (G, d') of the other."""
        q = self.linear_q(prompts.flatten(0, 1))  # (G, n, d) → (G * n, d)
        keys, values = self.ln_1(self.linear_k(proxies)), self.ln_1(self.linear_v(proxies))  # (G, d) each
        attended, _ = self.attn(self.ln_1(q), keys, values, need_weights=False)  # (G * n, d)
        h = q + attended
        hidden = self.ffn["c_fc"](self.ln_2(h))  # (G * n, 4d)
        out: Tensor = h + self.ffn["c_proj"](hidden * torch.sigmoid(1.702 * hidden))  # QuickGELU
        return out.view_as(prompts)  # (G * n, d) → (G, n, d)


def _condensed(proxies: nn.ModuleList, prompts: Tensor) -> Tensor:
    """Return the proxies (G, d) of prompts (G, n, d)."""
    return torch.cat([proxy(layer) for proxy, layer in zip(proxies, prompts, strict=True)])
