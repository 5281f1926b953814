"""A CLIP that nothing trains any more."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.prompt_insertion import encode_image, encode_text
from edgekit.models.clip.weights import weights_digest


class FrozenClip(nn.Module):
    """open_clip's model with its weights frozen, always in eval mode.

    `source` says where the weights came from and `sha256` which file it was; `model` is open_clip's `CLIP`.
    """

    def __init__(self, model: nn.Module, config: ClipConfig, source: str, sha256: str | None = None) -> None:
        """Take over `model`; without a file, `sha256` is that of the weights themselves."""
        super().__init__()
        self.model: Any = model.float().requires_grad_(False).eval()
        self.config = config
        self.source = source
        self._weights_sha256: str | None = None
        self.sha256 = sha256 or self.weights_sha256()

    @property
    def image_size_px(self) -> int:
        """Side of the square images in pixels."""
        return self.config.image_size_px

    @property
    def embed_dim(self) -> int:
        """Length of a feature vector."""
        return self.config.embed_dim

    @property
    def logit_scale(self) -> Tensor:
        """What cosines are multiplied by, a scalar."""
        scale: Tensor = self.model.logit_scale.exp()
        return scale

    def train(self, mode: bool = True) -> FrozenClip:
        """Stay in eval mode, also below a module in training."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Return features (N, embed_dim), not of unit length, of normalised images (N, 3, size, size)."""
        return encode_image(self.model.visual, images)

    @torch.no_grad()
    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return features (N, embed_dim), not of unit length, of token numbers (N, context_length)."""
        return encode_text(self.model, tokens)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return token numbers (N, context_length), zeros after each end, on the model's device.

        Raises:
            InputError: A text is longer than the context or holds one of its marks, or the CLIP has another vocabulary.
        """
        return tokenize(texts, self.config).to(self.model.logit_scale.device)

    def weights_sha256(self) -> str:
        """Return the digest of the weights, whatever file they came in."""
        if self._weights_sha256 is None:
            self._weights_sha256 = weights_digest(self.model.state_dict())
        return self._weights_sha256


def tokenize(texts: Sequence[str], config: ClipConfig) -> Tensor:
    """Return token numbers (N, context_length) as open_clip's tokenizer gives them, zeros after each end.

    Raises:
        InputError: A text is longer than the context or holds one of its marks, or the CLIP has another vocabulary.
    """
    tokenizer = _tokenizer()
    if tokenizer.vocab_size > config.vocabulary:
        raise InputError(
            f"the CLIP knows {config.vocabulary} tokens, its tokenizer has {tokenizer.vocab_size}: "
            "only CLIP's own vocabulary is supported"
        )
    room = config.context_length
    tokens = torch.zeros(len(texts), room, dtype=torch.long)
    for row, text in enumerate(texts):
        words = tokenizer.encode(text)
        if tokenizer.eot_token_id in words or tokenizer.sot_token_id in words:
            raise InputError(f"text {_short(text)} holds a mark that begins or ends texts: leave it out")
        if len(words) + 2 > room:
            raise InputError(
                f"text {_short(text)} is {len(words) + 2} tokens long, the CLIP's context {room}: shorten it"
            )
        tokens[row, : len(words) + 2] = torch.tensor([tokenizer.sot_token_id, *words, tokenizer.eot_token_id])
    return tokens


def require_room(name: str, sentences: Sequence[str], config: ClipConfig) -> Tensor:
    """Return the token numbers of a class's descriptions.

    Raises:
        InputError: One does not fit; the message names the class.
    """
    try:
        return tokenize(sentences, config)
    except InputError as error:
        raise InputError(f"description of class '{name}': {error}") from error


@cache  # reading its vocabulary takes as long as tokenizing thousands of texts
def _tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def _short(text: str) -> str:
    return repr(text if len(text) <= 50 else f"{text[:47]}...")
