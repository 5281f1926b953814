"""Coverage of the confidence interval of a median on simulated latencies: the table of docs/explanation/benchmarks.md.

    python benchmarks/intervals.py

For each number of processes and each spread, the table has the share of intervals that contain the true median, and the
median width of the intervals. Latencies are log-normal around a true median; successive latencies of a process are
correlated (first-order autoregressive).
"""

from __future__ import annotations

import click
import numpy as np

from edgekit.report.statistics import Samples, median_interval

TRUE_MS = 2.0
CORRELATION = 0.6
ITERATIONS = 100
TRIALS = 150
# Standard deviations of the logarithm between processes, and of each step of the noise within one.
SPREADS = ((0.01, 0.01), (0.0, 0.02), (0.02, 0.005))


@click.command()
def main() -> None:
    """Print the table of coverage per number of processes and spread."""
    print("| processes | between processes | within | intervals that contain the true median | median width |")
    print("| --- | --- | --- | --- | --- |")
    for count in (3, 5):
        for between, within in SPREADS:
            hits, width = coverage(count, between, within)
            apart = f"{100 * between:g} %" if between else "none"
            print(f"| {count} | {apart} | {100 * within:g} % | {100 * hits:.0f} % | {100 * width:.1f} % |")


def coverage(count: int, between: float, within: float) -> tuple[float, float]:
    """Return the share of intervals that contain `TRUE_MS`, and their median width as a fraction of `TRUE_MS`."""
    random = np.random.default_rng(5)
    intervals = []
    for trial in range(TRIALS):
        interval = median_interval([process(random, between, within) for _ in range(count)], trial)
        assert interval is not None
        intervals.append(interval)
    hits = [low <= TRUE_MS <= high for low, high in intervals]
    return float(np.mean(hits)), float(np.median([(high - low) / TRUE_MS for low, high in intervals]))


def process(random: np.random.Generator, between: float, within: float) -> Samples:
    """Return the simulated latencies of one process, in ms."""
    noise = np.empty(ITERATIONS)
    state = 0.0
    for index in range(ITERATIONS):
        state = CORRELATION * state + random.normal() * within
        noise[index] = state
    return TRUE_MS * np.exp(random.normal() * between + noise)


if __name__ == "__main__":
    main()
