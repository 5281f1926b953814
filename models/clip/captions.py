"""Captions of pictures that have only a class, or shares of several: what a small CLIP is pretrained on.

Within one batch equal content gets equal words, and the words change from batch to batch. So captions that differ also
mean something different: an image is never told that another way to say the same is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.models.clip.descriptions import as_words

# A second expression is named from this share on.
_LEAST_SECOND_SHARE = 0.15
_MIXED_PROBABILITY = 0.4
_NOUN_PROBABILITY = 0.4
_TRAIT_PROBABILITY = 0.5

_FILE = Path(__file__).with_name("captions.json")


class Phrasing:
    """The words of one batch: the same for all its images, drawn by `seed`."""

    def __init__(self, classes: Sequence[str], seed: int) -> None:
        """Draw how each class is called."""
        generator = np.random.default_rng(seed)
        forms = _forms()
        known = not captions_with_names(classes)
        self.is_mixed = known and bool(generator.random() < _MIXED_PROBABILITY)
        if not known:
            template = _pick(forms["object"], generator)
            self._single = [template.format(as_words(name)) for name in classes]
            return
        words = [forms["classes"][name] for name in classes]
        adjectives = [_pick(word["adjectives"], generator) for word in words]
        # Mixed captions are of adjectives; so are those of clear images beside them.
        nouns = not self.is_mixed and generator.random() < _NOUN_PROBABILITY
        template = _pick(forms["noun" if nouns else "adjective"], generator)
        named = [_pick(word["nouns"], generator) for word in words] if nouns else adjectives
        self._single = [template.format(name) for name in named]
        if generator.random() < _TRAIT_PROBABILITY:
            joint = _pick(forms["trait"], generator)
            traits = (_pick(word["traits"], generator) for word in words)
            self._single = [joint.format(text, trait) for text, trait in zip(self._single, traits, strict=True)]
        self._mixed = _pick(forms["mixed"], generator)
        self._adjectives = adjectives

    def caption(self, first: int, second: int | None) -> str:
        """Return the caption of a class, or of one with a little of another."""
        if second is None:
            return self._single[first]
        return self._mixed.format(self._adjectives[first], self._adjectives[second])


def captions_of(
    classes: Sequence[str], labels: Tensor, targets: Tensor | None, uniform: Tensor, seed: int
) -> tuple[list[str], Tensor]:
    """Return the distinct captions of a batch and which of them each image has, int64 (N,).

    Args:
        classes: Names in label order.
        labels: (N,).
        targets: What others call the image, as shares (N, classes), where that is known; the label counts for as much.
            In some batches a caption names the two largest shares; in others one class, drawn by its share.
        uniform: (N,) in [0, 1), draws that class.
        seed: Draws the words.
    """
    phrasing = Phrasing(classes, seed)
    count = len(classes)
    # Votes tell less of the labels than the images do, and labels are one person's word: both are heard.
    shares = F.one_hot(labels, count).float()
    shares = shares if targets is None else (shares + targets) / 2
    if phrasing.is_mixed:
        largest, ranked = shares.topk(2, dim=1)
        second = torch.where(largest[:, 1] >= _LEAST_SECOND_SHARE, ranked[:, 1] + 1, 0)
        keys = ranked[:, 0] * (count + 1) + second
    else:
        drawn = (shares.cumsum(dim=1) <= uniform[:, None]).sum(dim=1).clamp(max=count - 1)
        keys = drawn * (count + 1)
    distinct, which = torch.unique(keys, return_inverse=True)
    texts = []
    for key in distinct.tolist():
        first, second = divmod(key, count + 1)
        texts.append(phrasing.caption(first, second - 1 if second else None))
    return texts, which


def captions_with_names(classes: Sequence[str]) -> list[str]:
    """Return the captions that classes may get by their own names: those of classes that are no expressions."""
    forms = _forms()
    if all(name in forms["classes"] for name in classes):
        return []
    return [template.format(as_words(name)) for template in forms["object"] for name in classes]


@cache
def _forms() -> dict[str, Any]:
    forms: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return forms


def _pick(texts: Sequence[str], generator: np.random.Generator) -> str:
    return texts[int(generator.integers(len(texts)))]
