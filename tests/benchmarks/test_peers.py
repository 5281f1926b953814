"""Scores of the comparison with other programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import ModuleType

import pytest


def test_a_missed_face_counts_as_wrong(load: Callable[[str], ModuleType]) -> None:
    score = load("peers").score
    result = score(["happy", "sad", "fear"], ["happy", "happy", "fear"], Counter({"sad": 1}))
    assert (result["correct"], result["total"]) == (2, 4)
    assert result["mean_recall"] == pytest.approx((1 / 2 + 0) / 2)
    low, high = result["interval"]
    assert 0.1 < low < 0.5 < high < 0.9
