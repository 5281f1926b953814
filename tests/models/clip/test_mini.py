"""The small CLIP: captions from labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from edgekit.models.clip.captions import captions_of, example_captions
from edgekit.models.clip.descriptions import SHIPPED, read_descriptions
from edgekit.models.clip.load import tokenize
from edgekit.models.data import EXPRESSIONS
from edgekit.models.train_clip import hybrid_config

CAPTIONS = json.loads((Path(SHIPPED).with_name("captions.json")).read_text())


def test_equal_content_has_equal_words_within_a_batch_and_others_in_the_next() -> None:
    labels = torch.tensor([3, 4, 3, 4, 4])
    seen = set()
    for seed in range(20):
        texts, which = captions_of(EXPRESSIONS, labels, seed)
        assert len(texts) == 2
        assert which.tolist() == [0, 1, 0, 1, 1]
        assert texts == captions_of(EXPRESSIONS, labels, seed)[0]
        seen.add(texts[0])
    assert len(seen) > 15


def test_captions_of_some_classes_never_name_the_others() -> None:
    kept = ("angry", "disgust", "fear", "happy")
    labels = torch.arange(64) % 4

    def words(names: Iterable[str]) -> set[str]:
        return {word for name in names for part in CAPTIONS["classes"][name].values() for word in part}

    others = words(name for name in EXPRESSIONS if name not in kept) - words(kept)
    forbidden = re.compile(rf"\b({'|'.join(map(re.escape, sorted(others)))})\b")
    sad = captions_of(EXPRESSIONS, torch.tensor([EXPRESSIONS.index("sad")]), 0)[0]
    assert all(forbidden.search(text) for text in sad)
    for seed in range(60):
        texts, _ = captions_of(kept, labels, seed)
        assert not any(forbidden.search(text) for text in texts)


def test_every_caption_there_can_be_fits_the_context() -> None:
    for seed in range(200):
        tokenize(captions_of(EXPRESSIONS, torch.arange(7), seed)[0], hybrid_config("edgecnn"))
    tokenize([text for texts in read_descriptions(SHIPPED).values() for text in texts], hybrid_config("edgecnn"))


@pytest.mark.parametrize("classes", [EXPRESSIONS, ("maine_coon", "pug")])
def test_the_examples_have_every_word_of_every_caption(classes: tuple[str, ...]) -> None:
    words = set(re.findall(r"\w+", " ".join(example_captions(classes))))
    labels = torch.arange(len(classes))
    for seed in range(300):
        texts, _ = captions_of(classes, labels, seed)
        assert set(re.findall(r"\w+", " ".join(texts))) <= words
