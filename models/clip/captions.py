"""Captions composed from labels or vote shares, the texts on which a small CLIP is pretrained.

Within a batch all images with the same content get the same caption, and each batch draws new words. So the contrastive
loss never treats two captions with the same meaning as a negative pair.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.models.clip.descriptions import as_words

# Least share of the second expression in a mixed caption.
_MIN_SECOND_SHARE = 0.15
_MIXED_PROBABILITY = 0.4
_NOUN_PROBABILITY = 0.4
_TRAIT_PROBABILITY = 0.5

_FILE = Path(__file__).with_name("captions.json")


class Phrasing:
    """The words of all captions of one batch, drawn with `seed`.

    `is_mixed` is true if the captions of the batch may name two expressions.
    """

    def __init__(self, classes: Sequence[str], seed: int) -> None:
        """Draw the words for each class with `seed`."""
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
        # Mixed captions use adjectives, so the other captions of a mixed batch use adjectives too.
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
        """Return a caption that names the class `first`, or, with `second`, a mixture of both classes."""
        if second is None:
            return self._single[first]
        return self._mixed.format(self._adjectives[first], self._adjectives[second])


def captions_of(
    classes: Sequence[str], labels: Tensor, targets: Tensor | None, uniform: Tensor, seed: int
) -> tuple[list[str], Tensor]:
    """Return the distinct captions of a batch, and the index of each image's caption: int64 (N,).

    The class shares of an image are its one-hot label; with `targets` they are the mean of the one-hot label and the
    image's targets. In mixed batches a caption names the classes with the two largest shares. In all other batches it
    names one class, which is drawn with its share as its probability.

    Args:
        classes: Names in label order.
        labels: int64 (N,).
        targets: Shares of the votes for each class, float32 (N, classes).
        uniform: Random numbers in [0, 1) that select the class, float32 (N,).
        seed: Seed of the words.
    """
    phrasing = Phrasing(classes, seed)
    count = len(classes)
    shares = F.one_hot(labels, count).float()  # (N, classes)
    shares = shares if targets is None else (shares + targets) / 2
    # An image's content as one number: first class * (count + 1) + (second class + 1, or 0).
    if phrasing.is_mixed:
        largest, ranked = shares.topk(2, dim=1)  # (N, 2) each
        second = torch.where(largest[:, 1] >= _MIN_SECOND_SHARE, ranked[:, 1] + 1, 0)
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
    """Return all captions that contain the classes' own names; an empty list if all classes are known expressions."""
    forms = _forms()
    if all(name in forms["classes"] for name in classes):
        return []
    return [template.format(as_words(name)) for template in forms["object"] for name in classes]


def example_captions(classes: Sequence[str]) -> list[str]:
    """Return captions that together have every form and every word of the captions of `classes`."""
    if named := captions_with_names(classes):
        return named
    forms, words = _forms(), [_forms()["classes"][name] for name in classes]
    first = words[0]
    texts = every_form_and_word(forms["adjective"], words, "adjectives")
    texts += every_form_and_word(forms["noun"], words, "nouns")
    texts += [form.format(first["adjectives"][0], words[-1]["adjectives"][0]) for form in forms["mixed"]]
    traits = [form.replace("{}", texts[0], 1) for form in forms["trait"]]
    return texts + every_form_and_word(traits, words, "traits")


def every_form_and_word(forms: Sequence[str], words: Sequence[Mapping[str, list[str]]], kind: str) -> list[str]:
    """Return texts in which each form and each word of a kind occurs at least once."""
    named = [text for word in words for text in word[kind]]
    return [forms[i % len(forms)].format(named[i % len(named)]) for i in range(max(len(forms), len(named)))]


def expression_words() -> dict[str, dict[str, list[str]]]:
    """Return adjectives, nouns and traits of each known expression."""
    words: dict[str, dict[str, list[str]]] = _forms()["classes"]
    return words


@cache
def _forms() -> dict[str, Any]:
    forms: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return forms


def _pick(texts: Sequence[str], generator: np.random.Generator) -> str:
    return texts[int(generator.integers(len(texts)))]
