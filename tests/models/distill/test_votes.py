"""Combined targets of a teacher and FER+ votes."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import InputError
from edgekit.models.data.balance import class_shares
from edgekit.models.distill.teachers import TeacherOutputs
from edgekit.models.distill.votes import VotePowers, with_votes
from edgekit.preprocess import softmax

PRIOR = np.array([0.5, 0.25, 0.25], np.float32)
LOGITS = np.log(np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], np.float32)) + 3


def both(posteriors: list[list[float]], powers: VotePowers) -> np.ndarray:
    return softmax(with_votes(TeacherOutputs(LOGITS), np.array(posteriors, np.float32), PRIOR, powers).logits)


def test_the_product_is_that_of_probabilities_over_the_prior() -> None:
    found = both([[0.1, 0.8, 0.1], [0.5, 0.25, 0.25]], VotePowers(1, 1))
    product = np.array([0.5 * 0.1 / 0.5, 0.3 * 0.8 / 0.25, 0.2 * 0.1 / 0.25])
    assert found[0] == pytest.approx(product / product.sum(), abs=1e-6)
    # Votes equal to the prior change nothing.
    assert found[1] == pytest.approx([0.2, 0.2, 0.6], abs=1e-6)


def test_a_power_of_zero_takes_one_of_them_out() -> None:
    votes = [[0.1, 0.8, 0.1]] * 2
    assert both(votes, VotePowers(1, 0)) == pytest.approx(softmax(LOGITS), abs=1e-6)
    assert np.ptp(both(votes, VotePowers(0, 1)), axis=0) == pytest.approx(0, abs=1e-6)


def test_without_votes_the_teacher_alone_is_heard() -> None:
    found = both([[0, 0, 0], [1, 0, 0]], VotePowers())
    assert found[0] == pytest.approx(softmax(LOGITS)[0], abs=1e-6)
    assert np.isfinite(found).all()
    assert found[1].argmax() == 0


def test_shares_count_known_labels_only() -> None:
    assert class_shares(np.array([0, 0, 1, -1]), 3) == pytest.approx([2 / 3, 1 / 3, 0])


@pytest.mark.parametrize("powers", [(-1.0, 0.5), (0.7, float("nan")), (0.7, 11.0)])
def test_powers_that_make_no_sense_are_refused(powers: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="-power is"):
        VotePowers(*powers)
