"""Table of docs/how-to/export.md: size, accuracy and cost of each form of the shipped net.

    python benchmarks/export/export_table.py --data fer2013.tar.gz -o out/export

Exports the shipped checkpoint in all forms (torch's own export, the presets, int8, ncnn) and writes the files, table.md
and table.json to the folder. Times are measured on this machine with one thread, in rounds over all files. Counts of an
emulated Cortex-A53 are read from benchmarks/a53/results, matched by the graph's structure (`benchmarks/a53/count.py`
writes them). Run it on an otherwise idle machine.
"""

from __future__ import annotations

import json
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch

from edgekit.contract import Contract, InputSpec, channel_count
from edgekit.device.engines.engine import engine_of, open_engine
from edgekit.device.engines.ncnn_file import read_ncnn
from edgekit.export.ncnn.to_ncnn import to_ncnn
from edgekit.export.onnx.targets import chosen_passes
from edgekit.export.onnx.to_onnx import contract_of, finished, to_onnx
from edgekit.export.profiling.cost import load_graph
from edgekit.export.profiling.profile import profile_file
from edgekit.export.quantization.gate import Calibration, calibration_crops
from edgekit.export.quantization.quantize import StaticSettings, quantize_dynamic, quantize_static, to_float16
from edgekit.export.tensors import structure_sha256
from edgekit.files import write_atomic
from edgekit.latencies import KNOWN_BOARDS
from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint
from edgekit.models.data import DataSet
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import aligned, evaluate, open_classifier
from edgekit.models.model_loading import build_net
from edgekit.preprocess import FloatArray, ImageU8, to_input

COUNTS = Path(__file__).resolve().parents[1] / "a53" / "results"
PLAIN = "float32, torch.onnx.export"
NCNN_TARGETS = ("generic", "a72", "a53")
BOARD = KNOWN_BOARDS["pi3b+"]
# Threads of the classifier in `edgekit run` on a board with four cores.
BOARD_THREADS = 1


