"""open_clip's towers, with prompts put in at each prompted layer or without: its weights, but passes of our own.

What is computed is what open_clip computes. Two things are left out that nobody reads: of the last layer all tokens but
the one that becomes the feature, and of texts what stands behind the longest one's end. Attention takes the packed
weights batch first, so that nothing is copied about.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

_FEW_TOKENS = 100


def encode_image(visual: Any, images: Tensor, prompts: Tensor | None = None) -> Tensor:
    """Return features (N, embed_dim), not of unit length.

    The prompts are the last tokens, without position; the first layer's pass `ln_pre` like every token. In the layers
    after, each layer's prompts take the places of those before; behind the last prompted layer they run on.

    Args:
        visual: open_clip's image tower.
        images: Normalised images (N, 3, size, size).
        prompts: Vision prompts (depth, n_ctx, width).
    """
    depth, n_ctx = (0, 0) if prompts is None else prompts.shape[:2]
    x = visual.conv1(images).flatten(2).transpose(1, 2)  # (N, patches, width)
    class_token = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
    x = torch.cat([class_token, x], dim=1) + visual.positional_embedding.to(x.dtype)
    if prompts is not None:
        x = torch.cat([x, _repeated(prompts[0], x)], dim=1)  # (N, 1 + patches + n_ctx, width)
    x = visual.ln_pre(x)
    blocks = visual.transformer.resblocks
    for index, block in enumerate(blocks):
        if prompts is not None and 0 < index < depth:
            x = torch.cat([x[:, :-n_ctx], _repeated(prompts[index], x)], dim=1)
        x = _through(block, x, x[:, :1] if index == len(blocks) - 1 else None)
    features: Tensor = visual.ln_post(x[:, 0]) @ visual.proj
    return features


def encode_text(model: Any, tokens: Tensor, prompts: Tensor | None = None) -> Tensor:
    """Return features (N, embed_dim), not of unit length.

    The prompts take the n_ctx places after the start token; `tokens` says what stands around them.

    Args:
        model: open_clip's `CLIP`.
        tokens: Token numbers (N, context_length), with anything at the prompts' places.
        prompts: Text prompts (depth, n_ctx, width).
    """
    depth, n_ctx = (0, 0) if prompts is None else prompts.shape[:2]
    ends = tokens.argmax(dim=1)  # the end token has the highest number
    # Attention looks back only: what stands behind the last end changes nothing.
    length = int(ends.max()) + 1
    mask = model.attn_mask[:length, :length]
    x = model.token_embedding(tokens[:, :length])  # (N, length, width)
    if prompts is not None:
        x = torch.cat([x[:, :1], _repeated(prompts[0], x), x[:, 1 + n_ctx :]], dim=1)
    x = x + model.positional_embedding[:length].to(x.dtype)
    for index, block in enumerate(model.transformer.resblocks):
        if prompts is not None and 0 < index < depth:
            x = torch.cat([x[:, :1], _repeated(prompts[index], x), x[:, 1 + n_ctx :]], dim=1)
        x = _through(block, x, mask=mask)
    x = model.ln_final(x[torch.arange(len(x), device=x.device), ends])
    features: Tensor = x @ model.text_projection
    return features


def trained_attention(tokens: int, device: torch.device) -> AbstractContextManager[None]:
    """Return how attention over so many tokens is best computed while gradients are wanted.

    On a CPU the fused kernel's way back takes twice the time of the separate steps for 17 to 77 tokens, and 0.6 of it
    for 213 (bf16, one thread).
    """
    if device.type == "cpu" and tokens <= _FEW_TOKENS and torch.is_grad_enabled():
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def _through(block: Any, x: Tensor, wanted: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Return what open_clip's residual block makes of tokens (N, length, width), or of those `wanted` among them."""
    attention, normed = block.attn, block.ln_1(x)
    width, heads = x.shape[2], attention.num_heads
    if wanted is None:
        packed = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
        queries, keys, values = packed.view(*packed.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
    else:
        weights, biases = attention.in_proj_weight, attention.in_proj_bias
        of_wanted = F.linear(block.ln_1(wanted), weights[:width], biases[:width])
        queries = of_wanted.view(*of_wanted.shape[:2], heads, -1).transpose(1, 2)
        packed = F.linear(normed, weights[width:], biases[width:])
        keys, values = packed.view(*packed.shape[:2], 2, heads, -1).permute(2, 0, 3, 1, 4)
        x = wanted
    if mask is not None:
        mask = mask.to(queries.dtype)
    with trained_attention(keys.shape[2], x.device):
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    x = x + block.ls_1(attention.out_proj(attended.transpose(1, 2).flatten(2)))
    out: Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return out


def _repeated(prompts: Tensor, x: Tensor) -> Tensor:
    """Return prompts (n_ctx, width) once for each of x's rows."""
    return prompts.to(x.dtype).expand(x.shape[0], -1, -1)
