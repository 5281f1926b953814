"""Study of small nets at 44x44 pixels: accuracy after one equal training budget, and cost of an inference.

    python benchmarks/models/architectures.py --train --data fer2013.tar.gz --only mobilenetv2
    python benchmarks/models/architectures.py --evaluate --latency --report --data fer2013.tar.gz

There are four steps. Without flags all of them run, else those whose flags are given. Each step keeps its results, so
it can be interrupted and repeated:

    --train      trains each net with `edgekit train` and the same recipe, epochs and seed
    --evaluate   exports each net, counts its cost, measures accuracy on PrivateTest (of trained nets)
    --latency    times all nets in ONNX Runtime, one thread, in interleaved rounds; needs an idle machine
    --report     writes study.md, study.json and study.png; A53 counts are read from benchmarks/cores/results/a53

Counts on the emulated A53 (see cores/README.md) depend on a net's structure, not on its weights: counts of an untrained
net's file are valid for the trained net, so --evaluate exports untrained nets, too.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from study_report import BASE, write_report
from torch import nn

from edgekit.boards import read_board
from edgekit.contract import channel_count
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.session import versions
from edgekit.errors import EdgekitError
from edgekit.export.run import export
from edgekit.files import sha256_of, write_atomic
from edgekit.model_store import BEST_NAME
from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.data import EXPRESSIONS, DataSet
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import aligned, evaluate
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import create_model
from edgekit.models.training.loop import METRICS_NAME

sys.path.append(str(Path(__file__).resolve().parents[1]))
from structure import structure_of

NETS = (
    BASE,
    "edgecnn-g",
    "edgecnn-wide",
    "mini-xception",
    "mobilenetv2",
    "mobilenetv3-small",
    "shufflenetv2-x0.5",
)
# The recipe's learning rate was tuned on EdgeCNN. MobileNetV2 does not learn at 0.1; these three get a fifth.
LEARNING_RATES = {"mobilenetv2": 0.02, "mobilenetv3-small": 0.02, "shufflenetv2-x0.5": 0.02}
# bf16 slows depthwise convolutions down: a step of these nets takes 1.7 to 2.2 times as long.
FLOAT32_NETS = ("mobilenetv2", "mobilenetv3-small", "shufflenetv2-x0.5")
# Nets of which only the cost is measured: edgecnn-g with the channel gathers of learned groups.
UNTRAINED_NETS = ("edgecnn-g-condensed",)
TEST_SPLIT = "PrivateTest"
MEASURED_NAME = "measured.json"
LATENCY_NAME = "latency.json"


def train_net(name: str, data: Path, folder: Path, budget: Sequence[str]) -> None:
    """Train one net, or resume its training if it was interrupted.

    Raises:
        click.ClickException: The training failed; its own message is on stderr.
    """
    rate = ["--max-lr", str(LEARNING_RATES[name])] if name in LEARNING_RATES else []
    command = ["train", "--data", data, "--model", name, "-o", folder, "--resume", *budget, *rate]
    done = subprocess.run([sys.executable, "-m", "edgekit.cli", *command])
    if done.returncode:
        raise click.ClickException(f"the training of {name} ended with exit code {done.returncode}")


def evaluate_net(name: str, folder: Path, dataset: DataSet | None) -> dict[str, Any]:
    """Export a net and return its cost, and its accuracy if it is trained; the results are stored in the folder.

    A net whose training was interrupted counts as untrained.
    """
    checkpoint_path = folder / BEST_NAME
    trained = checkpoint_path.exists() and _is_finished(folder)
    if not trained:
        checkpoint_path = folder / "untrained.safetensors"
        contract = contract_for(name, EXPRESSIONS, "untrained", gray=True)
        save_checkpoint(checkpoint_path, Checkpoint(contract, _untrained(name).state_dict()))
    kept = _read_json(folder / MEASURED_NAME)
    checkpoint_sha256 = sha256_of(checkpoint_path)
    if kept.get("checkpoint_sha256") == checkpoint_sha256 and (kept["accuracy"] or dataset is None or not trained):
        return kept
    target = folder / f"{name}.onnx"
    exported = export(checkpoint_path, target)
    cost, training = exported.cost, load_checkpoint(checkpoint_path).training
    measured = {
        "name": name,
        "checkpoint_sha256": checkpoint_sha256,
        "file_sha256": exported.sha256,
        "structure_sha256": structure_of(target),
        "size_bytes": exported.size_bytes,
        "parameters": exported.net_parameters,
        "macs": cost.macs,
        "weight_bytes": cost.weight_bytes,
        "read_bytes": cost.read_bytes,
        "written_bytes": cost.written_bytes,
        "moved_bytes": cost.moved_bytes,
        "flops_per_byte": 2 * cost.macs / cost.moved_bytes,
        "budget": _budget_of(training) if trained else None,
        "precision": training["precision"] if trained else None,
        "best": training.get("best"),
        "accuracy": _accuracy(target, dataset) if trained and dataset is not None else None,
    }
    write_atomic(folder / MEASURED_NAME, json.dumps(measured, indent=2) + "\n")
    return measured


def _is_finished(folder: Path) -> bool:
    done = len((folder / METRICS_NAME).read_text().splitlines())
    return bool(done == load_checkpoint(folder / BEST_NAME).training["recipe"]["epochs"])


def _untrained(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = create_model(name, len(EXPRESSIONS))
    # Non-zero: the exporter would leave out a bias of zeros.
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
    return net


def _budget_of(training: Any) -> dict[str, Any]:
    recipe = training["recipe"]
    return {
        "recipe": training["recipe_name"],
        "epochs": recipe["epochs"],
        "batch_size": recipe["batch_size"],
        "seed": training["seed"],
        "data_sha256": training["data_sha256"],
    }


def _accuracy(path: Path, dataset: DataSet) -> dict[str, Any]:
    classifier = Classifier(path, intra_op_threads=1)
    images = aligned(dataset, dataset.split(TEST_SPLIT), classifier.contract)
    results = {name: evaluate(classifier, images, name) for name in ("center-crop", "ten-crop")}
    return {name: {"correct": result.correct, "total": result.total} for name, result in results.items()}


def latencies(paths: dict[str, Path], rounds: int, inferences: int) -> dict[str, Any]:
    """Return, for each net, the median time in ms, and the median over rounds of the ratio to EdgeCNN's time.

    In a round each net runs `inferences` times at batch size 1; each round starts with a different net.
    """
    nets = {name: Classifier(path, intra_op_threads=1) for name, path in paths.items()}
    generator = np.random.default_rng(0)
    tensors = {}
    for name, net in nets.items():
        spec = net.contract.input
        shape = (1, channel_count(spec.channels), *spec.size_hw)
        tensors[name] = generator.uniform(0, 1, shape).astype(np.float32)
        for _ in range(inferences):
            net.infer(tensors[name])
    names, samples_ms = list(nets), {name: [] for name in nets}
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            started_s = time.perf_counter()
            for _ in range(inferences):
                nets[name].infer(tensors[name])
            samples_ms[name].append((time.perf_counter() - started_s) * 1e3 / inferences)
    return {
        "board": asdict(read_board()),
        "versions": versions(),
        "threads": 1,
        "rounds": rounds,
        "inferences_a_round": inferences,
        "structures": {name: structure_of(path) for name, path in paths.items()},
        "nets": {
            name: {
                "ms": statistics.median(samples),
                "ratio": statistics.median(a / b for a, b in zip(samples, samples_ms[BASE], strict=True)),
            }
            for name, samples in samples_ms.items()
        },
    }


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


@click.command()
@click.option("--train", "do_train", is_flag=True)
@click.option("--evaluate", "do_evaluate", is_flag=True)
@click.option("--latency", "do_latency", is_flag=True)
@click.option("--report", "do_report", is_flag=True)
@click.option("--data", type=click.Path(path_type=Path), help="FER-2013 in any form edgekit reads.")
@click.option(
    "--only", type=click.Choice(NETS + UNTRAINED_NETS), multiple=True, help="Nets to train and evaluate; default: all."
)
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="bf16",
    show_default=True,
    help=f"Precision of training; {', '.join(FLOAT32_NETS)} always use fp32.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of training.")
@click.option("--rounds", type=click.IntRange(min=3), default=21, show_default=True)
@click.option("--inferences", type=click.IntRange(min=1), default=50, show_default=True, help="Per net and round.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/study"), show_default=True)
@click.option(
    "--counts", type=click.Path(path_type=Path), default=Path(__file__).resolve().parents[1] / "cores/results/a53"
)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("docs/study"), show_default=True)
def main(
    do_train: bool,
    do_evaluate: bool,
    do_latency: bool,
    do_report: bool,
    data: Path | None,
    only: tuple[str, ...],
    epochs: int,
    precision: str,
    threads: int | None,
    rounds: int,
    inferences: int,
    runs: Path,
    counts: Path,
    output: Path,
) -> None:
    """Run the steps whose flags are given, or all."""
    everything = not (do_train or do_evaluate or do_latency or do_report)
    names = [name for name in NETS + UNTRAINED_NETS if name in only or not only]
    try:
        if do_train or everything:
            if data is None:
                raise click.UsageError("training needs --data")
            budget = ["--recipe", "fer2013", "--epochs", str(epochs), "--seed", "0"]
            budget += ["--threads", str(threads)] if threads else []
            for name in names:
                if name in NETS:
                    chosen = "fp32" if name in FLOAT32_NETS else precision
                    train_net(name, data, runs / name, [*budget, "--precision", chosen])
        if do_evaluate or everything:
            dataset = load_dataset(data) if data is not None else None
            for name in names:
                evaluate_net(name, runs / name, dataset)
                click.echo(f"{name}: {runs / name / name}.onnx", err=True)
        if do_latency or everything:
            paths = {name: runs / name / f"{name}.onnx" for name in NETS + UNTRAINED_NETS}
            write_atomic(runs / LATENCY_NAME, json.dumps(latencies(paths, rounds, inferences), indent=2) + "\n")
        if do_report or everything:
            measured = [_read_json(runs / name / MEASURED_NAME) for name in NETS + UNTRAINED_NETS]
            write_report([net for net in measured if net], _read_json(runs / LATENCY_NAME), counts, output)
            click.echo(f"{output}: study.md, study.json, study.png", err=True)
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
