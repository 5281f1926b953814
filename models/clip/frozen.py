"""A frozen CLIP and its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.prompt_insertion import encode_image, encode_text
from edgekit.models.clip.weights import weights_digest


class FrozenClip(nn.Module):
    """open_clip's model with frozen weights, always in eval mode.

    `model` is open_clip's `CLIP`, `source` the origin of the weights, `sha256` the checksum of their file. `texts` have
    every word that the CLIP was trained on, and `labels` are the classes of its training images, if that is known.
    """

    def __init__(
        self,
        model: nn.Module,
        config: ClipConfig,
        source: str,
        sha256: str | None = None,
        texts: Sequence[str] = (),
        labels: Sequence[str] = (),
    ) -> None:
        """Freeze `model`; without `sha256`, the checksum of the file is replaced by that of the weights."""
        super().__init__()
        self.model: Any = model.float().requires_grad_(False).eval()
        self.config = config
        self.source = source
        self.texts = tuple(texts)
        self.labels = tuple(labels)
        self.sha256 = sha256 or self.weights_sha256

    @property
    def image_size_px(self) -> int:
        """Height and width of the input images in pixels."""
        return self.config.image_size_px

    @property
    def logit_scale(self) -> Tensor:
        """Factor by which cosine similarities are multiplied to get logits, a scalar."""
        scale: Tensor = self.model.logit_scale.exp()
        return scale

    def train(self, mode: bool = True) -> FrozenClip:
        """Keep eval mode, even if the module that contains this CLIP is set to training mode."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Return features (N, embed_dim), not normalised, of normalised images (N, 3, size, size)."""
        return encode_image(self.model.visual, images)

    @torch.no_grad()
    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return features (N, embed_dim), not normalised, of tokens (N, context_length)."""
        return encode_text(self.model, tokens)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return tokens, int64 (N, context_length), on the model's device; see the function `tokenize`.

        Raises:
            InputError: As for the function `tokenize`.
        """
        return tokenize(texts, self.config).to(self.model.logit_scale.device)

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights, which is the same for every file that contains these weights."""
        return weights_digest(self.model.state_dict())


def tokenize(texts: Sequence[str], config: ClipConfig) -> Tensor:
    """Return tokens, int64 (N, context_length): start token, words, end token, zeros.

    open_clip's tokenizer returns the same tokens.

    Raises:
        InputError: A text is longer than the context or contains a start or end token, or the CLIP's vocabulary is not
            the tokenizer's.
    """
    tokenizer = _tokenizer()
    if tokenizer.vocab_size > config.vocabulary:
        raise InputError(
            f"the CLIP has a vocabulary of {config.vocabulary} tokens, the tokenizer one of {tokenizer.vocab_size}: "
            "only CLIP's own vocabulary is supported"
        )
    room = config.context_length
    tokens = torch.zeros(len(texts), room, dtype=torch.long)
    for row, text in enumerate(texts):
        words = tokenizer.encode(text)
        if tokenizer.eot_token_id in words or tokenizer.sot_token_id in words:
            raise InputError(f"text {_short(text)} contains a start or end token: remove it")
        if len(words) + 2 > room:
            raise InputError(
                f"text {_short(text)} is {len(words) + 2} tokens long, the CLIP's context {room}: shorten it"
            )
        tokens[row, : len(words) + 2] = torch.tensor([tokenizer.sot_token_id, *words, tokenizer.eot_token_id])
    return tokens


def description_tokens(name: str, sentences: Sequence[str], config: ClipConfig) -> Tensor:
    """Return the tokens of a class's descriptions, int64 (sentences, context_length).

    Raises:
        InputError: As for `tokenize`; the message names the class.
    """
    try:
        return tokenize(sentences, config)
    except InputError as error:
        raise InputError(f"description of class '{name}': {error}") from error


@cache  # reading the vocabulary takes as long as tokenizing thousands of texts
def _tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def _short(text: str) -> str:
    return repr(text if len(text) <= 50 else f"{text[:47]}...")
