"""How often the interval of a median holds the truth, on made-up latencies: the table of docs/benchmarking.md.

`python benchmarks/intervals.py` prints it. Latencies are log-normal around a true median; neighbours within a process
are correlated (first-order autoregressive).
"""

from __future__ import annotations

import numpy as np

from edgekit.report.statistics import Samples, median_interval

TRUE_MS = 2.0
CORRELATION = 0.6
ITERATIONS = 100
TRIALS = 150
# Standard deviations of the logarithm between processes and within one; within: of each step of the noise.
SPREADS = ((0.01, 0.01), (0.0, 0.02), (0.02, 0.005))


def main() -> None:
    """Print the table."""
    print("| processes | between processes | within | intervals that hold the truth | median width |")
    print("| --- | --- | --- | --- | --- |")
    for count in (3, 5):
        for between, within in SPREADS:
            hits, width = coverage(count, between, within)
            apart = f"{100 * between:g} %" if between else "none"
            print(f"| {count} | {apart} | {100 * within:g} % | {100 * hits:.0f} % | {100 * width:.1f} % |")


def coverage(count: int, between: float, within: float) -> tuple[float, float]:
    """Return the share of intervals that hold `TRUE_MS`, and the median of their widths as a share of it."""
    random = np.random.default_rng(5)
    intervals = []
    for trial in range(TRIALS):
        interval = median_interval([process(random, between, within) for _ in range(count)], trial)
        assert interval is not None
        intervals.append(interval)
    hits = [low <= TRUE_MS <= high for low, high in intervals]
    return float(np.mean(hits)), float(np.median([(high - low) / TRUE_MS for low, high in intervals]))


def process(random: np.random.Generator, between: float, within: float) -> Samples:
    """Return the latencies of one process."""
    noise = np.empty(ITERATIONS)
    state = 0.0
    for index in range(ITERATIONS):
        state = CORRELATION * state + random.normal() * within
        noise[index] = state
    return TRUE_MS * np.exp(random.normal() * between + noise)


if __name__ == "__main__":
    main()
