"""Processor time of an inference by file, for machines that are too busy for the times of `edgekit bench`.

    python benchmarks/device/engine_cpu_time.py default.onnx default.ncnn default.tflite

One crop of a face, one thread. The files take turns in rounds of ten inferences; what is counted is the time that the
calling thread computes, so other programs count only as far as they empty the caches. Printed are the median over the
rounds and the ratio to the first file with its 95 % interval (bootstrap over rounds).
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import click
import numpy as np

from edgekit.device.engines.engine import open_engine
from edgekit.device.engines.portrait import portrait_crops
from edgekit.preprocess import to_input

INFERENCES = 10
REPLICATES = 2000


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--rounds", type=click.IntRange(2), default=40, show_default=True)
def main(models: tuple[Path, ...], rounds: int) -> None:
    """Print one line per file."""
    nets = {path: open_engine(path, 1) for path in models}
    images = {path: to_input(portrait_crops(net.contract)[:1], net.contract.input) for path, net in nets.items()}
    samples_ms: dict[Path, list[float]] = {path: [] for path in models}
    for index in range(-2, rounds):
        for path, net in nets.items():
            net.infer(images[path])
            started_s = time.thread_time()
            for _ in range(INFERENCES):
                net.infer(images[path])
            if index >= 0:  # the first two rounds warm up
                samples_ms[path].append((time.thread_time() - started_s) / INFERENCES * 1e3)
    random = np.random.default_rng(0)
    for path, own in samples_ms.items():
        ratios = np.array(own) / np.array(samples_ms[models[0]])
        medians = np.median(random.choice(ratios, (REPLICATES, rounds)), axis=1)
        low, high = np.percentile(medians, (2.5, 97.5))
        print(
            f"{path.name:24} {statistics.median(own):.2f} ms, {np.median(ratios):.2f} times ({low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
