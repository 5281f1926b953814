"""Cost of distillation, and accuracies of a student with merged classes.

    python benchmarks/models/distillation.py speed --threads 2

Prints the time of a training step on cached teacher outputs divided by that of a plain step of the same net on the same
images, in alternating pairs (see `pairs.py`). Run it on an otherwise idle machine.

`merged_accuracies` returns the top-1 accuracy of a student with merged classes, by four methods:

- the sum of the old probabilities, as in `edgekit export --merge`;
- the mean direction of the old class vectors;
- that mean plus an offset per class, which makes its mean logit over the images of another split equal to that of the
  sum (the labels of these images are not used);
- class vectors of new texts.

`distillation_study.py` runs the trainings and writes the tables over several seeds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import nn

from edgekit.boards import read_board
from edgekit.contract import Contract
from edgekit.errors import EdgekitError
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.data import EXPRESSIONS, DataSet, ImageSet
from edgekit.models.data.merging import merge_classes, parse_merges
from edgekit.models.distill.losses import loss_weights
from edgekit.models.distill.relabel import relabel_by_text
from edgekit.models.distill.task import DistillationConfig, DistillationTask, student_architecture
from edgekit.models.distill.teachers import EmbeddingSpace, Teacher, TeacherOutputs
from edgekit.models.evaluation.evaluate import TorchClassifier, aligned, evaluate
from edgekit.models.model_loading import build_merged_net, build_net, contract_for
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.classification import ClassificationTask
from edgekit.models.training.optimizer import make_optimizer
from edgekit.models.training.recipes import RECIPES, Recipe
from edgekit.models.training.task import Task
from edgekit.preprocess import FloatArray

sys.path.append(str(Path(__file__).resolve().parents[1]))
from pairs import time_pairs

ALLOWED_RATIO = 1.1


@dataclass(frozen=True)
class Comparison:
    """Median images/s of plain training and distillation; time ratio distillation / plain per pair, and its median."""

    architecture: str
    embed_dim: int | None
    threads: int
    batch: int
    steps_per_side: int
    plain_images_per_s: float
    distilling_images_per_s: float
    ratio: float
    ratios: tuple[float, ...]
    allowed: float


class Side:
    """One side of the comparison: trains a task with the steps of the training loop.

    A step is: draw random numbers, loss, backward, optimiser step.
    """

    def __init__(self, task: Task, recipe: Recipe) -> None:
        torch.manual_seed(0)
        self._task = task
        self._recipe = recipe
        self._net = task.build(torch.device("cpu")).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self._optimizer = make_optimizer(recipe, self._net)

    def train(self, steps: int) -> None:
        """Run `steps` training steps."""
        generator = torch.Generator().manual_seed(0)
        batches = torch.split(self._task.order(generator), self._recipe.batch_size)
        for step in range(steps):
            batch = batches[step % len(batches)]
            loss, _ = self._task.loss(self._net, batch, self._task.draw(len(batch), generator))
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()


def make_sides(student: str, embed_dim: int | None, batch: int) -> tuple[Side, Side]:
    """Return two sides: plain training, and distillation from a classifier or a CLIP with `embed_dim` dimensions."""
    recipe = replace(RECIPES["fer2013"], batch_size=batch, max_lr=0.01)
    generator = np.random.default_rng(0)
    count, classes = 16 * batch, len(EXPRESSIONS)
    images = ImageSet(
        generator.integers(0, 256, (count, 48, 48, 1), np.uint8), generator.integers(0, classes, count, np.int64)
    )
    space = embed_dim and EmbeddingSpace(np.eye(classes, embed_dim, dtype=np.float32), 100.0)
    teacher = Teacher(
        "clip" if space else "classifier", "none", EXPRESSIONS, "0" * 64, _no_outputs, space=space or None
    )
    targets = TeacherOutputs(
        generator.normal(size=(count, classes)).astype(np.float32),
        generator.normal(size=(count, embed_dim)).astype(np.float32) if embed_dim else None,
    )
    plain = contract_for(student, EXPRESSIONS, "noise", gray=True)
    own = contract_for(student_architecture(student, teacher), EXPRESSIONS, "noise", gray=True)
    config = DistillationConfig(loss_weights(teacher, None, 0.1, None))
    return (
        Side(ClassificationTask(plain, recipe, images, images), recipe),
        Side(DistillationTask(own, recipe, images, images, teacher, config, targets), recipe),
    )


def compare(student: str, embed_dim: int | None, batch: int, pairs: int, steps_per_side: int) -> Comparison:
    """Return the comparison of both sides, measured after two warm-up steps of each side."""
    plain, distilling = make_sides(student, embed_dim, batch)
    for side in (plain, distilling):
        side.train(2)
    timed = time_pairs(lambda _: plain.train(steps_per_side), lambda _: distilling.train(steps_per_side), pairs)
    images = batch * steps_per_side
    return Comparison(
        architecture=student,
        embed_dim=embed_dim,
        threads=torch.get_num_threads(),
        batch=batch,
        steps_per_side=steps_per_side,
        plain_images_per_s=images / timed.first_s,
        distilling_images_per_s=images / timed.second_s,
        ratio=timed.ratio,
        ratios=timed.ratios,
        allowed=ALLOWED_RATIO,
    )


def _no_outputs(_: Any) -> TeacherOutputs:
    raise AssertionError("the outputs are cached")


@click.group()
def main() -> None:
    """Measure cost and effect of distillation."""


@main.command()
@click.option("--student", default="edgecnn", show_default=True)
@click.option(
    "--embed-dim",
    type=click.IntRange(min=1),
    help="Embedding size of a CLIP as teacher; default: a classifier is the teacher.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: torch's choice.")
@click.option("--batch", type=click.IntRange(min=2), default=64, show_default=True)
@click.option("--pairs", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=30, show_default=True, help="Per side and pair.")
@click.option("--json", "as_json", is_flag=True)
def speed(
    student: str, embed_dim: int | None, threads: int | None, batch: int, pairs: int, steps: int, as_json: bool
) -> None:
    """Compare a training step on cached teacher outputs with a plain one."""
    set_torch_threads(threads)
    result = or_line(lambda: compare(student, embed_dim, batch, pairs, steps))
    space = f" in {embed_dim} dimensions" if embed_dim else ""
    click.echo(
        f"{student}{space}, {result.threads} threads, batches of {batch}: plain {result.plain_images_per_s:.0f} "
        f"images/s, distillation {result.distilling_images_per_s:.0f}; time ratio {result.ratio:.3f} "
        f"({min(result.ratios):.3f} to {max(result.ratios):.3f} in {pairs} pairs), "
        f"allowed {ALLOWED_RATIO}: {'met' if result.ratio <= ALLOWED_RATIO else 'missed'}",
        err=as_json,
    )
    if as_json:
        document = {"board": asdict(read_board()), "torch": torch.__version__, **asdict(result)}
        click.echo(json.dumps(document, indent=2))


def merged_accuracies(
    student: Path,
    dataset: DataSet,
    splits: tuple[str, str],
    merges: Sequence[str],
    descriptions: Path | None,
    clip: str | None,
    prompts: Path | None,
) -> dict[str, float]:
    """Return the accuracy of a student with merged classes by each method.

    `splits` are the split to evaluate on, and the split from which the offsets of the mean vectors are computed.

    Raises:
        InputError: The student, the merges, the texts or the teacher do not fit.
    """
    checkpoint = load_checkpoint(student)
    groups = parse_merges(merges, checkpoint.contract.labels)
    together = merge_classes(dataset, groups)
    truth = together.split(splits[0]).labels
    nets: dict[str, tuple[nn.Module, Contract]] = {"sum of old probabilities": build_merged_net(checkpoint, groups)}
    if clip:
        texts = descriptions_for(tuple(groups), descriptions, click.echo)
        nets["vectors of new texts"] = relabel_by_text(checkpoint, texts, clip, prompts)
    logits = {name: _logits(net, contract, together, splits[0]) for name, (net, contract) in nets.items()}
    plain = build_net(checkpoint), checkpoint.contract
    kept = [number for number, name in enumerate(dataset.classes) if any(name in old for old in groups.values())]
    own = _logits(*plain, dataset, splits[0])[np.isin(dataset.split(splits[0]).labels, kept)]
    means, _ = means_and_sums(checkpoint, groups, own)
    offset_means, offset_sums = means_and_sums(checkpoint, groups, _logits(*plain, dataset, splits[1]))
    logits["mean of old vectors"] = means
    logits["mean of old vectors and an offset"] = means + (offset_sums - offset_means).mean(axis=0)
    return {name: float((each.argmax(axis=1) == truth).mean()) for name, each in logits.items()}


def means_and_sums(
    checkpoint: Checkpoint, groups: Mapping[str, Sequence[str]], logits: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return two kinds of merged logits, (N, new classes) each, computed from a student's logits (N, old classes).

    The first are the logits of the mean directions of old class vectors, the second are log Σ exp of the old logits.
    """
    labels, vectors = checkpoint.contract.labels, checkpoint.state["class_vectors"].numpy()
    means, sums = [], []
    for names in groups.values():
        places = [labels.index(name) for name in names]
        means.append(logits[:, places].mean(axis=1) / np.linalg.norm(vectors[places].mean(axis=0)))
        sums.append(np.logaddexp.reduce(logits[:, places], axis=1))
    return np.stack(means, axis=1), np.stack(sums, axis=1)


def _logits(net: torch.nn.Module, contract: Contract, dataset: DataSet, split: str) -> FloatArray:
    images = aligned(dataset, dataset.split(split), contract)
    return evaluate(TorchClassifier(net, contract), images, "center-crop").logits


def or_line(measure: Callable[[], Any]) -> Any:
    """Return the result of `measure`; for an error of edgekit, click prints one line instead of a traceback."""
    try:
        return measure()
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
