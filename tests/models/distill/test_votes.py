"""Combined targets of a teacher and FER+ votes."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.models.data.balance import class_shares
from edgekit.models.distill.targets import with_votes
from edgekit.models.distill.teachers import TeacherOutputs
from edgekit.preprocess import softmax

PRIOR = np.array([0.5, 0.25, 0.25], np.float32)
LOGITS = np.log(np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], np.float32)) + 3


def both(posteriors: list[list[float]]) -> np.ndarray:
    return softmax(with_votes(TeacherOutputs(LOGITS), np.array(posteriors, np.float32), PRIOR).logits)


def test_the_product_is_that_of_powers_of_the_probabilities_over_the_prior() -> None:
    found = both([[0.1, 0.8, 0.1], [0.5, 0.25, 0.25]])
    product = np.array([0.5, 0.3, 0.2]) ** 0.7 * np.array([0.1 / 0.5, 0.8 / 0.25, 0.1 / 0.25]) ** 0.5
    assert found[0] == pytest.approx(product / product.sum(), abs=1e-6)
    # Votes equal to the prior change only how sure the teacher is.
    alone = np.array([0.2, 0.2, 0.6]) ** 0.7
    assert found[1] == pytest.approx(alone / alone.sum(), abs=1e-6)


def test_without_votes_the_teacher_alone_counts() -> None:
    found = both([[0, 0, 0], [1, 0, 0]])
    assert found[0] == pytest.approx(softmax(LOGITS)[0], abs=1e-6)
    assert np.isfinite(found).all()
    assert found[1].argmax() == 0


def test_shares_count_known_labels_only() -> None:
    assert class_shares(np.array([0, 0, 1, -1]), 3) == pytest.approx([2 / 3, 1 / 3, 0])
