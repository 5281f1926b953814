"""Forward passes of open_clip's towers, with prompts inserted into the first D layers or without prompts.

The features equal those of open_clip. Two parts that do not influence the features are not computed: in the last layer
all tokens except the one that becomes the feature, and in texts all tokens after the end of the longest text. Attention
takes batch-first tensors and the packed weights, which avoids copies.

Shapes: N images or texts, L tokens, D prompted layers, n prompts per layer, width d (d_v of the image tower, d_t of the
text tower), h attention heads.
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
    """Return image features (N, embed_dim), not normalised, of images (N, 3, size, size); see `encode_patches`."""
    return encode_patches(visual, embed_patches(visual, images), prompts)


def embed_patches(visual: Any, images: Tensor) -> Tensor:
    """Return the tokens (N, patches, d_v) of normalised images (N, 3, size, size), without class and position."""
    tokens: Tensor = visual.conv1(images).flatten(2).transpose(1, 2)  # (N, d_v, rows, columns) → (N, patches, d_v)
    return tokens


def encode_patches(visual: Any, patches: Tensor, prompts: Tensor | None = None) -> Tensor:
    """Return image features (N, embed_dim), not normalised, of tokens from `embed_patches`.

    The prompts are the last n tokens and have no positional embedding. The prompts of layer 1 pass through `ln_pre`
    like all tokens. In layers 2 to D, the layer's own prompts replace the previous layer's outputs for these n tokens;
    after layer D, these n tokens are processed like all others.

    Args:
        visual: open_clip's image tower.
        patches: Tokens (N, patches, d_v).
        prompts: Vision prompts (D, n, d_v).
    """
    depth, n_ctx = (0, 0) if prompts is None else prompts.shape[:2]
    class_token = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)  # (N, 1, d_v)
    x = torch.cat([class_token, patches], dim=1)  # (N, 1 + patches, d_v)
    x = x + visual.positional_embedding.to(x.dtype)
    if prompts is not None:
        x = torch.cat([x, _repeated(prompts[0], x)], dim=1)  # (N, 1 + patches + n, d_v)
    x = visual.ln_pre(x)
    blocks = visual.transformer.resblocks
    for index, block in enumerate(blocks):
        if prompts is not None and 0 < index < depth:
            x = torch.cat([x[:, :-n_ctx], _repeated(prompts[index], x)], dim=1)
        is_last = index == len(blocks) - 1
        x = _through(block, x, x[:, :1] if is_last else None)  # of the last layer only the class token: (N, 1, d_v)
    features: Tensor = visual.ln_post(x[:, 0]) @ visual.proj  # (N, d_v) → (N, embed_dim)
    return features


def encode_text(model: Any, tokens: Tensor, prompts: Tensor | None = None) -> Tensor:
    """Return text features (N, embed_dim), not normalised.

    The prompts belong to the n tokens after the start token. In layer 1 they replace the embeddings of these tokens, in
    layers 2 to D the previous layer's outputs for these tokens; after layer D, these n tokens are processed like all
    others.

    Args:
        model: open_clip's `CLIP`.
        tokens: Token numbers (N, context_length); the n after the start token are placeholders.
        prompts: Text prompts (D, n, d_t).
    """
    depth, n_ctx = (0, 0) if prompts is None else prompts.shape[:2]
    ends = tokens.argmax(dim=1)  # (N,): the end token has the highest number
    # Attention is causal, so tokens after the last end do not influence the features.
    length = int(ends.max()) + 1
    mask = model.attn_mask[:length, :length]
    x = model.token_embedding(tokens[:, :length])  # (N, L, d_t)
    if prompts is not None:
        x = torch.cat([x[:, :1], _repeated(prompts[0], x), x[:, 1 + n_ctx :]], dim=1)  # (N, L, d_t)
    x = x + model.positional_embedding[:length].to(x.dtype)
    for index, block in enumerate(model.transformer.resblocks):
        if prompts is not None and 0 < index < depth:
            x = torch.cat([x[:, :1], _repeated(prompts[index], x), x[:, 1 + n_ctx :]], dim=1)
        x = _through(block, x, mask=mask)
    x = model.ln_final(x[torch.arange(len(x), device=x.device), ends])  # (N, L, d_t) → (N, d_t)
    features: Tensor = x @ model.text_projection  # (N, embed_dim)
    return features


def trained_attention(tokens: int, device: torch.device) -> AbstractContextManager[None]:
    """Return a context that selects the faster attention kernel for training with sequences of `tokens` tokens.

    On a CPU (bf16, one thread) the fused kernel's backward pass takes twice the time of the unfused kernel's for 17 to
    77 tokens, and 0.6 times the time for 213 tokens.
    """
    if device.type == "cpu" and tokens <= _FEW_TOKENS and torch.is_grad_enabled():
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def _through(block: Any, x: Tensor, wanted: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Return the output of open_clip's residual block for tokens x (N, L, d).

    `wanted` (N, Q, d) are those of the tokens whose output is computed, by default all. They attend to all tokens.
    """
    attention, normed = block.attn, block.ln_1(x)
    width, heads = x.shape[2], attention.num_heads
    weights, biases = attention.in_proj_weight, attention.in_proj_bias  # of queries, keys, values: (3d, d), (3d,)
    if wanted is None:
        wanted = x
        queries, keys, values = _by_head(F.linear(normed, weights, biases), 3, heads)  # (N, h, L, d / h) each
    else:
        (queries,) = _by_head(F.linear(block.ln_1(wanted), weights[:width], biases[:width]), 1, heads)
        keys, values = _by_head(F.linear(normed, weights[width:], biases[width:]), 2, heads)
    if mask is not None:
        mask = mask.to(queries.dtype)
    with trained_attention(keys.shape[2], x.device):
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)  # (N, h, Q, d / h)
    joined = attended.transpose(1, 2).flatten(2)  # (N, Q, h, d / h) → (N, Q, d)
    # `ls_1` and `ls_2` are open_clip's layer scales: the identity in a plain CLIP.
    hidden = wanted + block.ls_1(attention.out_proj(joined))
    out: Tensor = hidden + block.ls_2(block.mlp(block.ln_2(hidden)))
    return out


def _by_head(packed: Tensor, parts: int, heads: int) -> Tensor:
    """Return packed projections (N, L, parts * d) as (parts, N, h, L, d / h)."""
    return packed.view(*packed.shape[:2], parts, heads, -1).permute(2, 0, 3, 1, 4)


def _repeated(prompts: Tensor, x: Tensor) -> Tensor:
    """Return prompts (n, d) repeated for each of the N images or texts in x: (N, n, d)."""
    return prompts.to(x.dtype).expand(x.shape[0], -1, -1)
