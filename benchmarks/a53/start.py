"""Cost of a start on an emulated Cortex-A53: instructions from process start to the first result of `edgekit run`.

    python benchmarks/a53/start.py --detector-model face_detection_yunet_2026may.onnx [--against SOURCE_TREE]

The start is that of `benchmarks/device/start.py`, with Python's own start excluded; numpy, OpenCV and onnxruntime are
counted in a process of their own. Uses the emulator and the system of `count.py` (README.md), with further packages.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import click

sys.path.append(str(Path(__file__).resolve().parent))
from count import default_state, prepare

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("opencv-python-headless", "msgspec", "click", "rich", "platformdirs", "typing_extensions")


def install(state: Path) -> Path:
    """Install what edgekit imports, for arm64, beside the packages of `count.py`; return the folder."""
    folder = state / "start-packages"
    python = next((state / "root/usr/lib").glob("python3.*")).name.removeprefix("python")
    platforms = [f"--platform=manylinux{tag}_aarch64" for tag in ("2014", "_2_17", "_2_24", "_2_27", "_2_28")]
    options = ["--quiet", "--no-deps", "--only-binary=:all:", f"--python-version={python}", *platforms]
    wanted = [f"{name}=={version(name)}" for name in PACKAGES]
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", *options, "--target", folder, *wanted]
        subprocess.run(command, check=True)
    return folder


def instructions(state: Path, packages: Path, root: Path, arguments: Sequence[str]) -> int:
    """Return the instructions of one process of `first_result.py` with the modules of `root`."""
    system = state / "root"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": folder,
            "EDGEKIT_COUNT": "1",
            "PYTHONHOME": str(system / "usr"),
            "PYTHONPATH": f"{root}:{packages}:{state / 'packages'}",
            "PYTHONPYCACHEPREFIX": str(state / "compiled"),
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        emulator = [state / "qemu-aarch64", "-cpu", "cortex-a53", "-seed", "1", "-L", system]
        plugin = ["-plugin", f"{state / 'counter.so'},out={out}"]
        program = [system / "usr/bin/python3", ROOT / "benchmarks/device/first_result.py", *arguments]
        command = ["setarch", "--addr-no-randomize", *emulator, *plugin, *program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
        if done.returncode or not out.exists():
            raise click.ClickException(f"a start failed on the emulated A53: {done.stderr.strip()[-300:]}")
        return int(json.loads(out.read_text().splitlines()[-1])["instructions"])


@click.command()
@click.option("--detector-model", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--against", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Another source tree.")
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), help="Default: $EDGEKIT_A53 or the cache.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
def main(detector_model: Path, against: Path | None, state: Path | None, rounds: int) -> None:
    """Count starts."""
    state = (state or default_state()).resolve()
    prepare(state)
    packages = install(state)
    run = ["--source", "demo", "--max-frames", "1", "--single-thread"]
    # The process ends before it creates this file.
    arguments = [str(state / "results.jsonl"), *run, "--detector-model", str(detector_model.resolve())]
    cases = {"numpy, OpenCV, onnxruntime": (ROOT, ()), "this tree": (ROOT, arguments)}
    if against is not None:
        cases[str(against)] = (against.resolve(), arguments)
    found: dict[str, float] = {}
    for name, (root, given) in cases.items():
        instructions(state, packages, root, given)  # compiles the modules
        found[name] = statistics.median(instructions(state, packages, root, given) for _ in range(rounds))
        fixed = next(iter(found.values()))
        own = (found[name] - fixed) / 1e6
        click.echo(f"{name}: {found[name] / 1e6:.0f} M instructions, {own:.0f} M beyond the fixed imports")


if __name__ == "__main__":
    main()
