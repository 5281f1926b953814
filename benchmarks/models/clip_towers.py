"""Cost of prompts for a CLIP with random weights; the cost depends only on the shape of the towers.

    python benchmarks/models/clip_towers.py towers --threads 2
    python benchmarks/models/clip_towers.py step --threads 2 --batch 4

`towers` prints the time of the image tower with prompts, of the same pass without prompts, and of the ensemble, each
divided by the time of open_clip's image tower without prompts, in alternating pairs (see `pairs.py`). The ensemble
passes each image through two towers.

`step` prints time and memory of a step of prompt training, and the estimated duration of a whole training.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch

from edgekit.boards import read_board
from edgekit.errors import EdgekitError
from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.config import PRESETS, PromptConfig, shortened
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.clip.load import random_clip
from edgekit.models.clip.mini import CLIP_MINI
from edgekit.models.clip.prompt_insertion import encode_image
from edgekit.models.clip.prompted import PromptedClip
from edgekit.models.data import EXPRESSIONS
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.optimizer import make_optimizer
from edgekit.models.training.recipes import RECIPES

sys.path.append(str(Path(__file__).resolve().parents[1]))
from pairs import Pairs, time_pairs

ALLOWED_RATIO = 1.15

VIT_B_16 = ClipConfig(
    image_size_px=224,
    patch_size_px=16,
    vision=Tower(768, 12, 12),
    text=Tower(512, 12, 8),
    embed_dim=512,
    activation="quick-gelu",
)
SHAPES = {"vit-b-16": VIT_B_16, "clip-mini": CLIP_MINI}
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class TowerCost:
    """Median seconds per batch; ratios of these times to those of open_clip's image tower, per pair and their median.

    `plain_s` is the time of open_clip's tower. `unprompted_s` is the time of edgekit's pass without prompts, with which
    the prompted time is compared to get the cost of the prompts alone.
    """

    plain_s: float
    prompted_s: float
    prompted_ratio: float
    prompted_ratios: tuple[float, ...]
    unprompted_s: float
    unprompted_ratio: float
    ensemble_s: float
    ensemble_ratio: float
    allowed: float = ALLOWED_RATIO


@dataclass(frozen=True)
class StepCost:
    """Seconds per training step of `batch` images and per evaluated image, and peak memory of the process in MiB."""

    batch: int
    step_s: float
    evaluated_image_s: float
    peak_mib: float
    prompts_mib: float


def preset(config: ClipConfig) -> PromptConfig:
    """Return the paper's few-shot hyper-parameters, scaled down to the layers of a smaller CLIP."""
    return shortened(PRESETS["few-shot"], config)


