"""Histogram and median interval of latencies; interval of a fraction.

Iterations of one process are not independent: they share a memory layout, a processor and a moment. The interval of a
median therefore comes from several processes, by a block bootstrap in two stages: processes are resampled with
replacement, and within each of them blocks of consecutive iterations. The standard deviation of the resampled medians
is the standard error. Resampling n processes underestimates the variance by (n - 1) / n, which is corrected. Half of
the interval is the standard error times Student's t for n - 1 degrees of freedom, because the standard error is itself
an estimate. All of this is computed on the logarithms of the latencies, because speeds differ by factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgekit.report.document import Histogram, Interval

Samples: TypeAlias = NDArray[np.float64]

MIN_PROCESSES = 3
BINS = 40

_REPLICATES = 400
# 97.5 % points of Student's t by degrees of freedom; beyond the last, that of the normal distribution is used.
_T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL_975 = 1.960


def histogram(samples_ms: Samples) -> Histogram:
    """Return the histogram from the smallest sample to the 99th percentile, so that an outlier does not flatten it."""
    low, high = float(samples_ms.min()), float(np.percentile(samples_ms, 99))
    if high <= low:  # all samples are equal, but bins need a width
        high = low + max(low, 1.0) * 1e-3
    counts, _ = np.histogram(samples_ms, bins=BINS, range=(low, high))
    return Histogram(low_ms=low, high_ms=high, counts=tuple(map(int, counts)), above=int((samples_ms > high).sum()))


def median_interval(processes_ms: Sequence[Samples], seed: int = 0) -> Interval | None:
    """Return the 95 % interval of the median latency, or None for fewer than `MIN_PROCESSES` processes.

    A bootstrap in two stages: processes are drawn with replacement, then blocks of consecutive latencies within each of
    them. The spread of the medians of all draws is the standard error of the median.

    Args:
        processes_ms: The latencies of each process in the order they were measured; not empty, all above 0.
        seed: Seed of the resampling; the same samples give the same interval.
    """
    count = len(processes_ms)
    if count < MIN_PROCESSES:
        return None
    random = np.random.default_rng(seed)
    log_samples = [np.log(samples) for samples in processes_ms]  # on logarithms, because speeds differ by factors
    medians = np.empty(_REPLICATES)
    for replicate in range(_REPLICATES):
        drawn = [log_samples[index] for index in random.integers(0, count, size=count)]
        medians[replicate] = np.median(np.concatenate([_resampled(samples, random) for samples in drawn]))
    # Resampling n processes underestimates the variance by the factor (n - 1) / n.
    standard_error = float(medians.std()) * math.sqrt(count / (count - 1))
    median = float(np.median(np.concatenate(log_samples)))
    half_interval = student_t(count - 1) * standard_error
    return math.exp(median - half_interval), math.exp(median + half_interval)


def student_t(degrees_of_freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t for 1 or more degrees of freedom."""
    return _T_975[degrees_of_freedom - 1] if degrees_of_freedom <= len(_T_975) else _NORMAL_975


def ratio_interval(before: float, before_interval: Interval, after: float, after_interval: Interval) -> Interval:
    """Return the 95 % interval of the ratio `after / before`, from both values and their 95 % intervals, all above 0.

    On each side, the distances between estimate and limit add in quadrature, on logarithms (MOVER; Zou and Donner,
    Statistics in Medicine 27, 2008).
    """
    before_low, before_high = before_interval
    after_low, after_high = after_interval
    log_ratio = math.log(after / before)
    # The ratio is lowest where `after` is low and `before` is high.
    distance_down = math.hypot(math.log(after / after_low), math.log(before_high / before))
    distance_up = math.hypot(math.log(after_high / after), math.log(before / before_low))
    return math.exp(log_ratio - distance_down), math.exp(log_ratio + distance_up)


def is_stable(window_medians_ms: Sequence[float]) -> bool:
    """Return whether the medians of the last three windows of a warm-up differ by no more than 3 %."""
    last = window_medians_ms[-3:]
    return len(last) == 3 and max(last) <= min(last) * 1.03


def _resampled(samples: Samples, random: np.random.Generator) -> Samples:
    """Return a bootstrap sample of the same size, made of blocks of consecutive samples.

    Blocks keep the correlation of neighbours. A block that reaches the end of the samples continues at their beginning.
    """
    size = samples.size
    block_size = max(1, round(math.sqrt(size)))
    starts = random.integers(0, size, size=math.ceil(size / block_size))
    indices = starts[:, None] + np.arange(block_size)  # (number of blocks, block_size); may exceed `size`
    resampled: Samples = samples[indices.ravel()[:size] % size]
    return resampled


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a fraction, 0..1.

    Source: Wilson, Journal of the American Statistical Association 22 (1927), 209-212.

    Args:
        correct: Number of successes.
        total: Number of trials, at least 1.
    """
    share, square = correct / total, _NORMAL_975**2
    center = (share + square / (2 * total)) / (1 + square / total)
    half = _NORMAL_975 / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    return max(center - half, 0.0), min(center + half, 1.0)
