"""Load time and memory of a model: saved optimised files and session settings compared.

    python benchmarks/device/session_start.py                       # the shipped model
    python benchmarks/device/session_start.py mine.onnx mine.ncnn   # and an .ncnn file

Prints a table of medians. Each round runs every variant once, in its own process. The process imports the engine,
records its memory, loads the model, and classifies once, then forty times. `saved` variants load a file that ONNX
Runtime wrote after optimising the model to that level; files beyond `extended` are valid only on the processor that
wrote them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgekit.contract import channel_count
from edgekit.device.engines.engine import contract_in, open_engine
from edgekit.device.procfs import read_process
from edgekit.model_store import DEVICE_SUFFIXES, NCNN_SUFFIX, ONNX_SUFFIX, resolve_model

INFERENCES = 40
# Session options by variant; `entries` are configuration keys of ONNX Runtime.
SETTINGS: dict[str, dict[str, Any]] = {
    "as edgekit loads it": {},
    "optimisation level none": {"level": "none"},
    "optimisation level basic": {"level": "basic"},
    "optimisation level extended": {"level": "extended"},
    "no memory arena": {"arena": False},
    "no memory pattern": {"pattern": False},
    "no packed weights": {"entries": {"session.disable_prepacking": "1"}},
    "weights outside the arena": {"entries": {"session.use_device_allocator_for_initializers": "1"}},
    "saved at level extended": {"saved": "extended"},
    "saved at level extended, loaded at none": {"saved": "extended", "level": "none"},
    "saved at level all, loaded at none": {"saved": "all", "level": "none"},
    "saved at level extended as .ort": {"saved": "extended", "form": "ort", "level": "none"},
}


def options_of(settings: dict[str, Any]) -> Any:
    """Return edgekit's session options, overridden by the settings of a variant."""
    from edgekit.device.engines.session import session_options

    options = session_options(1, level=settings.get("level", "all"))
    options.enable_cpu_mem_arena = settings.get("arena", True)
    options.enable_mem_pattern = settings.get("pattern", True)
    for key, value in settings.get("entries", {}).items():
        options.add_session_config_entry(key, value)
    return options


def save(model: Path, level: str, form: str, target: Path) -> None:
    """Write a model in the form to which ONNX Runtime optimises it at a level."""
    import onnxruntime as ort

    options = options_of({"level": level})
    options.optimized_model_filepath = str(target)
    if form == "ort":
        options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def measure(
    path: Path, input_name: str, shape: list[int], element_type: str, settings: dict[str, Any]
) -> dict[str, float]:
    """Return load time, inference times and memory of one variant; this process must not have loaded a model before."""
    tensor = np.zeros(shape, element_type)
    if path.suffix == NCNN_SUFFIX:
        import ncnn  # noqa: F401 (imported before the clock starts)
    else:
        import onnxruntime as ort
    before = read_process()
    started_s = time.perf_counter()
    if path.suffix == NCNN_SUFFIX:
        net = open_engine(path, 1)
        infer = lambda: net.infer(tensor)  # noqa: E731
    else:
        session = ort.InferenceSession(str(path), options_of(settings), providers=["CPUExecutionProvider"])
        infer = lambda: session.run(None, {input_name: tensor})  # noqa: E731
    loaded_s = time.perf_counter()
    infer()
    first_s = time.perf_counter()
    taken_s = []
    for _ in range(INFERENCES):
        begun_s = time.perf_counter()
        infer()
        taken_s.append(time.perf_counter() - begun_s)
    after = read_process()
    return {
        "load_ms": (loaded_s - started_s) * 1e3,
        "first_ms": (first_s - loaded_s) * 1e3,
        "later_ms": statistics.median(taken_s) * 1e3,
        "held_mib": after.resident_mib - before.resident_mib,
        "peak_mib": after.peak_mib,
    }


def variants(models: tuple[Path, ...], folder: Path) -> dict[str, list[Any]]:
    """Return the arguments of `measure` by the name of the variant."""
    found: dict[str, list[Any]] = {}
    for model in models:
        spec = contract_in(model).input
        shape = [1, channel_count(spec.channels), *spec.size_hw]
        for name, settings in SETTINGS.items() if model.suffix == ONNX_SUFFIX else [("ncnn", {})]:
            path = model
            if "saved" in settings:
                form = settings.get("form", "onnx")
                path = folder / f"{model.stem}-{settings['saved']}.{form}"
                if not path.exists():
                    save(model, settings["saved"], form, path)
            found[f"{model.name}: {name}"] = [str(path), spec.name, shape, spec.element_type, settings]
    return found


@click.command()
@click.argument("models", nargs=-1)
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True)
@click.option("--one", hidden=True)
def main(models: tuple[str, ...], rounds: int, one: str | None) -> None:
    """Measure MODELS, the shipped one by default."""
    if one is not None:
        path, *rest = json.loads(one)
        click.echo(json.dumps(measure(Path(path), *rest)))
        return
    paths = tuple(resolve_model(name, DEVICE_SUFFIXES) for name in models or ("default",))
    with tempfile.TemporaryDirectory() as folder:
        chosen = variants(paths, Path(folder))
        samples: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
        for _ in range(rounds):
            for name, job in chosen.items():
                command = [sys.executable, __file__, "--one", json.dumps(job)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                samples[name].append(json.loads(done.stdout))
    columns = ("load_ms", "first_ms", "later_ms", "held_mib", "peak_mib")
    click.echo(
        "| variant | load, ms | first inference, ms | later inferences, ms | model, MiB | peak of the process, MiB |"
    )
    click.echo("| --- | --- | --- | --- | --- | --- |")
    for name, found in samples.items():
        cells = (f"{statistics.median(each[column] for each in found):.2f}" for column in columns)
        click.echo(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
