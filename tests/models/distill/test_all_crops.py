"""With the views "all-crops", each training crop has the teacher's outputs for exactly that crop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.errors import InputError
from edgekit.models.data import DataSet
from edgekit.models.data.augment import Augmentation, augment, crop_number, draw
from edgekit.models.data.fer2013 import SIDE_PX
from edgekit.models.distill.cache import distillation_targets
from edgekit.models.distill.losses import LossWeights
from edgekit.models.distill.task import DistillationConfig, DistillationTask, check_views
from edgekit.models.distill.teachers import Teacher, TeacherOutputs, ensemble
from edgekit.models.distill.views import cut_views, view_count
from edgekit.models.distill.votes import VotePowers, with_votes
from edgekit.models.model_loading import contract_for
from edgekit.models.training.recipes import RECIPES, Finish

CROPS = Augmentation(crop_px=44)


def pixel_teacher(sha256: str = "a" * 64) -> Teacher:
    """Return a teacher whose outputs depend on the value and the position of each pixel."""
    weights = np.random.default_rng(int(sha256[0], 16)).normal(size=(44 * 44, 7)).astype(np.float32)

    def predict(crops: np.ndarray) -> TeacherOutputs:
        rows = [crop.reshape(1, -1).astype(np.float32) / 255 @ weights for crop in crops]  # one by one: equal rounding
        return TeacherOutputs(np.concatenate(rows))

    return Teacher("classifier", "pixels", tuple("abcdefg"), sha256, predict, share_hw=(11 / 12, 11 / 12))


def random_images(count: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, SIDE_PX, SIDE_PX, 1), dtype=np.uint8)


def every_view(count: int) -> torch.Tensor:
    """Return random numbers that draw each of the 50 crops for each of `count` images, in the order of the views."""
    numbers = draw(50 * count, torch.Generator().manual_seed(0), CROPS)
    view = torch.arange(50).repeat(count)
    numbers[:, 0], numbers[:, 1] = (view // 10 + 0.5) / 5, (view // 2 % 5 + 0.5) / 5
    numbers[:, 2] = torch.where(view % 2 == 1, 0.25, 0.75)
    return numbers


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_the_crops_that_augmentation_cuts(channels: int) -> None:
    images = random_images(2 * channels).reshape(2, channels, SIDE_PX, SIDE_PX).transpose(0, 2, 3, 1)
    views = cut_views(images, "all-crops", (1.0, 1.0))
    assert views.shape == (2, view_count("all-crops", (48, 48)), 44, 44, channels) == (2, 50, 44, 44, channels)
    numbers = every_view(2)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).repeat_interleave(50, dim=0)
    crops = augment(batch, numbers, CROPS).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    assert (crops == views.reshape(-1, 44, 44, channels)).all()
    assert crop_number(numbers, (48, 48), CROPS).tolist() == [*range(50)] * 2


def test_the_target_of_a_crop_is_the_teachers_output_for_it(bars: DataSet, tmp_path: Path) -> None:
    training = bars.splits["Training"].subset(np.arange(3))
    teacher = pixel_teacher()
    targets = distillation_targets(teacher, training.images, "all-crops", tmp_path)
    assert targets.logits.shape == (3, 50, 7)
    contract = contract_for("mini-xception", bars.classes, bars.name, gray=True)
    recipe = RECIPES["fer2013-finish"]
    config = DistillationConfig(LossWeights(1, 0, 0), 1.0, "all-crops")
    task = DistillationTask(contract, recipe, training, bars.splits["PublicTest"], teacher, config, targets)
    task.build(torch.device("cpu"))
    indices, numbers = torch.arange(3).repeat_interleave(50), every_view(3)
    images = task.augmented(indices, numbers)
    crops = images[:, :1].mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    found = task._teacher_batch(indices, numbers, images).logits.numpy()
    assert (found == teacher.predict(crops).logits).all()
    assert len(np.unique(found, axis=0)) > 60, "the views differ"


def test_the_cache_is_read_again_and_members_and_votes_combine_per_view(tmp_path: Path) -> None:
    images = random_images(3)
    first, second = pixel_teacher(), pixel_teacher("b" * 64)
    both = distillation_targets(ensemble([first, second]), images, "all-crops", tmp_path)

    def fail(_: np.ndarray) -> TeacherOutputs:
        raise AssertionError("the cache is complete")

    single = [
        distillation_targets(dataclasses.replace(each, predict=fail), images, "all-crops", tmp_path).logits
        for each in (first, second)
    ]
    soft = [torch.from_numpy(logits).softmax(dim=-1) for logits in (*single, both.logits)]
    torch.testing.assert_close(soft[2], (soft[0] + soft[1]) / 2)
    posteriors = np.random.default_rng(0).dirichlet(np.ones(7), 3).astype(np.float32)
    posteriors[2] = 0  # no votes
    prior = np.full(7, 1 / 7, np.float32)
    combined = with_votes(both, posteriors, prior, VotePowers()).logits
    for view in (0, 37):
        alone = with_votes(TeacherOutputs(both.logits[:, view]), posteriors, prior, VotePowers()).logits
        assert np.allclose(combined[:, view], alone, atol=1e-6)


@pytest.mark.parametrize("name", ["fer2013", "camera", "fer2013-start"])
def test_recipes_that_do_more_than_crop_and_flip_are_refused(name: str, bar_teacher: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="views all-crops need a recipe that only crops and flips"):
        check_views("all-crops", RECIPES[name], pixel_teacher())
    check_views("center-flip", RECIPES[name], pixel_teacher())
    check_views("all-crops", RECIPES["fer2013-finish"], pixel_teacher())
    moved = dataclasses.replace(CROPS, cutout_px=4, cutout_probability=0.5)
    finish = dataclasses.replace(RECIPES["fer2013-finish"], finish=Finish(0.5, 0.1, moved))
    with pytest.raises(InputError, match="only crops and flips"):
        check_views("all-crops", finish, pixel_teacher())
    with pytest.raises(InputError, match="for teachers without embeddings"):
        check_views("all-crops", RECIPES["fer2013-finish"], bar_teacher(embeds=True).teacher())
