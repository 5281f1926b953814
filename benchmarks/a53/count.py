"""Cost of one inference on an emulated Cortex-A53: instructions, SIMD operations, cache misses.

    python benchmarks/a53/count.py mine.onnx mine.ncnn -o benchmarks/a53/results

ONNX Runtime for arm64, or ncnn for an .ncnn file, runs with one thread under qemu's user mode, and a qemu plugin counts
its instructions, SIMD operations and cache misses (method and limits: README.md). Writes one JSON file per model, named
after the model file.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from edgekit.device.engines.engine import engine_of
from edgekit.device.engines.ncnn_file import read_ncnn
from edgekit.errors import EdgekitError
from edgekit.export.profiling.cost import load_graph
from edgekit.export.tensors import structure_sha256
from edgekit.files import sha256_of, write_atomic

HERE = Path(__file__).resolve().parent
CACHES = {"line_bytes": 64, "l1i": "32 KiB, 2 ways", "l1d": "32 KiB, 4 ways", "l2": "512 KiB, 16 ways", "policy": "LRU"}
WARM_UP = 2


def default_state() -> Path:
    """Return the folder of the emulator and the emulated system: $EDGEKIT_A53, or a folder in the user's cache."""
    named = os.environ.get("EDGEKIT_A53")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgekit-a53"


def structure_of(model: Path) -> str:
    """Return the hash of a file's graph without weights, which is equal for all files of one architecture."""
    return read_ncnn(model).structure_sha256 if engine_of(model) == "ncnn" else structure_sha256(load_graph(model))


def prepare(state: Path) -> None:
    """Create what is missing in `state`: qemu, its plugin, and the arm64 system with both engines and /sys."""
    subprocess.run([HERE / "prepare.sh", state], check=True)
    packages = state / "packages"
    wanted = " ".join(f"{name}=={version(name)}" for name in ("onnxruntime", "numpy", "ncnn"))
    stamp = packages / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        platforms = [f"--platform=manylinux{tag}_aarch64" for tag in ("2014", "_2_17", "_2_24", "_2_27", "_2_28")]
        python = next((state / "root/usr/lib").glob("python3.*")).name.removeprefix("python")
        options = ["--quiet", "--upgrade", "--no-compile", "--only-binary=:all:", f"--python-version={python}"]
        install = [sys.executable, "-m", "pip", "install", *options, *platforms, "--target", packages]
        subprocess.run([*install, *wanted.split()], check=True)
        write_atomic(stamp, wanted)
    _describe_processors(state / "root/sys/devices/system/cpu")


def _describe_processors(folder: Path) -> None:
    """Write the files in /sys from which ONNX Runtime detects cores: one A53 per processor of this machine."""
    last = (os.cpu_count() or 1) - 1
    files = dict.fromkeys(("possible", "present", "online"), f"0-{last}") | {"kernel_max": str(last)}
    for number in range(last + 1):
        files[f"cpu{number}/cpufreq/cpuinfo_max_freq"] = "1400000"
        files[f"cpu{number}/topology/physical_package_id"] = "0"
        files[f"cpu{number}/topology/core_siblings_list"] = f"0-{last}"
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def count(model: Path, state: Path, sections: int, shape: str) -> list[dict[str, int]]:
    """Return the counts of each of `sections` inferences of a model at batch size 1, by the counter's name.

    Raises:
        click.ClickException: The model does not run on the emulated A53.
    """
    root = state / "root"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        # Addresses and hashes determine which lines share a cache set: keep them constant.
        environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONHOME": str(root / "usr"),
            "PYTHONPATH": str(state / "packages"),
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        if engine_of(model) == "ncnn":  # guest.py imports edgekit to run it
            environment["PYTHONPATH"] += f":{HERE.parents[1]}"
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
        emulator = [state / "qemu-aarch64", "-cpu", "cortex-a53", "-seed", "1", "-L", root]
        plugin = ["-plugin", f"{state / 'counter.so'},out={out}"]
        guest = [root / "usr/bin/python3", HERE / "guest.py", model, shape, str(WARM_UP + sections)]
        done = subprocess.run(
            ["setarch", "--addr-no-randomize", *emulator, *plugin, *guest],
            env=environment,
            capture_output=True,
            text=True,
        )
        lines = out.read_text().splitlines() if out.exists() else []
    if done.returncode or len(lines) != WARM_UP + sections:
        reason = (done.stderr.strip().splitlines() or [f"{len(lines)} sections counted"])[-1]
        raise click.ClickException(
            f"'{model}' does not run on the emulated A53 (exit code {done.returncode}): {reason}"
        )
    return [json.loads(line) for line in lines[WARM_UP:]]


def record(model: Path, state: Path, sections: Sequence[dict[str, int]], shape: str) -> dict[str, Any]:
    """Return the JSON document of a model: counts, method of the measurement, and model file."""
    engine = engine_of(model)
    qemu = subprocess.run([state / "qemu-aarch64", "--version"], check=True, capture_output=True, text=True)
    return {
        "model": model.stem,
        "file_sha256": sha256_of(model),
        "structure_sha256": structure_of(model),
        "size_bytes": model.stat().st_size,
        "shape": shape or "batch of one",
        "median": {key: int(statistics.median(section[key] for section in sections)) for key in sections[0]},
        "inferences": list(sections),
        "method": {
            "cpu": "cortex-a53, emulated by qemu in user mode",
            "qemu": qemu.stdout.splitlines()[0],
            engine: version(engine),
            "numpy": version("numpy"),
            "threads": 1,
            "warm_up_inferences": WARM_UP,
            "caches": CACHES,
            "host": platform.machine(),
        },
    }


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder.")
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), help="Default: $EDGEKIT_A53 or the cache.")
@click.option("--inferences", type=click.IntRange(min=5), default=5, show_default=True)
@click.option(
    "--shape", default="", help="Input shape such as 1,3,128,160; default: the file's, with 1 for dynamic dimensions."
)
def main(models: tuple[Path, ...], output: Path, state: Path | None, inferences: int, shape: str) -> None:
    """Count MODELS and write one JSON file per model."""
    state = (state or default_state()).resolve()
    try:
        prepare(state)
    except subprocess.CalledProcessError as error:
        raise click.ClickException(f"preparing the emulated A53 failed: {error}: see {state}/*.log") from error
    for model in models:
        model = model.resolve()
        try:
            document = record(model, state, count(model, state, inferences, shape), shape)
            write_atomic(output / f"{model.stem}.json", json.dumps(document, indent=2) + "\n")
        except EdgekitError as error:
            raise click.ClickException(str(error)) from error
        median = document["median"]
        click.echo(
            f"{model.stem}: {median['instructions'] / 1e6:.2f} M instructions, {median['simd_fp'] / 1e6:.2f} M SIMD, "
            f"{median['l1d_misses'] / 1e6:.3f} M L1D misses, {median['l2_misses'] / 1e6:.4f} M L2 misses"
        )


if __name__ == "__main__":
    main()
