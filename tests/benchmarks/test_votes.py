"""Targets from FER+ votes, alone and together with a teacher."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from edgekit.models.distill.teachers import TeacherOutputs
from edgekit.preprocess import softmax
from tests.ferplus import votes_for

LOGITS = np.array([[2.0, 1.0, 0.0]], np.float32)
PRIOR = np.array([0.5, 0.3, 0.2], np.float32)


@pytest.fixture
def votes(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("votes")


def test_the_posterior_is_how_often_a_label_goes_with_the_votes(votes: ModuleType) -> None:
    divided, clear = votes_for(fear=5, surprise=5), votes_for(happiness=9, unknown=1)
    counts = np.array([divided] * 40 + [clear] * 20, np.float32)
    targets = votes.posteriors(counts, np.array([2] * 30 + [5] * 10 + [3] * 20))
    assert targets.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert targets[0, [2, 5]] == pytest.approx([0.75, 0.25], abs=0.02)
    assert (targets[40:].argmax(axis=1) == 3).all()


def test_votes_that_say_nothing_new_leave_the_teachers_order_and_others_change_it(votes: ModuleType) -> None:
    def both(posterior: list[float]) -> np.ndarray:
        return softmax(votes.with_votes(TeacherOutputs(LOGITS), np.array([posterior], np.float32), PRIOR).logits)

    assert both([0.5, 0.3, 0.2]).argmax() == 0
    assert both([0.01, 0.98, 0.01]).argmax() == 1
    np.testing.assert_allclose(both([0, 0, 0]), softmax(LOGITS), rtol=1e-5)
