"""Captions, the texts on which a small CLIP is pretrained: composed from labels, or from votes and the picture.

Within a batch all images with the same content get the same caption, and each batch draws new words. So the contrastive
loss never treats two captions with the same meaning as a negative pair.

A batch with captions of votes names either one expression per image, drawn by its share, or the two largest shares and
their sizes ("mostly sad, a little afraid"). If the data have all expressions, some of the batches name groups of them
instead, such as "negative" or "not smiling": the share of a group is the sum of its expressions' shares. Half of the
batches add one property of the picture (light, sharpness, contrast or pose), of the images that have it most or least.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edgekit.errors import InputError
from edgekit.models.clip.descriptions import as_words
from edgekit.models.data.ferplus import COLUMNS, without_single_votes
from edgekit.models.data.layout import canonical_class
from edgekit.preprocess import ImageU8

_NOUN_PROBABILITY = 0.4
_TRAIT_PROBABILITY = 0.5

# Least shares of the second largest expression: to be named, and to be named as equal to the largest.
_SECOND_SHARE, _EQUAL_SHARE = 0.12, 0.35
# Least share of an expression that is named alone and called sure, such as "clearly sad".
_SURE_SHARE = 0.8
_GRADED_PROBABILITY = 0.6
_VOTED_NOUN_PROBABILITY = 0.35
_PROPERTY_PROBABILITY = 0.5
_GROUPING_PROBABILITY = 0.15
# Share of the images that have a property most, and of those that have it least.
_EXTREME_SHARE = 0.2
CONTEMPT = "contempt"
# Columns of the votes for an expression, by its name in a data set.
_COLUMN_OF = {canonical_class(name): index for index, name in enumerate(COLUMNS[:8])}
_FORMS = ("alone", "sure", "mostly", "between")
_OF_LABELS = Path(__file__).with_name("captions.json")
_OF_VOTES = Path(__file__).with_name("vote_captions.json")
_Item = TypeVar("_Item")


def captions_of(classes: Sequence[str], labels: Tensor, seed: int) -> tuple[list[str], Tensor]:
    """Return the distinct captions of a batch, and the index of each image's caption: int64 (N,).

    Args:
        classes: Names in label order.
        labels: int64 (N,).
        seed: Seed of the words.
    """
    texts = _caption_per_class(classes, seed)
    distinct, caption_of = torch.unique(labels, return_inverse=True)
    return [texts[label] for label in distinct.tolist()], caption_of


def _caption_per_class(classes: Sequence[str], seed: int) -> list[str]:
    """Return one caption per class, whose words are drawn with `seed`.

    All captions have the same template, such as "a person who looks {}", filled with a random word of the class. Half
    of the calls add a trait of the expression, such as "with raised eyebrows".
    """
    generator = np.random.default_rng(seed)
    templates = _templates(_OF_LABELS)
    if captions_with_names(classes):  # a class is not a known expression, so there are no words for it
        template = _pick(templates["object"], generator)
        return [template.format(as_words(name)) for name in classes]
    words_of_classes = [templates["classes"][name] for name in classes]
    kind = "noun" if generator.random() < _NOUN_PROBABILITY else "adjective"
    template = _pick(templates[kind], generator)
    texts = [template.format(_pick(words[f"{kind}s"], generator)) for words in words_of_classes]
    if generator.random() >= _TRAIT_PROBABILITY:
        return texts
    trait_template = _pick(templates["trait"], generator)
    traits = [_pick(words["traits"], generator) for words in words_of_classes]
    return [trait_template.format(text, trait) for text, trait in zip(texts, traits, strict=True)]


def captions_with_names(classes: Sequence[str]) -> list[str]:
    """Return all captions that contain the classes' own names; an empty list if all classes are known expressions."""
    forms = _templates(_OF_LABELS)
    if all(name in forms["classes"] for name in classes):
        return []
    return [template.format(as_words(name)) for template in forms["object"] for name in classes]


