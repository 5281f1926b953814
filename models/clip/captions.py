"""Captions composed from labels, the texts on which a small CLIP is pretrained.

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

from edgekit.models.clip.descriptions import as_words

_NOUN_PROBABILITY = 0.4
_TRAIT_PROBABILITY = 0.5

_FILE = Path(__file__).with_name("captions.json")


def captions_of(classes: Sequence[str], labels: Tensor, seed: int) -> tuple[list[str], Tensor]:
    """Return the distinct captions of a batch, and the index of each image's caption: int64 (N,).

    Args:
        classes: Names in label order.
        labels: int64 (N,).
        seed: Seed of the words.
    """
    texts = _phrased(classes, seed)
    distinct, which = torch.unique(labels, return_inverse=True)
    return [texts[label] for label in distinct.tolist()], which


def _phrased(classes: Sequence[str], seed: int) -> list[str]:
    """Return one caption per class, whose words are drawn with `seed`."""
    generator = np.random.default_rng(seed)
    forms = _forms()
    if captions_with_names(classes):
        template = _pick(forms["object"], generator)
        return [template.format(as_words(name)) for name in classes]
    words = [forms["classes"][name] for name in classes]
    kind = "noun" if generator.random() < _NOUN_PROBABILITY else "adjective"
    template = _pick(forms[kind], generator)
    texts = [template.format(_pick(word[f"{kind}s"], generator)) for word in words]
    if generator.random() >= _TRAIT_PROBABILITY:
        return texts
    joint = _pick(forms["trait"], generator)
    return [joint.format(text, _pick(word["traits"], generator)) for text, word in zip(texts, words, strict=True)]


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
    texts = every_form_and_word(forms["adjective"], words, "adjectives")
    texts += every_form_and_word(forms["noun"], words, "nouns")
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
