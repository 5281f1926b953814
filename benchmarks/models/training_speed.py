"""Speed of edgekit's training step, compared with the same net trained as EdgeCNN's authors train it.

    python benchmarks/models/training_speed.py --threads 2

The authors' dense layers keep only their inputs for the backward pass, which recomputes concatenation, first
convolution and its BatchNorm (torch.utils.checkpoint), on contiguous (NCHW) tensors. edgekit keeps the results for the
backward pass and uses channels_last. The first ratio measures both differences together; the second measures
checkpointing alone, with channels_last on both sides. Prints images/s and both ratios, each the median of alternating
pairs (see `pairs.py`). Run it on an otherwise idle machine.

Equality is checked first, with channels_last on both sides: over ten steps from the same trained weights on the same
batches the losses must agree within 1e-4. (With different layouts torch sums in another order, and rounding alone
causes differences of about that size. With random weights they are larger.)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import click
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from edgekit.boards import read_board
from edgekit.device.engines.portrait import portrait_crops
from edgekit.errors import EdgekitError
from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint
from edgekit.models.model_loading import build_net
from edgekit.models.nets.edgecnn import DenseLayer, EdgeCNN
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.optimizer import make_optimizer
from edgekit.models.training.recipes import RECIPES

sys.path.append(str(Path(__file__).resolve().parents[1]))
from pairs import time_pairs

REQUIRED_RATIO = 1.35
LARGEST_DIFFERENCE = 1e-4
EQUALITY_STEPS = 10
RECIPE = replace(RECIPES["fer2013"], max_lr=0.01)

Batch = tuple[Tensor, Tensor]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Comparison:
    """Median images/s; ratios of the authors' time to edgekit's, per pair and their median.

    `checkpointing` is the authors' net with channels_last. `losses` are edgekit's losses over ten steps with
    channels_last on both sides, `loss_difference` is their largest relative difference from the authors' losses.
    """

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
    checkpointing_images_per_s: float
    checkpointing_ratio: float
    checkpointing_ratios: tuple[float, ...]
    loss_difference: float
    losses: tuple[float, ...]


class CheckpointedBlock(nn.Module):
    """Dense layers that keep only their inputs and recompute their first half in the backward pass."""

    def __init__(self, block: nn.Sequential) -> None:
        super().__init__()
        self.layers = nn.ModuleList(block)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
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

    def __init__(self, net: nn.Module, precision: Precision, layout: torch.memory_format) -> None:
        self._net = net.to(memory_format=layout).train()
        self._optimizer = make_optimizer(RECIPE, net)
        self._autocast = precision == "bf16"
        self._layout = layout

    def step(self, batch: Batch) -> Tensor:
        """Run one training step and return its loss."""
        images, labels = batch
        images = images.expand(-1, 3, -1, -1).contiguous(memory_format=self._layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            logits = self._net(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=RECIPE.label_smoothing)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def losses(self, batches: Sequence[Batch]) -> list[float]:
        """Run one training step per batch and return the losses."""
        return [float(self.step(batch)) for batch in batches]


def our_side(start: Checkpoint, precision: Precision) -> Side:
    """Return edgekit's side of the comparison, which starts from a checkpoint."""
    return Side(build_net(start), precision, torch.channels_last)


def their_side(start: Checkpoint, precision: Precision, layout: torch.memory_format = torch.contiguous_format) -> Side:
    """Return the authors' side of the comparison, with checkpointing and the given memory layout.

    Raises:
        click.ClickException: The checkpoint is not an EdgeCNN.
    """
    net = build_net(start)
    if not isinstance(net, EdgeCNN):
        raise click.ClickException(f"{start.contract.architecture} has no dense layers: name an edgecnn checkpoint")
    net.blocks = nn.ModuleList(CheckpointedBlock(block) for block in net.blocks)
    return Side(net, precision, layout)


