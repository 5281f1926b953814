"""open_clip's towers with prompts put in at each prompted layer; the blocks themselves are open_clip's."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.models.clip.frozen import FrozenClip


def encode_image_with(clip: FrozenClip, images: Tensor, prompts: Tensor) -> Tensor:
    """Return features (N, embed_dim), not of unit length.

    The prompts are the last tokens, without position; the first layer's pass `ln_pre` like every token. In the layers
    after, each layer's prompts take the places of those before; behind the last prompted layer they run on.

    Args:
        clip: The frozen towers.
        images: Normalised images (N, 3, size, size).
        prompts: Vision prompts (depth, n_ctx, width).
    """
    visual = clip.model.visual
    depth, n_ctx, _ = prompts.shape
    x = visual.conv1(images).flatten(2).transpose(1, 2)  # (N, patches, width)
    class_token = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
    x = torch.cat([class_token, x], dim=1) + visual.positional_embedding.to(x.dtype)
    x = torch.cat([x, _repeated(prompts[0], x)], dim=1)  # (N, 1 + patches + n_ctx, width)
    x = visual.ln_pre(x)
    for index, block in enumerate(visual.transformer.resblocks):
        if 0 < index < depth:
            x = torch.cat([x[:, :-n_ctx], _repeated(prompts[index], x)], dim=1)
        x = block(x)
    features: Tensor = visual.ln_post(x[:, 0]) @ visual.proj
    return features


def encode_text_with(clip: FrozenClip, tokens: Tensor, prompts: Tensor) -> Tensor:
    """Return features (N, embed_dim), not of unit length.

    The prompts take the n_ctx places after the start token; `tokens` says what stands around them.

    Args:
        clip: The frozen towers.
        tokens: Token numbers (N, context_length), with anything at the prompts' places.
        prompts: Text prompts (depth, n_ctx, width).
    """
    model = clip.model
    depth, n_ctx, _ = prompts.shape
    ends = tokens.argmax(dim=1)  # the end token has the highest number
    # Attention looks back only: what stands behind the last end changes nothing.
    length = int(ends.max()) + 1
    mask = model.attn_mask[:length, :length]
    x = model.token_embedding(tokens[:, :length])  # (N, length, width)
    x = torch.cat([x[:, :1], _repeated(prompts[0], x), x[:, 1 + n_ctx :]], dim=1)
    x = x + model.positional_embedding[:length].to(x.dtype)
    for index, block in enumerate(model.transformer.resblocks):
        if 0 < index < depth:
            x = torch.cat([x[:, :1], _repeated(prompts[index], x), x[:, 1 + n_ctx :]], dim=1)
        x = block(x, attn_mask=mask)
    x = model.ln_final(x[torch.arange(len(x), device=x.device), ends])
    features: Tensor = x @ model.text_projection
    return features


def _repeated(prompts: Tensor, x: Tensor) -> Tensor:
    """Return prompts (n_ctx, width) once for each of x's rows."""
    return prompts.to(x.dtype).expand(len(x), -1, -1)