def example_captions(classes: Sequence[str]) -> list[str]:
    """Return captions that together have every form and every word of the captions of `classes`."""
    if named := captions_with_names(classes):  # empty if all classes are known expressions
        return named
    templates = _templates(_OF_LABELS)
    words = [templates["classes"][name] for name in classes]
    texts = every_form_and_word(templates["adjective"], words, "adjectives")
    texts += every_form_and_word(templates["noun"], words, "nouns")
    # Templates of traits, such as "{} with {}", have a place for a caption and one for the trait.
    trait_templates = [template.replace("{}", texts[0], 1) for template in templates["trait"]]
    return texts + every_form_and_word(trait_templates, words, "traits")


def every_form_and_word(forms: Sequence[str], words: Sequence[Mapping[str, list[str]]], kind: str) -> list[str]:
    """Return texts in which each form and each word of a kind occurs at least once."""
    candidates = [text for word in words for text in word[kind]]
    texts = []  # one per element of the longer list; the shorter one is repeated
    for index in range(max(len(forms), len(candidates))):
        texts.append(forms[index % len(forms)].format(candidates[index % len(candidates)]))
    return texts


def expression_words() -> dict[str, dict[str, list[str]]]:
    """Return adjectives, nouns and traits of each known expression."""
    words: dict[str, dict[str, list[str]]] = _templates(_OF_LABELS)["classes"]
    return words


@dataclass(frozen=True)
class Contents:
    """What the captions of a set of images may state.

    `shares` are those of the label and the votes together, float32 (N, names); `properties` are those of the picture,
    int64 (N, properties): -1 little, 0 usual, 1 much.
    """

    names: tuple[str, ...]
    shares: Tensor
    properties: Tensor


def contents_of(
    classes: Sequence[str], labels: NDArray[np.int64], votes: NDArray[np.float32], images: ImageU8
) -> Contents:
    """Return what the captions of images may state.

    Args:
        classes: Names in label order, each one a known expression.
        labels: int64 (N,).
        votes: Votes for each of `ferplus.COLUMNS`, (N, 10); single votes are ignored, as in FER+.
        images: uint8 (N, H, W, C).

    Raises:
        InputError: A class is not one that is voted on.
    """
    unknown = [name for name in classes if name not in _COLUMN_OF]
    if unknown:
        raise InputError(f"captions of votes need the expressions of FER+: class '{unknown[0]}' is not one of them")
    names = tuple(classes)
    if set(classes) == set(_COLUMN_OF) - {CONTEMPT}:
        names = (*classes, CONTEMPT)  # with all seven expressions, the captions also state votes for contempt
    columns = [_COLUMN_OF[name] for name in names]
    counts = torch.from_numpy(without_single_votes(votes)[:, columns])  # (N, names)
    total = counts.sum(dim=1, keepdim=True)  # (N, 1)
    one_hot_labels = F.one_hot(torch.from_numpy(labels), len(names)).float()
    # The mean of label and votes; the label alone for images without votes.
    shares = torch.where(total > 0, (one_hot_labels + counts / total.clamp(min=1)) / 2, one_hot_labels)
    levels = _levels(_properties(images))  # of brightness, sharpness, contrast and symmetry: (N, 4)
    return Contents(names, shares, torch.from_numpy(levels))


