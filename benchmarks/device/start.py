"""Cost of a start: processor time and imported modules from process start to the first result of `edgekit run`.

    python benchmarks/device/start.py --detector-model face_detection_yunet_2026may.onnx
    git worktree add before COMMIT
    python benchmarks/device/start.py --against before --detector-model face_detection_yunet_2026may.onnx

Each start is `edgekit run --source demo --max-frames 1 --jsonl FILE` in a process of its own, ended by
`first_result.py` when it opens FILE, with modules compiled before. Another process of each round imports numpy, OpenCV
and onnxruntime, because what they cost is not edgekit's. With --against, starts of this source tree and of the
other one are pairs of `pairs.py`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

sys.path.append(str(Path(__file__).resolve().parents[1]))
from pairs import time_pairs

HERE = Path(__file__).resolve().parent


class Starts:
    """Runs starts of one source tree, and keeps their processor times and the number of modules of the last one."""

    def __init__(self, root: Path, folder: Path, arguments: Sequence[str]) -> None:
        self._environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._command = [sys.executable, str(HERE / "first_result.py"), *arguments]
        self.times_s: list[float] = []
        self.modules = 0

    def __call__(self, _: int = 0) -> None:
        """Run one start."""
        done = subprocess.run(self._command, env=self._environment, capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(f"a start failed: {done.stderr.strip()[-300:]}")
        seconds, modules = done.stdout.split()
        self.times_s.append(float(seconds))
        self.modules = int(modules)


def report(name: str, starts: Starts, fixed: Starts) -> None:
    """Print medians: the whole start, and without the fixed imports of the same round."""
    own_s = [whole - part for whole, part in zip(starts.times_s, fixed.times_s, strict=True)]
    click.echo(
        f"{name}: {statistics.median(starts.times_s):.3f} s, {starts.modules} modules; beyond the fixed imports "
        f"{statistics.median(own_s):.3f} s, {starts.modules - fixed.modules} modules"
    )


@click.command()
@click.option("--detector-model", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--against", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Another source tree.")
@click.option("--rounds", type=click.IntRange(min=3), default=20, show_default=True)
def main(detector_model: Path, against: Path | None, rounds: int) -> None:
    """Measure starts."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = ["--source", "demo", "--max-frames", "1", "--detector-model", str(detector_model.resolve())]
        arguments = [str(folder / "results.jsonl"), *run]
        here = Starts(HERE.parents[1], folder, arguments)
        other = Starts((against or HERE.parents[1]).resolve(), folder, arguments)
        fixed = Starts(HERE.parents[1], folder, ())
        for starts in (here, other, fixed):  # compiles the modules
            starts()
            starts.times_s.clear()

        def round_of(starts: Starts, number: int) -> None:
            if starts is here:
                fixed()
            starts(number)

        # The fixed imports run beside the first of each pair: only processor times are used.
        time_pairs(lambda number: round_of(here, number), lambda number: round_of(other, number), rounds)
    click.echo(f"numpy, OpenCV, onnxruntime: {statistics.median(fixed.times_s):.3f} s, {fixed.modules} modules")
    report("this tree", here, fixed)
    if against is not None:
        report(f"{against}", other, fixed)
        pairs = list(zip(here.times_s, other.times_s, fixed.times_s, strict=True))
        whole = statistics.median(a / b for a, b, _ in pairs)
        own = statistics.median((a - part) / (b - part) for a, b, part in pairs)
        click.echo(f"ratio of {rounds} pairs: {whole:.2f} of the whole, {own:.2f} beyond the fixed imports")


if __name__ == "__main__":
    main()
