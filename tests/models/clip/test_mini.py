"""The small CLIP: captions from labels and votes, pretraining, and a loss for batches with equal captions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from edgekit.errors import InputError
from edgekit.models.clip.architecture import Tower
from edgekit.models.clip.captions import captions_of, example_captions
from edgekit.models.clip.contrastive import contrastive_loss
from edgekit.models.clip.descriptions import SHIPPED, descriptions_for, read_descriptions
from edgekit.models.clip.frozen import tokenize
from edgekit.models.clip.load import load_clip
from edgekit.models.clip.mini import CLIP_MINI, MiniClipTask
from edgekit.models.data import EXPRESSIONS, DataSet
from edgekit.models.data.augment import Augmentation, augment
from edgekit.models.training.loop import BEST_NAME
from edgekit.models.training.recipes import RECIPES
from edgekit.models.training.task import TrainingJob
from tests.resuming import job_of, train_whole_and_resumed

SMALL = replace(CLIP_MINI, patch_size_px=16, vision=Tower(64, 2, 1), text=Tower(32, 2, 1), embed_dim=32)
RECIPE = replace(RECIPES["clip-mini"], epochs=2, batch_size=28, augmentation=Augmentation(48, translation=0.05))
CAPTIONS = json.loads((Path(SHIPPED).with_name("captions.json")).read_text())


def job(data: DataSet, epochs: int = 2) -> TrainingJob:
    recipe = replace(RECIPE, epochs=epochs, ema_decay=0.5)
    training, validation = data.splits["Training"], data.splits["PublicTest"]
    task = MiniClipTask(SMALL, data.classes, descriptions_for(data.classes), recipe, training, validation, data.name)
    return job_of(task, recipe, data_sha256=data.checksum())


def test_equal_captions_are_soft_targets_to_open_clips_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    which = torch.tensor([0, 1, 0, 2, 0, 1])
    image = F.normalize(torch.randn(6, 8, generator=generator), dim=1).requires_grad_()
    text = F.normalize(torch.randn(3, 8, generator=generator), dim=1).requires_grad_()
    scale = torch.tensor(9.0)
    contrastive_loss()(image, text[which], scale).backward()

    own_image, own_text = image.detach().clone().requires_grad_(), text.detach().clone().requires_grad_()
    logits = scale * own_image @ own_text[which].T
    same = (which[:, None] == which[None, :]).float()
    shares = same / same.sum(dim=1, keepdim=True)
    ((F.cross_entropy(logits, shares) + F.cross_entropy(logits.T, shares)) / 2).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(image.grad, own_image.grad)
    torch.testing.assert_close(text.grad, own_text.grad)


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
        tokenize(captions_of(EXPRESSIONS, torch.arange(7), seed)[0], CLIP_MINI)
    tokenize([text for texts in read_descriptions(SHIPPED).values() for text in texts], CLIP_MINI)


def test_captions_of_other_classes_contain_their_names() -> None:
    texts, which = captions_of(("maine_coon", "pug"), torch.tensor([0, 1, 0]), 1)
    assert "maine coon" in texts[0]
    assert "pug" in texts[1]
    assert which.tolist() == [0, 1, 0]


@pytest.mark.parametrize("classes", [EXPRESSIONS, ("maine_coon", "pug")])
def test_the_examples_have_every_word_of_every_caption(classes: tuple[str, ...]) -> None:
    words = set(re.findall(r"\w+", " ".join(example_captions(classes))))
    labels = torch.arange(len(classes))
    for seed in range(300):
        texts, _ = captions_of(classes, labels, seed)
        assert set(re.findall(r"\w+", " ".join(texts))) <= words


def test_captions_and_descriptions_are_not_the_same_sentences() -> None:
    described = {text for texts in read_descriptions(SHIPPED).values() for text in texts}
    traits = {trait for words in CAPTIONS["classes"].values() for trait in words["traits"]}
    assert set(CAPTIONS["classes"]) == set(EXPRESSIONS)
    assert not described & traits


def test_pretraining_learns_resumes_bit_for_bit_and_gives_a_clip(bars: DataSet, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train_whole_and_resumed(lambda: job(bars, 4), tmp_path, interrupted_after=6)  # in the third epoch
    finally:
        torch.set_num_threads(threads)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    clip = load_clip(tmp_path / "whole" / BEST_NAME)
    assert clip.config == SMALL
    assert float(clip.logit_scale) <= 100
    assert not any(parameter.requires_grad for parameter in clip.parameters())


def test_random_numbers_of_a_batch_share_one_phrasing(bars: DataSet) -> None:
    numbers = job(bars).task.draw(8, torch.Generator().manual_seed(0))
    assert len(set(numbers[:, -1].tolist())) == 1
    assert len(set(numbers[:, -2].tolist())) == 8


def test_shifts_go_beyond_the_crops_room() -> None:
    images = torch.zeros(1, 1, 48, 48, dtype=torch.uint8)
    images[..., 24:] = 255
    numbers = torch.full((1, 11), 0.5)
    numbers[0, 1] = 0.999  # the largest shift to the right
    moved = augment(images, numbers, Augmentation(48, flip=False, translation=0.25))
    assert np.isclose(float(moved[0, 0, 0].mean()), 0.75, atol=0.02)  # a quarter of the side
    still = augment(images, numbers, Augmentation(48, flip=False, rotation_deg=1e-9))
    assert float(still[0, 0, 0].mean()) == pytest.approx(0.5, abs=1e-3)


def test_a_recipe_for_other_sizes_is_refused(bars: DataSet) -> None:
    recipe = RECIPES["fer2013"]
    training = bars.splits["Training"]
    with pytest.raises(InputError, match="crops images to 44 px, the CLIP takes 48"):
        MiniClipTask(SMALL, bars.classes, descriptions_for(bars.classes), recipe, training, training, bars.name)
