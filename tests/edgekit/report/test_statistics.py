"""Statistics of latencies: intervals of medians and ratios, stable warm-ups, histograms."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.report.statistics import (
    MIN_PROCESSES,
    Samples,
    histogram,
    is_stable,
    median_interval,
    ratio_interval,
    student_t,
)

TRUE_MS = 2.0


def processes(random: np.random.Generator, count: int, between: float, within: float) -> list[Samples]:
    """Return autocorrelated latencies of processes with different medians around `TRUE_MS`."""
    made = []
    for _ in range(count):
        noise = np.empty(60)
        state = 0.0
        for index in range(noise.size):
            state = 0.6 * state + random.normal() * within
            noise[index] = state
        made.append(TRUE_MS * np.exp(random.normal() * between + noise))
    return made


def test_processes_that_differ_count_more_than_iterations_that_agree() -> None:
    apart = [np.full(10_000, value) for value in (1.0, 1.1, 1.2)]
    interval = median_interval(apart)
    assert interval is not None
    assert interval[0] < 1.0
    assert interval[1] > 1.2


def test_an_interval_needs_three_processes_and_repeats() -> None:
    samples = processes(np.random.default_rng(2), 3, 0.01, 0.01)
    assert MIN_PROCESSES == 3
    assert median_interval(samples[:2]) is None
    assert median_interval(samples) == median_interval(samples)


def test_a_ratio_holds_the_truth_and_is_wider_than_either_interval() -> None:
    low, high = ratio_interval(2.0, (1.9, 2.1), 3.0, (2.9, 3.1))
    assert low < 1.5 < high
    assert low == pytest.approx(1.5 / np.exp(np.hypot(np.log(3 / 2.9), np.log(2.1 / 2))))
    assert ratio_interval(2.0, (2.0, 2.0), 3.0, (3.0, 3.0)) == pytest.approx((1.5, 1.5))


@pytest.mark.slow
def test_comparisons_of_the_same_thing_seldom_see_a_difference() -> None:
    random = np.random.default_rng(3)
    seen = 0
    for trial in range(25):
        measured = []
        for _ in range(2):
            samples = processes(random, 3, 0.01, 0.01)
            interval = median_interval(samples, trial)
            assert interval is not None
            measured += [float(np.median(np.concatenate(samples))), interval]
        low, high = ratio_interval(*measured)  # type: ignore[arg-type]
        seen += not low <= 1 <= high
    assert seen <= 3


@pytest.mark.parametrize(
    ("medians", "stable"),
    [
        ([1.0, 1.0], False),
        ([1.0, 1.01, 1.02], True),
        ([1.2, 1.0, 1.0], False),
        ([9, 1.0, 1.01, 1.0], True),
        ([], False),
    ],
)
def test_a_warm_up_is_over_when_three_windows_agree(medians: list[float], stable: bool) -> None:
    assert is_stable(medians) == stable


def test_a_histogram_counts_every_sample_once() -> None:
    samples = np.concatenate([np.linspace(1, 2, 990), np.full(10, 50.0)])
    bins = histogram(samples)
    assert sum(bins.counts) + bins.above == samples.size
    assert (bins.low_ms, bins.above) == (1.0, 10)
    flat = histogram(np.full(5, 3.0))
    assert sum(flat.counts) == 5
    assert flat.high_ms > flat.low_ms


def test_students_t_is_the_tables() -> None:
    assert (student_t(2), student_t(30), student_t(1000)) == (4.303, 2.042, 1.960)
