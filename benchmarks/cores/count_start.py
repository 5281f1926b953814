"""Cost of a start on an emulated core: instructions from process start to the first result of `edgekit run`.

    python benchmarks/cores/count_start.py --detector-model face_detection_yunet_2026may.onnx
    git worktree add before COMMIT
    python benchmarks/cores/count_start.py --against before --detector-model face_detection_yunet_2026may.onnx

A start is `edgekit run --source demo --max-frames 1` in a process of its own, until `benchmarks/device/first_result.py`
ends it at the first record. Python's own start and all threads are counted, processes that it starts are not. The
imports of numpy, OpenCV and onnxruntime are counted in another process, because they are not part of edgekit.
Uses the emulator and the system of `count.py` (README.md). Modules are compiled before.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import click
from cores import CORES, HERE, Core, default_state, prepare, run_counted

ROOT = HERE.parents[1]


def instructions(state: Path, core: Core, root: Path, arguments: Sequence[str]) -> int:
    """Return the instructions of one process of `first_result.py` with the modules of `root`.

    Raises:
        click.ClickException: The start fails.
    """
    program = [ROOT / "benchmarks/device/first_result.py", *arguments]
    modules = {"PYTHONPYCACHEPREFIX": str(state / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
    done, lines = run_counted(state, core, program, root, "whole=on", **modules)
    if done.returncode or not lines:
        raise click.ClickException(f"a start failed on the emulated {core.cpu}: {done.stderr.strip()[-300:]}")
    return lines[-1]["instructions"]


@click.command()
@click.option("--detector-model", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--against", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Another source tree.")
@click.option("--core", type=click.Choice(list(CORES)), default="a53", show_default=True)
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), help="Default: $EDGEKIT_CORES or the cache.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
def main(detector_model: Path, against: Path | None, core: str, state: Path | None, rounds: int) -> None:
    """Count starts."""
    state = (state or default_state()).resolve()
    prepare(state)
    # The process ends before it creates this file.
    run = [str(state / "results.jsonl"), "--source", "demo", "--max-frames", "1"]
    run += ["--detector", str(detector_model.resolve())]
    cases: dict[str, tuple[Path, list[str]]] = {"numpy, OpenCV, onnxruntime": (ROOT, []), "this tree": (ROOT, run)}
    if against is not None:
        cases[str(against)] = (against.resolve(), run)
    fixed: float | None = None
    for name, (root, arguments) in cases.items():
        instructions(state, CORES[core], root, arguments)  # compiles the modules
        found = [instructions(state, CORES[core], root, arguments) / 1e6 for _ in range(rounds)]
        whole = statistics.median(found)
        fixed = whole if fixed is None else fixed
        click.echo(
            f"{name}: {whole:.0f} M instructions ({min(found):.0f} to {max(found):.0f}), "
            f"{whole - fixed:.0f} M beyond the fixed imports"
        )


if __name__ == "__main__":
    main()
