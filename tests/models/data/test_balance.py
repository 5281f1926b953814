"""Balanced sampling gives each class the same total weight."""

from __future__ import annotations

import torch

from edgekit.models.training.task import balanced_order

LABELS = torch.tensor([0] * 60 + [1] * 5 + [3] * 36)


def test_each_class_is_drawn_equally_often() -> None:
    order = balanced_order(LABELS, torch.Generator().manual_seed(3))
    assert len(order) == len(LABELS)
    assert order.dtype == torch.int64
    counts = torch.bincount(LABELS[order], minlength=4).tolist()
    assert sorted(counts) == [0, 33, 34, 34]


def test_all_images_of_a_rare_class_come_before_one_comes_again() -> None:
    order = balanced_order(LABELS, torch.Generator().manual_seed(3))
    times = torch.bincount(order, minlength=len(LABELS))
    assert times[:60].max() == 1
    assert times[60:65].min() >= 6
    assert times[60:65].max() <= 7


def test_classes_are_mixed_and_the_seed_decides() -> None:
    first, again, other = (balanced_order(LABELS, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    halves = LABELS[first[:50]].bincount(minlength=4)
    assert (halves[[0, 1, 3]] > 8).all()
