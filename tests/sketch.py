"""Figures that stand for an array in tests/fixtures/golden."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, np.dtype[Any]]


def sketch(array: Array) -> list[float]:
    """Return two projections of the values on fixed random directions."""
    directions = np.random.default_rng(0).standard_normal((2, array.size))
    return [float(f"{value:.8g}") for value in directions @ array.ravel().astype(np.float64)]


def check_sketch(name: str, array: Array, expected: list[float], atol: float) -> None:
    """Compare an array with the sketch of the expected array; `atol` is the tolerance of a value."""
    assert sketch(array) == pytest.approx(expected, rel=1e-7, abs=atol * math.sqrt(array.size)), name
