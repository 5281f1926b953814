"""The small CLIP: captions from labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.models.clip.captions import captions_of, example_captions
from edgekit.models.clip.descriptions import SHIPPED, read_descriptions
from edgekit.models.clip.load import tokenize
from edgekit.models.data import EXPRESSIONS
from edgekit.models.data.augment import Augmentation, augment
from edgekit.models.data.camera import Camera
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


def test_shifts_go_beyond_the_crops_room() -> None:
    images = torch.zeros(1, 1, 48, 48, dtype=torch.uint8)
    images[..., 24:] = 255
    numbers = torch.full((1, 21), 0.5)
    numbers[0, 1] = 0.999  # the largest shift to the right
    moved = augment(images, numbers, Augmentation(48, flip=False, camera=Camera(probability=1, framing_shift=0.25)))
    assert np.isclose(float(moved[0, 0, 0].mean()), 0.75, atol=0.02)  # a quarter of the side
    still = augment(images, numbers, Augmentation(48, flip=False, rotation_deg=1e-9))
    assert float(still[0, 0, 0].mean()) == pytest.approx(0.5, abs=1e-3)