def make_batches(start: Checkpoint, count: int, batch_size: int) -> list[Batch]:
    """Return batches of the shipped portrait's crops with random labels."""
    generator = torch.Generator().manual_seed(0)
    crops = torch.from_numpy(portrait_crops(start.contract)).permute(0, 3, 1, 2).float() / 255
    return [
        (
            crops[torch.randint(len(crops), (batch_size,), generator=generator)],
            torch.randint(len(start.contract.labels), (batch_size,), generator=generator),
        )
        for _ in range(count)
    ]


def compare(start: Checkpoint, precision: Precision, batch_size: int, pairs: int, steps_per_side: int) -> Comparison:
    """Check equality over ten steps, which also warm up, then time twice `pairs` pairs of `steps_per_side` steps.

    Raises:
        click.ClickException: The checkpoint is not an EdgeCNN.
    """
    ours, theirs = our_side(start, precision), their_side(start, precision)
    checkpointing = their_side(start, precision, torch.channels_last)
    batches = make_batches(start, EQUALITY_STEPS, batch_size)
    losses, same_losses = ours.losses(batches), checkpointing.losses(batches)
    theirs.losses(batches)
    batches = make_batches(start, steps_per_side, batch_size)
    whole, alone = (
        time_pairs(lambda _: ours.losses(batches), lambda _, other=other: other.losses(batches), pairs)
        for other in (theirs, checkpointing)
    )
    images = batch_size * steps_per_side
    return Comparison(
        architecture=start.contract.architecture,
        precision=precision,
        threads=torch.get_num_threads(),
        batch=batch_size,
        steps_per_side=steps_per_side,
        ours_images_per_s=images / whole.first_s,
        theirs_images_per_s=images / whole.second_s,
        ratio=whole.ratio,
        ratios=whole.ratios,
        required=REQUIRED_RATIO,
        checkpointing_images_per_s=images / alone.second_s,
        checkpointing_ratio=alone.ratio,
        checkpointing_ratios=alone.ratios,
        loss_difference=max(abs(a - b) / abs(a) for a, b in zip(losses, same_losses, strict=True)),
        losses=tuple(losses),
    )


@click.command()
@click.option("--model", default="default", show_default=True, help="Initial weights: an edgecnn checkpoint.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Default: torch's choice.")
@click.option("--batch", "batch_size", type=click.IntRange(min=2), default=64, show_default=True)
@click.option("--pairs", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=30, show_default=True, help="Per side and pair.")
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
    """Compare images per second of edgekit's training step and the authors'."""
    set_torch_threads(threads)
    try:
        start = load_checkpoint(resolve_model(model, (CHECKPOINT_SUFFIX,)))
        result = compare(start, precision, batch_size, pairs, steps)
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"{result.architecture}, {result.precision}, {result.threads} threads, batches of {result.batch}: "
        f"{result.ours_images_per_s:.0f} images/s, as the authors train {result.theirs_images_per_s:.0f} "
        f"(checkpoints, contiguous layout); ratio {_range(result.ratio, result.ratios)}, "
        f"required {REQUIRED_RATIO}: {'met' if result.ratio >= REQUIRED_RATIO else 'missed'}; "
        f"checkpoints alone, our layout: {result.checkpointing_images_per_s:.0f}, "
        f"ratio {_range(result.checkpointing_ratio, result.checkpointing_ratios)}; "
        f"losses of {EQUALITY_STEPS} steps in our layout differ by {result.loss_difference:.1e} at most, "
        f"allowed {LARGEST_DIFFERENCE:g}: {'met' if result.loss_difference <= LARGEST_DIFFERENCE else 'missed'}",
        err=as_json,
    )
    if as_json:
        document = {"board": asdict(read_board()), "torch": torch.__version__, **asdict(result)}
        click.echo(json.dumps(document, indent=2))


def _range(ratio: float, ratios: Sequence[float]) -> str:
    return f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} pairs)"


if __name__ == "__main__":
    main()