def captions_of_votes(contents: Contents, indices: Tensor, uniform: Tensor, seed: int) -> tuple[list[str], Tensor]:
    """Return the distinct captions of a batch, and the index of each image's caption: int64 (N,).

    All captions have the words drawn with `seed`, so images with the same content have the same caption.

    Args:
        contents: What the captions may state.
        indices: The batch's images, int64 (N,).
        uniform: Random numbers in [0, 1) that select an expression by its share, float32 (N,).
        seed: Seed of the words.
    """
    words = _Words(contents.names, np.random.default_rng(seed))
    # Shares of what the captions name, expressions or groups of them: (N, expressions) @ (expressions, named).
    shares = contents.shares[indices] @ words.members
    # Four numbers determine a caption: one or two names, the form, and the level of a property; int64 (N,) each.
    if words.is_graded:
        first, second, form = _graded(shares)
    else:
        # The name in whose part of the cumulated shares, 0..1, the random number lies. By rounding, all shares together
        # can be a little less than 1: then it is the last name.
        first = (shares.cumsum(dim=1) <= uniform[:, None]).sum(dim=1).clamp(max=shares.shape[1] - 1)
        second = torch.zeros_like(first)
        form = torch.full_like(first, _FORMS.index("alone"))
    # `words.stated` is the index of the property that the captions state; None: they state none.
    level = torch.zeros_like(first) if words.stated is None else contents.properties[indices, words.stated]
    numbers = torch.stack([first, second, form, level], dim=1)  # (N, 4)
    distinct, caption_of = torch.unique(numbers, dim=0, return_inverse=True)
    texts = []
    for one_name, other_name, form_index, property_level in distinct.tolist():
        texts.append(words.caption(one_name, other_name, _FORMS[form_index], property_level))
    return texts, caption_of


