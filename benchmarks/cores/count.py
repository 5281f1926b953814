"""Cost of one inference on an emulated core: instructions, SIMD operations, cache misses.

    python benchmarks/cores/count.py mine.onnx mine.ncnn --core a76 -o benchmarks/cores/results

ONNX Runtime for arm64, or ncnn for an .ncnn file, runs with one thread under qemu's user mode, and a qemu plugin counts
its instructions, SIMD operations and cache misses (method and limits: README.md). Writes one JSON file per model into
the core's folder, named after the model file. --core can be repeated; without it all cores are counted. All models of a
core run in one process, one after the other, because starting it takes longer than counting.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from cores import CORES, HERE, LINE_BYTES, Core, default_state, prepare, run_counted

from edgekit.device.engines.engine import engine_of
from edgekit.errors import EdgekitError
from edgekit.files import sha256_of, write_atomic

sys.path.append(str(Path(__file__).resolve().parents[1]))
from structure import structure_of

WARM_UP = 2


def count(
    models: Sequence[Path], state: Path, core: Core, sections: int, shape: str
) -> dict[Path, list[dict[str, int]]]:
    """Return the counts of each of `sections` inferences of each model at batch size 1, by the counter's name.

    Raises:
        click.ClickException: A model does not run on the emulated core.
    """
    each = WARM_UP + sections
    program = [HERE / "guest.py", str(each), shape, *models]
    done, lines = run_counted(state, core, program, HERE.parents[1])
    if done.returncode or len(lines) != each * len(models):
        reason = (done.stderr.strip().splitlines() or [f"{len(lines)} sections counted"])[-1]
        model = models[min(len(lines) // each, len(models) - 1)]
        raise click.ClickException(
            f"'{model}' does not run on the emulated {core.cpu} (exit code {done.returncode}): {reason}"
        )
    return {model: lines[index * each + WARM_UP : (index + 1) * each] for index, model in enumerate(models)}


def record(model: Path, state: Path, core: Core, sections: Sequence[dict[str, int]], shape: str) -> dict[str, Any]:
    """Return the JSON document of a model: counts, method of the measurement, and model file."""
    engine = engine_of(model)
    qemu = subprocess.run([state / "qemu-aarch64", "--version"], check=True, capture_output=True, text=True)
    caches = {name: f"{size_kib} KiB, {ways} ways" for name, (size_kib, ways) in core.caches.items()}
    return {
        "model": model.stem,
        "file_sha256": sha256_of(model),
        "structure_sha256": structure_of(model),
        "size_bytes": model.stat().st_size,
        "shape": shape or "batch of one",
        "median": {key: int(statistics.median(section[key] for section in sections)) for key in sections[0]},
        "inferences": list(sections),
        "method": {
            "cpu": f"{core.cpu}, emulated by qemu in user mode",
            "qemu": qemu.stdout.splitlines()[0],
            engine: version(engine),
            "numpy": version("numpy"),
            "threads": 1,
            "warm_up_inferences": WARM_UP,
            "caches": {"line_bytes": LINE_BYTES, **caches, "policy": "LRU"},
            "host": platform.machine(),
        },
    }


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--core", "cores", type=click.Choice(list(CORES)), multiple=True, help="Default: all.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder.")
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), help="Default: $EDGEKIT_CORES or the cache.")
@click.option("--inferences", type=click.IntRange(min=5), default=5, show_default=True)
@click.option(
    "--shape", default="", help="Input shape such as 1,3,128,160; default: the file's, with 1 for dynamic dimensions."
)
def main(
    models: tuple[Path, ...], cores: tuple[str, ...], output: Path, state: Path | None, inferences: int, shape: str
) -> None:
    """Count MODELS and write one JSON file per model and core."""
    state = (state or default_state()).resolve()
    prepare(state)
    for name in cores or CORES:
        core = CORES[name]
        try:
            counted = count([path.resolve() for path in models], state, core, inferences, shape)
            for model, sections in counted.items():
                document = record(model, state, core, sections, shape)
                write_atomic(output / name / f"{model.stem}.json", json.dumps(document, indent=2) + "\n")
                click.echo(f"{model.stem}, {name}: {as_line(document['median'])}")
        except EdgekitError as error:
            raise click.ClickException(str(error)) from error


def as_line(median: Mapping[str, int]) -> str:
    """Return counts as text, in millions."""
    misses = ", ".join(
        f"{value / 1e6:.4f} M {key.removesuffix('_misses').upper()}"
        for key, value in median.items()
        if key.endswith("_misses") and key != "l1i_misses"
    )
    return f"{median['instructions'] / 1e6:.2f} M instructions, {median['simd_fp'] / 1e6:.2f} M SIMD, misses: {misses}"


if __name__ == "__main__":
    main()
