"""The terms of the distillation loss equal values computed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from edgekit.errors import InputError
from edgekit.models.distill.distillation import LossWeights, kl_divergence, loss_weights

HALF = torch.zeros(1, 2)
QUARTER = torch.tensor([[0.0, math.log(3)]])  # softmax 1/4, 3/4


def test_divergence_is_the_one_computed_by_hand() -> None:
    # 1/2 ln((1/2) / (1/4)) + 1/2 ln((1/2) / (3/4))
    assert kl_divergence(QUARTER, HALF, 1.0).item() == pytest.approx(0.5 * math.log(4 / 3))
    # 1/4 ln((1/4) / (1/2)) + 3/4 ln((3/4) / (1/2)): the teacher's probabilities are the weights.
    assert kl_divergence(HALF, QUARTER, 1.0).item() == pytest.approx(0.75 * math.log(3) - math.log(2))


def test_temperature_divides_the_logits_and_its_square_multiplies_the_result() -> None:
    assert kl_divergence(2 * QUARTER, HALF, 2.0).item() == pytest.approx(4 * 0.5 * math.log(4 / 3))


def test_a_student_that_agrees_has_nothing_to_learn() -> None:
    logits = torch.randn(5, 7, requires_grad=True)
    loss = kl_divergence(logits, logits.detach() + 3, 2.0).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-5


def test_weights_depend_on_whether_the_teacher_has_a_space(bar_teacher: Callable[..., Any]) -> None:
    plain, clip = bar_teacher().teacher(), bar_teacher(embeds=True).teacher()
    assert loss_weights(plain, None, None, None) == LossWeights(1.0, 0.1, 0.0)
    assert loss_weights(clip, None, None, None) == LossWeights(1.0, 0.0, 1.0)
    assert loss_weights(clip, 0, 0.5, 0) == LossWeights(0, 0.5, 0)
    with pytest.raises(InputError, match="has no embeddings"):
        loss_weights(plain, None, None, 0.5)
    with pytest.raises(InputError, match="all weights of the loss are 0"):
        loss_weights(plain, 0, 0, None)