def _graded(shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what captions of shares (N, names) state: indices of one or two names and of the form; int64 (N,) each.

    The names are those of the two largest shares. The index of the second one is 0 where the form has one name only.
    """
    largest, ranked = shares.topk(2, dim=1)  # (N, 2) each
    first_share, second_share = largest.unbind(dim=1)
    first, second = ranked.unbind(dim=1)
    form_with_one = torch.where(first_share >= _SURE_SHARE, _FORMS.index("sure"), _FORMS.index("alone"))
    form_with_two = torch.where(second_share >= _EQUAL_SHARE, _FORMS.index("between"), _FORMS.index("mostly"))
    has_one_name = second_share < _SECOND_SHARE
    form = torch.where(has_one_name, form_with_one, form_with_two)
    return first, torch.where(has_one_name, 0, second), form


def example_vote_captions(names: Sequence[str]) -> list[str]:
    """Return captions that together have every word of the captions of expressions and their groups."""
    templates = _templates(_OF_VOTES)
    texts: list[str] = []
    vocabularies = _vocabularies(tuple(names))
    for vocabulary in vocabularies:
        texts += every_form_and_word(templates["single"], vocabulary.words, "adjectives")
        texts += every_form_and_word(templates["noun"], vocabulary.words, "nouns")
    # Forms with one or two names, filled with any two adjectives.
    words = vocabularies[0].words
    one_adjective, other_adjective = words[0]["adjectives"][0], words[-1]["adjectives"][0]
    for form in ("sure", "mostly", "between"):
        texts += [template.format(one_adjective, other_adjective) for template in templates[form]]
    joint = templates["joints"][0]  # "{}, {}" of a caption and a property; no joint has words, so one is enough
    # Of each property, such as brightness: texts for low and for high values.
    for texts_of_little, texts_of_much in templates["looks"].values():
        texts += [joint.format(texts[0], text) for text in (*texts_of_little, *texts_of_much)]
    return texts


@dataclass(frozen=True)
class _Vocabulary:
    """Words of expressions or of groups of expressions.

    `members` is float32 (expressions, named): 1 if an expression belongs to the expression or group that is named.
    """

    words: list[Mapping[str, list[str]]]
    members: Tensor


@cache
def _vocabularies(names: tuple[str, ...]) -> list[_Vocabulary]:
    """Return the vocabulary of the expressions; if `names` has all of them, also that of each grouping."""
    templates = _templates(_OF_VOTES)
    own: dict[str, Mapping[str, list[str]]] = {**expression_words(), CONTEMPT: templates[CONTEMPT]}
    found = [_Vocabulary([own[name] for name in names], torch.eye(len(names)))]
    has_all_expressions = CONTEMPT in names  # `contents_of` adds contempt only to all others
    if not has_all_expressions:
        return found
    for grouping in templates["groupings"]:
        # A group without words of its own is one expression.
        words = [group if "adjectives" in group else own[name] for name, group in grouping.items()]
        members = [[float(name in group["of"]) for group in grouping.values()] for name in names]  # (names, groups)
        found.append(_Vocabulary(words, torch.tensor(members)))
    return found


class _Words:
    """The words of all captions of one batch.

    Attributes:
        is_graded: Whether the captions state the two largest shares, and not one expression drawn by its share.
        members: Matrix (expressions, named) that sums the shares of expressions to those of what the captions name: the
            expressions themselves, or groups of them.
        stated: Index of the property of the picture that the captions state; None: none.
    """

    def __init__(self, names: tuple[str, ...], generator: np.random.Generator) -> None:
        """Draw the words for captions of these expressions.

        The draws must keep their order, because a seed stands for the same words in every version.
        """
        templates = _templates(_OF_VOTES)
        of_expressions, *of_groupings = _vocabularies(names)  # of single expressions, and of each way to group them
        pick = partial(_pick, generator=generator)
        self.is_graded = bool(generator.random() < _GRADED_PROBABILITY)
        # The templates of graded captions, such as "mostly {}, a little {}", take adjectives only.
        uses_nouns = not self.is_graded and bool(generator.random() < _VOTED_NOUN_PROBABILITY)
        self.stated: int | None = None
        if generator.random() < _PROPERTY_PROBABILITY:
            properties = list(templates["looks"].values())
            self.stated = int(generator.integers(len(properties)))
            texts_of_little, texts_of_much = properties[self.stated]
            self._property_texts = {-1: pick(texts_of_little), 1: pick(texts_of_much)}  # by level
        vocabulary = of_expressions
        if of_groupings and generator.random() < _GROUPING_PROBABILITY:
            vocabulary = pick(of_groupings)
        self.members = vocabulary.members
        self._named = [pick(words["nouns" if uses_nouns else "adjectives"]) for words in vocabulary.words]
        self._template: str = pick(templates["noun" if uses_nouns else "single"])
        self._form_templates: dict[str, str] = {form: pick(templates[form]) for form in ("sure", "mostly", "between")}
        self._joint: str = pick(templates["joints"])

    def caption(self, first: int, second: int, form: str, level: int) -> str:
        """Return a caption, such as "a person who looks mostly sad, a little afraid, in poor light".

        Args:
            first: Index of an expression or group.
            second: Index of the other one, which the forms "mostly" and "between" name.
            form: One of `_FORMS`.
            level: Level of the property of the picture: -1 little, 0 not stated, 1 much.
        """
        named = self._named[first]
        if form != "alone":
            named = self._form_templates[form].format(named, self._named[second])
        text = self._template.format(named)
        if self.stated is None or level == 0:
            return text
        return self._joint.format(text, self._property_texts[level])


def _properties(images: ImageU8) -> NDArray[np.float64]:
    """Return brightness, sharpness, contrast and symmetry of images, (N, 4), in the order of the captions' file.

    Sharpness is the variance of the Laplacian divided by that of the pixels; symmetry is the correlation of the picture
    with its mirror image, which is low for a face that is turned to the side.
    """
    rows = []
    for image in images:
        gray = image[..., 0] if image.shape[-1] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        pixels = gray.astype(np.float64)
        brightness = pixels.mean()
        centred = pixels - brightness
        variance = float((centred**2).mean()) + 1e-6  # never 0
        contrast = variance**0.5
        sharpness = float(cv2.Laplacian(pixels, cv2.CV_64F).var()) / variance
        symmetry = float((centred * centred[:, ::-1]).mean()) / variance
        rows.append((brightness, sharpness, contrast, symmetry))
    return np.array(rows)


def _levels(properties: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the levels of properties (N, properties): -1 for the fifth with the lowest values, 1 highest, else 0."""
    low, high = np.quantile(properties, [_EXTREME_SHARE, 1 - _EXTREME_SHARE], axis=0)
    levels: NDArray[np.int64] = (properties > high).astype(np.int64) - (properties < low).astype(np.int64)
    return levels


@cache
def _templates(file: Path) -> dict[str, Any]:
    """Return templates and words of captions, by kind."""
    forms: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return forms


def _pick(items: Sequence[_Item], generator: np.random.Generator) -> _Item:
    """Return a random item."""
    return items[int(generator.integers(len(items)))]
