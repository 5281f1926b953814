"""Captions from FER+ votes: shares of expressions, contempt, and image properties such as sharpness."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from edgekit.models.clip.captions import (
    CONTEMPT,
    Contents,
    captions_of_votes,
    contents_of,
    example_vote_captions,
    expression_words,
)
from edgekit.models.clip.descriptions import SHIPPED
from edgekit.models.clip.load import tokenize
from edgekit.models.data import EXPRESSIONS
from edgekit.models.data.ferplus import COLUMNS
from edgekit.models.train_clip import caption_loss, hybrid_config

FORMS = json.loads(Path(SHIPPED).with_name("vote_captions.json").read_text())
WORDS = {**expression_words(), CONTEMPT: FORMS[CONTEMPT]}
PLAIN = np.full((1, 48, 48, 1), 128, np.uint8)


def votes_for(**counts: int) -> np.ndarray:
    return np.array([[counts.get(name, 0) for name in COLUMNS]], np.float32)


def named(text: str) -> set[str]:
    """Return the expressions whose words occur in a text."""
    return {
        name
        for name, words in WORDS.items()
        if re.search(rf"\b({'|'.join([*words['adjectives'], *words['nouns']])})\b", text)
    }


def captions(contents: Contents, seeds: int = 60) -> set[str]:
    uniform = torch.full((len(contents.shares),), 0.5)
    indices = torch.arange(len(contents.shares))
    return {text for seed in range(seeds) for text in captions_of_votes(contents, indices, uniform, seed)[0]}


def test_shares_are_those_of_label_and_votes_without_single_votes() -> None:
    votes = votes_for(sadness=4, contempt=4, neutral=1, NF=1)
    contents = contents_of(EXPRESSIONS, np.array([EXPRESSIONS.index("sad")]), votes, PLAIN)
    assert contents.names == (*EXPRESSIONS, CONTEMPT)
    expected = torch.zeros(8)
    expected[EXPRESSIONS.index("sad")], expected[7] = 0.75, 0.25
    torch.testing.assert_close(contents.shares[0], expected)


def test_captions_state_the_sizes_of_the_shares() -> None:
    sad = EXPRESSIONS.index("sad")

    def graded(share: float) -> set[str]:
        shares = torch.zeros(1, 7)
        shares[0, sad], shares[0, EXPRESSIONS.index("fear")] = 1 - share, share
        return captions(Contents(EXPRESSIONS, shares, torch.zeros(1, 4).long()))

    def has_form(texts: set[str], form: str) -> bool:
        patterns = [re.escape(part).replace(r"\{\}", ".*") for part in FORMS[form]]
        return any(re.search(pattern, text) for text in texts for pattern in patterns)

    assert not any("fear" in named(text) for text in graded(0.05))
    assert any(named(text) == {"sad", "fear"} for text in graded(0.2))
    assert any(named(text) == {"sad", "fear"} for text in graded(0.45))
    assert has_form(graded(0.45), "between")
    assert not has_form(graded(0.2), "between")
    assert has_form(graded(0.05), "sure")


def test_contempt_is_named_only_with_all_expressions() -> None:
    votes = votes_for(contempt=8)
    whole = contents_of(EXPRESSIONS, np.array([0]), votes, PLAIN)
    assert any(CONTEMPT in named(text) for text in captions(whole))
    part = contents_of(EXPRESSIONS[:4], np.array([0]), votes, PLAIN)
    assert all(named(text) == {"angry"} for text in captions(part))


def test_captions_of_some_classes_never_name_the_others() -> None:
    kept = EXPRESSIONS[:4]
    votes = np.tile(votes_for(sadness=5, anger=5), (8, 1))
    contents = contents_of(kept, np.arange(8) % 4, votes, np.repeat(PLAIN, 8, axis=0))
    assert all(named(text) <= set(kept) for text in captions(contents))


def test_looks_are_those_of_the_picture() -> None:
    generator = np.random.default_rng(0)
    sharp = generator.integers(60, 200, (10, 48, 48, 1), np.uint8)
    images = sharp.copy()
    images[0] = cv2.GaussianBlur(sharp[0], (0, 0), 3)[..., None]
    images[1] = sharp[1] // 4
    images[2] = np.linspace(0, 255, 48).astype(np.uint8)[None, :, None]  # dark on the left, bright on the right
    contents = contents_of(EXPRESSIONS, np.zeros(10, np.int64), np.tile(votes_for(anger=5), (10, 1)), images)
    names = list(FORMS["looks"])
    levels = contents.properties
    assert levels[0, names.index("sharpness")] == -1
    assert levels[1, names.index("brightness")] == -1
    assert levels[2, names.index("symmetry")] == -1
    texts = captions(Contents(contents.names, contents.shares[1:2], levels[1:2]))
    assert any(text.endswith(tuple(FORMS["looks"]["brightness"][0])) for text in texts)
    assert not any(text.endswith(tuple(FORMS["looks"]["brightness"][1])) for text in texts)


def test_every_caption_fits_the_context() -> None:
    shares = torch.softmax(3 * torch.randn(200, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    looks = torch.randint(-1, 2, (200, 4), generator=torch.Generator().manual_seed(1))
    every = captions(Contents((*EXPRESSIONS, CONTEMPT), shares, looks), 40)
    tokenize(sorted(every), hybrid_config("edgecnn"))
    examples = " ".join(example_vote_captions((*EXPRESSIONS, CONTEMPT)))
    assert set(re.findall(r"\w+", " ".join(every))) <= set(re.findall(r"\w+", examples))


def test_the_loss_of_captions_counts_each_caption_once() -> None:
    """For fixed, equal image features, the loss is lowest if the similarities are the logs of the frequencies."""
    image = F.normalize(torch.ones(4, 1), dim=1)
    which = torch.tensor([0, 0, 0, 1])

    def loss(gap: float) -> float:
        distinct = torch.tensor([[gap], [0.0]])
        return float(caption_loss(image, distinct, which, torch.tensor(1.0)))

    gaps = np.linspace(-1, 3, 401)
    best = gaps[int(np.argmin([loss(float(gap)) for gap in gaps]))]
    assert best == pytest.approx(np.log(3), abs=0.02)
