"""Tables of docs/how-to/export.md: size, accuracy and cost of each form of the shipped net.

    python benchmarks/export/export_table.py --data fer2013.tar.gz -o out/export

Exports the shipped checkpoint in all forms (torch's own export, the presets, int8, ncnn) and writes the files, table.md
and table.json to the folder. Times are measured on this machine with one thread, in rounds over all files: run it on an
otherwise idle machine, or without them (--rounds 0). Counts of emulated cores are read from benchmarks/cores/results,
matched by the graph's structure (`benchmarks/cores/count.py` writes them).
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch

from edgekit.contract import Contract, InputSpec, channel_count
from edgekit.device.engines.engine import open_engine
from edgekit.export.ncnn.to_ncnn import in_half_floats, to_ncnn
from edgekit.export.onnx.targets import chosen_passes
from edgekit.export.onnx.to_onnx import contract_of, finished, to_onnx
from edgekit.export.profiling.profile import profile_file
from edgekit.export.quantization.gate import Calibration, calibration_crops
from edgekit.export.quantization.quantize import StaticSettings, quantize_dynamic, quantize_static, to_float16
from edgekit.files import write_atomic
from edgekit.known_boards import KNOWN_BOARDS, KnownBoard
from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint
from edgekit.models.data import DataSet
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import aligned, evaluate, open_classifier
from edgekit.models.model_loading import build_net
from edgekit.preprocess import FloatArray, ImageU8, to_input

sys.path.append(str(Path(__file__).resolve().parents[1]))
from structure import structure_of

COUNTS = Path(__file__).resolve().parents[1] / "cores" / "results"
PLAIN = "float32, torch.onnx.export"
NCNN_TARGETS = ("generic", "a53")
# The core that was counted for each board, and its last cache.
BOARDS = {"a53": ("pi3b+", "l2"), "a72": ("pi4", "l2"), "a76": ("pi5", "l3")}
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
    for target in ("generic", "x86", "a53"):  # the rewrites of a72 and a76 are those of a53
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
    """Return, for each file, the median over rounds of its time divided by the time of the first file.

    Without rounds the result is empty.
    """
    if not rounds:
        return {}
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


def estimated(graph: Path, contract: Contract, board: KnownBoard) -> tuple[float, float] | None:
    """Return the interval of the latency in ms that `edgekit profile` estimates for a board; None without a roofline.

    There are rooflines for float32 and calibrated int8. An .ncnn file is estimated by the graph it was converted from.
    """
    if contract.precision == "float16" or (contract.calibration or "").startswith("none"):
        return None
    found = profile_file(graph, cache_kib=board.shared_cache_kib).on(board, BOARD_THREADS)
    return None if isinstance(found, str) else (found.low_ms, found.high_ms)


def counted(folder: Path) -> dict[str, dict[str, int]]:
    """Return the counts in a folder of `benchmarks/cores/count.py`, by the structure of the graph."""
    documents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {document["structure_sha256"]: document["median"] for document in documents}


def table(
    paths: dict[str, Path],
    graphs: dict[str, Path],
    dataset: DataSet,
    split: str,
    rounds: int,
    inferences: int,
) -> list[dict[str, Any]]:
    """Return one table row per file; `graphs` has the ONNX files from which the .ncnn files were converted."""
    counts = {core: counted(COUNTS / core) for core in BOARDS}
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
                "time_ratio": times.get(name),
                "counts": {core: known.get(structure_of(path)) for core, known in counts.items()},
                "estimate_ms": {
                    core: estimated(graphs.get(name, path), classifier.contract, KNOWN_BOARDS[board])
                    for core, (board, _) in BOARDS.items()
                },
            }
        )
    return rows


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Return the two tables of docs/how-to/export.md: files, and their cost on the cores of boards."""
    files = ["| file | bytes | accuracy | x86 time |", "| --- | --- | --- | --- |"]
    heads = [
        f"{core.upper()} M instructions | M {level.upper()} misses | {KNOWN_BOARDS[board].name}, ms, estimated"
        for core, (board, level) in BOARDS.items()
    ]
    costs = [f"| file | {' | '.join(heads)} |", f"| ---{' | ---: | ---: | ---' * len(BOARDS)} |"]
    for row in rows:
        accuracy = row["correct"] / row["total"]
        time = "not measured" if row["time_ratio"] is None else f"{row['time_ratio']:.3f}"
        files.append(f"| {row['file']} | {row['size_bytes']:,} | {accuracy:.2%} | {time} |")
        cells = [cell for core in BOARDS for cell in _cost_cells(row, core)]
        costs.append(f"| {row['file']} | {' | '.join(cells)} |")
    return "\n".join([*files, "", *costs]) + "\n"


def _cost_cells(row: dict[str, Any], core: str) -> list[str]:
    counts, interval = row["counts"][core], row["estimate_ms"][core]
    cells = ["not counted"] * 2
    if counts is not None:
        cells = [f"{counts['instructions'] / 1e6:.2f}", f"{counts[f'{BOARDS[core][1]}_misses'] / 1e6:.4f}"]
    return [*cells, "no estimate" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"]


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="FER-2013.")
@click.option("--split", default="PrivateTest", show_default=True)
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder.")
@click.option("--rounds", type=click.IntRange(0), default=60, show_default=True, help="Of times; 0: none.")
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
        half = f"{name.replace('float32', 'half floats')} --precision fp16"
        graphs[half], paths[half] = graphs[name], output / f"{_file_name(half)}.ncnn"
        write_atomic(paths[half], in_half_floats(paths[name]))
    rows = table(paths, graphs, dataset, split, rounds, inferences)
    write_atomic(output / "table.json", json.dumps(rows, indent=2) + "\n")
    write_atomic(output / "table.md", as_markdown(rows))
    click.echo(as_markdown(rows))


def _file_name(name: str) -> str:
    short = name.replace("--engine ", "").replace(" --target ", " ").replace(" --precision ", " ")
    return short.replace(", ", "-").replace(" ", "-")


if __name__ == "__main__":
    main()