def plain_export(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Return the net exported by `torch.onnx.export` alone, with a contract for the evaluation."""
    spec = checkpoint.contract.input
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            build_net(checkpoint),
            (torch.zeros(2, 3, *spec.size_hw),),
            dynamo=True,
            verbose=False,
            input_names=[spec.name],
            output_names=[checkpoint.contract.output.name],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    return finished(program.model_proto, checkpoint.contract)


def models(checkpoint: Checkpoint, calibration: Calibration) -> dict[str, onnx.ModelProto]:
    """Return the ONNX models of the table's .onnx files, by name."""
    net, contract = build_net(checkpoint), checkpoint.contract
    base = to_onnx(net, contract, chosen_passes("x86", quantized=True))
    made = {PLAIN: plain_export(checkpoint)}
    for target in ("generic", "x86", "a53", "a72"):
        made[f"float32, --target {target}"] = to_onnx(net, contract, chosen_passes(target))
    for settings in (StaticSettings(), StaticSettings("s8s8"), StaticSettings("u8s8", "qoperator")):
        name = f"int8 {settings.form} {settings.types}"
        made[name] = quantize_static(base, calibration.crops, settings, calibration.text).model
    return made | {"int8 dynamic": quantize_dynamic(base), "fp16": to_float16(base)}


def models_for_ncnn(checkpoint: Checkpoint) -> dict[str, onnx.ModelProto]:
    """Return the ONNX models from which the .ncnn files of the table are converted, by name."""
    net, contract = build_net(checkpoint), checkpoint.contract
    return {
        f"float32, --engine ncnn --target {target}": to_onnx(net, contract, chosen_passes(target, ncnn=True))
        for target in NCNN_TARGETS
    }


def ratios(paths: dict[str, Path], rounds: int, inferences: int) -> dict[str, float]:
    """Return, for each file, the median over rounds of its time divided by the time of the first file."""
    nets = {name: open_engine(path, 1) for name, path in paths.items()}
    inputs = {name: _noise(net.contract.input) for name, net in nets.items()}
    samples: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, net in nets.items():
            net.infer(inputs[name])
            started_s = time.perf_counter()
            for _ in range(inferences):
                net.infer(inputs[name])
            samples[name].append(time.perf_counter() - started_s)
    first = samples[next(iter(paths))]
    return {name: statistics.median(a / b for a, b in zip(own, first, strict=True)) for name, own in samples.items()}


def _noise(spec: InputSpec) -> FloatArray | ImageU8:
    shape = (1, *spec.size_hw, channel_count(spec.channels))
    return to_input(np.random.default_rng(0).integers(0, 256, shape, np.uint8), spec)


def estimated(graph: Path, contract: Contract) -> tuple[float, float] | None:
    """Return the interval of the latency in ms that `edgekit profile` estimates for the board; None without a roofline.

    There are rooflines for float32 and calibrated int8. An .ncnn file is estimated by the graph it was converted from.
    """
    if contract.precision == "float16" or (contract.calibration or "").startswith("none"):
        return None
    found = profile_file(graph, cache_kib=BOARD.shared_cache_kib).on(BOARD, BOARD_THREADS)
    return None if isinstance(found, str) else (found.low_ms, found.high_ms)


def structure_of(path: Path) -> str:
    """Return the hash of a file's graph without weights, which is equal for all files of one architecture."""
    return read_ncnn(path).structure_sha256 if engine_of(path) == "ncnn" else structure_sha256(load_graph(path))


def table(
    paths: dict[str, Path],
    graphs: dict[str, Path],
    dataset: DataSet,
    split: str,
    rounds: int,
    inferences: int,
) -> list[dict[str, Any]]:
    """Return one table row per file; `graphs` has the ONNX files from which the .ncnn files were converted."""
    stored = [json.loads(path.read_text()) for path in sorted(COUNTS.glob("*.json"))]
    counts = {document["structure_sha256"]: document["median"] for document in stored}
    times = ratios(paths, rounds, inferences)
    rows = []
    for name, path in paths.items():
        classifier = open_classifier(path, 1)
        result = evaluate(classifier, aligned(dataset, dataset.split(split), classifier.contract), "center-crop")
        rows.append(
            {
                "file": name,
                "size_bytes": path.stat().st_size,
                "correct": result.correct,
                "total": result.total,
                "time_ratio": times[name],
                "a53": counts.get(structure_of(path)),
                "estimate_ms": estimated(graphs.get(name, path), classifier.contract),
            }
        )
    return rows


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table of docs/how-to/export.md."""
    lines = [
        f"| file | bytes | accuracy | x86 time | A53 M instructions | A53 M L2 misses | {BOARD.name}, ms, estimated |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        counted, interval = row["a53"], row["estimate_ms"]
        cells = ["not counted"] * 2
        if counted is not None:
            cells = [f"{counted['instructions'] / 1e6:.2f}", f"{counted['l2_misses'] / 1e6:.4f}"]
        accuracy = row["correct"] / row["total"]
        cells.append("no estimate" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}")
        lines.append(
            f"| {row['file']} | {row['size_bytes']:,} | {accuracy:.2%} | {row['time_ratio']:.3f} | "
            f"{' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="FER-2013.")
@click.option("--split", default="PrivateTest", show_default=True)
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder.")
@click.option("--rounds", type=click.IntRange(1), default=60, show_default=True)
@click.option("--inferences", type=click.IntRange(1), default=20, show_default=True, help="Per file and round.")
@click.option("--calibration-images", type=click.IntRange(1), default=500, show_default=True)
def main(data: Path, split: str, output: Path, rounds: int, inferences: int, calibration_images: int) -> None:
    """Write the files and the table."""
    checkpoint = load_checkpoint(resolve_model("fer2013", (CHECKPOINT_SUFFIX,)))
    dataset = load_dataset(data, checkpoint.contract.crop.resize_hw[0], fit=checkpoint.contract.crop.fit)
    calibration = calibration_crops(dataset, "Training", checkpoint.contract, calibration_images, 0)
    paths, graphs = {}, {}
    for name, model in models(checkpoint, calibration).items():
        assert contract_of(model).labels == checkpoint.contract.labels
        paths[name] = output / f"{_file_name(name)}.onnx"
        write_atomic(paths[name], model.SerializeToString(deterministic=True))
    for name, model in models_for_ncnn(checkpoint).items():
        graphs[name] = output / f"{_file_name(name)}.source.onnx"
        write_atomic(graphs[name], model.SerializeToString(deterministic=True))
        paths[name] = output / f"{_file_name(name)}.ncnn"
        write_atomic(paths[name], to_ncnn(model))
    rows = table(paths, graphs, dataset, split, rounds, inferences)
    write_atomic(output / "table.json", json.dumps(rows, indent=2) + "\n")
    write_atomic(output / "table.md", as_markdown(rows))
    click.echo(as_markdown(rows))


def _file_name(name: str) -> str:
    return name.replace("--engine ", "").replace(" --target ", " ").replace(", ", "-").replace(" ", "-")


if __name__ == "__main__":
    main()