def compare_towers(
    config: ClipConfig, batch: int, pairs: int, clock: str, autocast: AbstractContextManager[Any]
) -> TowerCost:
    """Return the comparison, measured after a warm-up batch; towers without a required ratio get half the pairs."""
    clip, values = random_clip(config), preset(config)
    visual = clip.model.visual
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, config.image_size_px, config.image_size_px, generator=generator)
    prompts = torch.randn(values.depth, values.n_ctx, config.vision.width, generator=generator) * 0.02

    def both(shown: torch.Tensor) -> None:
        encode_image(visual, shown, prompts)
        encode_image(visual, shown)

    works: list[Callable[[torch.Tensor], object]] = [
        clip.model.encode_image,
        lambda shown: encode_image(visual, shown, prompts),
        lambda shown: encode_image(visual, shown),
        both,
    ]
    with torch.no_grad(), autocast:
        for work in works:
            work(images[:2])

        def timed(second: Callable[[torch.Tensor], object], count: int) -> Pairs:
            return time_pairs(lambda _: works[0](images), lambda _: second(images), count, CLOCKS[clock])

        alone = timed(works[1], pairs)
        unprompted, ensemble = (timed(work, max(1, pairs // 2)) for work in works[2:])
    return TowerCost(
        alone.first_s,
        alone.second_s,
        alone.ratio,
        alone.ratios,
        unprompted.second_s,
        unprompted.ratio,
        ensemble.second_s,
        ensemble.ratio,
    )


def measure_step(net: PromptedClip, batch: int, steps: int, clock: str, precision: str) -> StepCost:
    """Return the cost of a training step (the fastest of several) and of evaluating an image."""
    optimizer = make_optimizer(RECIPES["hicropl"], net.learner)
    images = torch.randn(batch, 3, net.clip.image_size_px, net.clip.image_size_px)
    labels = torch.arange(batch) % len(net.classes)
    now = CLOCKS[clock]
    seconds = []
    for _ in range(steps):
        started = now()
        with _autocast(precision):
            loss = net.loss(images, labels).total
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(now() - started)
    with torch.no_grad():
        text = net.eval().text_features()
        started = now()
        net(images, text)
        evaluated = (now() - started) / batch
    values = sum(parameter.numel() for parameter in net.learner.parameters())
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return StepCost(batch, min(seconds), evaluated, peak_kib / 1024, values * 4 / 2**20)


def estimate(cost: StepCost, classes: int, shots: int, epochs: int, tested: int) -> str:
    """Return the estimated duration of a few-shot training as text."""
    seen = classes * shots * epochs
    hours = (seen * cost.step_s / cost.batch + tested * cost.evaluated_image_s) / 3600
    duration = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
    return f"estimate: {classes} classes x {shots} images x {epochs} epochs, tested on {tested} images: {duration}"


def _autocast(precision: str) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")


@click.group()
def main() -> None:
    """Measure the cost of prompts for a CLIP."""


def _common(function: Callable[..., None]) -> Callable[..., None]:
    for decorator in reversed(
        (
            click.option("--clip", "shape", type=click.Choice(list(SHAPES)), default="vit-b-16", show_default=True),
            click.option("--threads", type=click.IntRange(min=1), help="Default: torch's choice."),
            click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True),
            click.option(
                "--clock",
                type=click.Choice(list(CLOCKS)),
                default="wall",
                show_default=True,
                help="cpu: CPU time, for a machine with other load.",
            ),
            click.option("--json", "as_json", is_flag=True),
        )
    ):
        function = decorator(function)
    return function


@main.command()
@_common
@click.option("--batch", type=click.IntRange(min=2), default=32, show_default=True)
@click.option("--pairs", type=click.IntRange(min=1), default=5, show_default=True)
def towers(shape: str, threads: int | None, precision: str, clock: str, as_json: bool, batch: int, pairs: int) -> None:
    """Compare the image tower with prompts, and the ensemble, with open_clip's plain tower."""
    set_torch_threads(threads)
    result = compare_towers(SHAPES[shape], batch, pairs, clock, _autocast(precision))
    click.echo(
        f"{shape}, {precision}, {torch.get_num_threads()} threads, batches of {batch} ({clock} time): plain tower "
        f"{result.plain_s:.2f} s, with prompts {result.prompted_s:.2f} s, ratio {result.prompted_ratio:.3f} "
        f"({min(result.prompted_ratios):.3f} to {max(result.prompted_ratios):.3f} in {pairs} pairs), allowed "
        f"{ALLOWED_RATIO}: {'met' if result.prompted_ratio <= ALLOWED_RATIO else 'missed'}; the same pass without "
        f"prompts {result.unprompted_s:.2f} s, ratio {result.unprompted_ratio:.3f}, so prompts cost "
        f"{result.prompted_ratio / result.unprompted_ratio:.2f} times; the ensemble's two towers "
        f"{result.ensemble_s:.2f} s, ratio {result.ensemble_ratio:.3f}",
        err=as_json,
    )
    _print_json(as_json, {"clip": shape, "precision": precision, "clock": clock, "batch": batch, **asdict(result)})


@main.command()
@_common
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=2, show_default=True)
@click.option(
    "--shots",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Images per class of the estimated training.",
)
@click.option("--tested", type=click.IntRange(min=0), default=3589, show_default=True, help="Images of its evaluation.")
def step(
    shape: str,
    threads: int | None,
    precision: str,
    clock: str,
    as_json: bool,
    batch: int,
    steps: int,
    shots: int,
    tested: int,
) -> None:
    """Measure a step of prompt training for seven classes."""
    set_torch_threads(threads)
    try:
        torch.manual_seed(0)
        clip = random_clip(SHAPES[shape])
        net = PromptedClip(clip, preset(clip.config), descriptions_for(EXPRESSIONS))
        cost = measure_step(net, batch, steps, clock, precision)
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error
    duration = estimate(cost, len(EXPRESSIONS), shots, RECIPES["hicropl"].epochs, tested)
    click.echo(
        f"{shape}, {precision}, {torch.get_num_threads()} threads ({clock} time): a step of {batch} images takes "
        f"{cost.step_s:.2f} s, evaluating an image {cost.evaluated_image_s * 1000:.0f} ms, {cost.peak_mib:.0f} MiB at "
        f"most, prompts {cost.prompts_mib:.0f} MiB; {duration}",
        err=as_json,
    )
    _print_json(as_json, {"clip": shape, "precision": precision, "clock": clock, **asdict(cost), "estimate": duration})


def _print_json(as_json: bool, document: dict[str, Any]) -> None:
    if as_json:
        about = {"board": asdict(read_board()), "torch": torch.__version__, "threads": torch.get_num_threads()}
        click.echo(json.dumps({**about, **document}, indent=2))


if __name__ == "__main__":
    main()
