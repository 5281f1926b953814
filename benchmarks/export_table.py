"""The table of docs/export.md: what each form of the shipped net weighs, answers and costs.

    python benchmarks/export_table.py --data fer2013.tar.gz -o out/export

Files are made from the shipped checkpoint: torch's own export, the presets, and eight bits. Times are of one run on
this machine, one thread, files taking turns; counts on an emulated Cortex-A53 are those stored in
benchmarks/a53/results for files of the same structure (`benchmarks/a53/count.py` makes them). Give the machine nothing
else to do.
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
import onnxruntime as ort
import torch

from edgekit.device.session import open_session
from edgekit.export.cost import load_graph
from edgekit.export.gate import Calibration, calibration_crops
from edgekit.export.quantize import StaticSettings, quantize_dynamic, quantize_static, to_float16
from edgekit.export.targets import chosen_passes
from edgekit.export.tensors import structure_sha256
from edgekit.export.to_onnx import contract_of, finished, to_onnx
from edgekit.files import write_atomic
from edgekit.modelfiles import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.checkpoint import Checkpoint, build_net, load_checkpoint
from edgekit.models.data import DataSet
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluate import aligned, evaluate, open_classifier

COUNTS = Path(__file__).resolve().parent / "a53" / "results"
PLAIN = "float32, torch.onnx.export"


def plain_export(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Return what `torch.onnx.export` itself makes of the net, with a contract so that it can be measured."""
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
    """Return the table's files by name."""
    net, contract = build_net(checkpoint), checkpoint.contract
    base = to_onnx(net, contract, chosen_passes("x86", quantized=True))
    made = {PLAIN: plain_export(checkpoint)}
    for target in ("generic", "x86", "a53", "a72"):
        made[f"float32, --target {target}"] = to_onnx(net, contract, chosen_passes(target))
    for settings in (StaticSettings(), StaticSettings("s8s8"), StaticSettings("u8s8", "qoperator")):
        name = f"int8 {settings.form} {settings.types}"
        made[name] = quantize_static(base, calibration.crops, settings, calibration.text).model
    return made | {"int8 dynamic": quantize_dynamic(base), "fp16": to_float16(base)}


def ratios(paths: dict[str, Path], rounds: int, inferences: int) -> dict[str, float]:
    """Return the median over rounds of each file's time over the first one's in the same round."""
    sessions = {name: open_session(path, intra_op_threads=1) for name, path in paths.items()}
    feeds = {name: _noise(session) for name, session in sessions.items()}
    samples: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, session in sessions.items():
            session.run(None, feeds[name])
            started_s = time.perf_counter()
            for _ in range(inferences):
                session.run(None, feeds[name])
            samples[name].append(time.perf_counter() - started_s)
    first = samples[next(iter(paths))]
    return {name: statistics.median(a / b for a, b in zip(own, first, strict=True)) for name, own in samples.items()}


def _noise(session: ort.InferenceSession) -> dict[str, Any]:
    (node,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in node.shape]
    noise = np.random.default_rng(0).uniform(0, 1, shape)
    return {node.name: (noise * 255).astype(np.uint8) if "uint8" in node.type else noise.astype(np.float32)}


def table(paths: dict[str, Path], dataset: DataSet, split: str, rounds: int, inferences: int) -> list[dict[str, Any]]:
    """Return a row a file."""
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
                "a53": counts.get(structure_sha256(load_graph(path))),
            }
        )
    return rows


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table of docs/export.md."""
    lines = [
        "| file | bytes | accuracy | x86 time | A53 M instructions | A53 M L2 misses |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        counted = row["a53"]
        cells = ["not counted"] * 2
        if counted is not None:
            cells = [f"{counted['instructions'] / 1e6:.2f}", f"{counted['l2_misses'] / 1e6:.4f}"]
        accuracy = row["correct"] / row["total"]
        lines.append(
            f"| {row['file']} | {row['size_bytes']:,} | {accuracy:.2%} | {row['time_ratio']:.3f} | "
            f"{cells[0]} | {cells[1]} |"
        )
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="FER-2013.")
@click.option("--split", default="PrivateTest", show_default=True)
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder.")
@click.option("--rounds", type=click.IntRange(1), default=60, show_default=True)
@click.option("--inferences", type=click.IntRange(1), default=20, show_default=True, help="In a round, for each file.")
@click.option("--calibration-images", type=click.IntRange(1), default=500, show_default=True)
def main(data: Path, split: str, output: Path, rounds: int, inferences: int, calibration_images: int) -> None:
    """Make the files and the table."""
    checkpoint = load_checkpoint(resolve_model("default", (CHECKPOINT_SUFFIX,)))
    dataset = load_dataset(data, checkpoint.contract.crop.resize_hw[0])
    calibration = calibration_crops(dataset, "Training", checkpoint.contract, calibration_images, 0)
    paths = {}
    for name, model in models(checkpoint, calibration).items():
        assert contract_of(model).labels == checkpoint.contract.labels
        paths[name] = output / f"{name.replace(' --target ', ' ').replace(', ', '-').replace(' ', '-')}.onnx"
        write_atomic(paths[name], model.SerializeToString(deterministic=True))
    rows = table(paths, dataset, split, rounds, inferences)
    write_atomic(output / "table.json", json.dumps(rows, indent=2) + "\n")
    write_atomic(output / "table.md", as_markdown(rows))
    click.echo(as_markdown(rows))


if __name__ == "__main__":
    main()
