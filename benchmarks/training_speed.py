"""What gradient checkpointing costs: our training step against the same net trained as the EdgeCNN authors do.

Their dense layers keep only their inputs for the backward pass and run concatenation, first convolution and its
BatchNorm again there (torch.utils.checkpoint): in their checkpoint those BatchNorms have counted two batches for each
one of the others. Ours keep what they computed. The mathematics is the same, which is checked first: over ten steps
from the same trained weights on the same batches the losses must agree within 1e-4. (From fresh weights rounding alone
parts two such trainings by more.)

Pairs alternate which side goes first; a pair's ratio compares neighbours in time, and the median over the pairs is
reported. Run it on a quiet machine.

    python benchmarks/training_speed.py --threads 2
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import click
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from edgekit.boards import read_board
from edgekit.errors import EdgekitError
from edgekit.export.verify import portrait_crops
from edgekit.modelfiles import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.checkpoint import Checkpoint, build_net, load_checkpoint
from edgekit.models.edgecnn import DenseLayer, EdgeCNN
from edgekit.models.recipes import RECIPES

REQUIRED_RATIO = 1.35
LARGEST_DIFFERENCE = 1e-4
EQUALITY_STEPS = 10

Batch = tuple[Tensor, Tensor]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Comparison:
    """Images a second (medians), the median of the pairs' ratios, and the largest relative difference of two losses."""

    architecture: str
    precision: str
    threads: int
    batch: int
    steps_per_side: int
    ours_images_per_s: float
    theirs_images_per_s: float
    ratio: float
    ratios: tuple[float, ...]
    required: float
    loss_difference: float
    losses: tuple[float, ...]


class CheckpointedBlock(nn.Module):
    """A block of dense layers that keeps each layer's inputs only and computes its first half again going backward."""

    def __init__(self, block: nn.Sequential) -> None:
        super().__init__()
        self.layers = nn.ModuleList(block)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the block returns."""
        features = [x]
        for layer in self.layers:
            assert isinstance(layer, DenseLayer)
            new = checkpoint(_first_half, layer, *features, use_reentrant=False)
            features.append(layer.reduce_norm(layer.reduce(layer.shuffle(new))))
        return torch.cat(features, dim=1)


def _first_half(layer: DenseLayer, *features: Tensor) -> Tensor:
    return torch.relu(layer.expand_norm(layer.expand(torch.cat(features, dim=1))))


class Side:
    """A net in training, with the optimiser of recipe `fer2013` at a small fixed learning rate."""

    def __init__(self, net: nn.Module, precision: Precision) -> None:
        recipe = RECIPES["fer2013"]
        self._net = net.to(memory_format=torch.channels_last).train()
        self._optimizer = torch.optim.SGD(
            net.parameters(), lr=0.01, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
        )
        self._autocast = precision == "bf16"
        self._smoothing = recipe.label_smoothing

    def step(self, batch: Batch) -> Tensor:
        """Take one step and return its loss."""
        images, labels = batch
        with torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            logits = self._net(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self._smoothing)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def seconds(self, batches: Sequence[Batch]) -> float:
        """Return how long a step on each batch takes in all."""
        started_s = time.perf_counter()
        for batch in batches:
            self.step(batch)
        return time.perf_counter() - started_s


def make_sides(start: Checkpoint, precision: Precision) -> tuple[Side, Side]:
    """Return our side and theirs with the same weights.

    Raises:
        click.ClickException: The checkpoint is not of EdgeCNN's family.
    """
    ours, theirs = build_net(start), build_net(start)
    if not isinstance(theirs, EdgeCNN):
        raise click.ClickException(f"{start.contract.architecture} has no dense layers: name an edgecnn checkpoint")
    theirs.blocks = nn.ModuleList(CheckpointedBlock(block) for block in theirs.blocks)
    return Side(ours, precision), Side(theirs, precision)


def make_batches(start: Checkpoint, count: int, batch_size: int) -> list[Batch]:
    """Return batches of the shipped portrait's crops with random labels."""
    generator = torch.Generator().manual_seed(0)
    crops = torch.from_numpy(portrait_crops(start.contract)).permute(0, 3, 1, 2).float() / 255
    batches = []
    for _ in range(count):
        images = crops[torch.randint(len(crops), (batch_size,), generator=generator)].expand(-1, 3, -1, -1)
        labels = torch.randint(len(start.contract.labels), (batch_size,), generator=generator)
        batches.append((images.contiguous(memory_format=torch.channels_last), labels))
    return batches


def compare(start: Checkpoint, precision: Precision, batch_size: int, pairs: int, steps_per_side: int) -> Comparison:
    """Return the comparison: equality over ten steps, which also warm up, then `pairs` of `steps_per_side` steps."""
    ours, theirs = make_sides(start, precision)
    batches = make_batches(start, EQUALITY_STEPS, batch_size)
    first = [(float(ours.step(batch)), float(theirs.step(batch))) for batch in batches]
    batches = make_batches(start, steps_per_side, batch_size)
    ours_s, theirs_s = [], []
    for pair in range(pairs):
        if pair % 2:
            theirs_s.append(theirs.seconds(batches))
            ours_s.append(ours.seconds(batches))
        else:
            ours_s.append(ours.seconds(batches))
            theirs_s.append(theirs.seconds(batches))
    images = batch_size * steps_per_side
    ratios = tuple(slow / fast for slow, fast in zip(theirs_s, ours_s, strict=True))
    return Comparison(
        architecture=start.contract.architecture,
        precision=precision,
        threads=torch.get_num_threads(),
        batch=batch_size,
        steps_per_side=steps_per_side,
        ours_images_per_s=images / statistics.median(ours_s),
        theirs_images_per_s=images / statistics.median(theirs_s),
        ratio=statistics.median(ratios),
        ratios=ratios,
        required=REQUIRED_RATIO,
        loss_difference=max(abs(a - b) / abs(a) for a, b in first),
        losses=tuple(a for a, _ in first),
    )


@click.command()
@click.option("--model", default="default", show_default=True, help="Weights to start from, an edgecnn checkpoint.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Default: torch's choice.")
@click.option("--batch", "batch_size", type=click.IntRange(min=2), default=64, show_default=True)
@click.option("--pairs", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=30, show_default=True, help="A side and pair.")
@click.option("--json", "as_json", is_flag=True)
def main(
    model: str,
    precision: Precision,
    threads: int | None,
    batch_size: int,
    pairs: int,
    steps: int,
    as_json: bool,
) -> None:
    """Compare images per second of both kinds of training step."""
    if threads:
        torch.set_num_threads(threads)
    try:
        start = load_checkpoint(resolve_model(model, (CHECKPOINT_SUFFIX,)))
        result = compare(start, precision, batch_size, pairs, steps)
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"{result.architecture}, {result.precision}, {result.threads} threads, batches of {result.batch}: "
        f"{result.ours_images_per_s:.0f} images/s, with checkpoints {result.theirs_images_per_s:.0f}; "
        f"ratio {result.ratio:.2f} ({min(result.ratios):.2f} to {max(result.ratios):.2f} in {pairs} pairs), "
        f"required {REQUIRED_RATIO}: {'met' if result.ratio >= REQUIRED_RATIO else 'missed'}; "
        f"losses of {EQUALITY_STEPS} steps differ by {result.loss_difference:.1e} at most, "
        f"allowed {LARGEST_DIFFERENCE:g}: {'met' if result.loss_difference <= LARGEST_DIFFERENCE else 'missed'}",
        err=as_json,
    )
    if as_json:
        document = {"board": asdict(read_board()), "torch": torch.__version__, **asdict(result)}
        click.echo(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
