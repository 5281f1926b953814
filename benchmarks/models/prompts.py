"""HiCroPL's prompts compared with simpler prompts on one CLIP: few-shot, all images, base to novel, ablations.

    python benchmarks/models/prompts.py --data fer2013.tar.gz --clip runs/mini/best.safetensors \\
        --base-clip runs/mini-base/best.safetensors --threads 1
    python benchmarks/models/prompts.py --data fer2013.tar.gz --clip ... --base-clip ... --report --final

There are five steps. Without flags all of them run, else those whose flags are given. A finished training is not
repeated, an interrupted one is resumed:

    --few-shot        every variant, 16 images per class, several seeds
    --full            HiCroPL and independent prompts on all images, one seed
    --base-to-novel   every variant on --base-clip, which was pretrained without the novel classes
    --ablations       HiCroPL with one part changed, 16 images per class
    --report          writes prompts.md and prompts.json; with --final also measures PrivateTest

Before the trainings, the remaining time is estimated from a step timed on this machine; `--estimate` prints it and
stops.

All comparisons use PublicTest. Use `--final` when all choices are made: it measures all variants except the ablations
on PrivateTest.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from clip_towers import measure_step
from data_identity import data_identity
from prompts_report import BASE, CHOSEN_ON, TESTED_ON, TITLES, report

from edgekit.errors import EdgekitError, InputError
from edgekit.files import sha256_of, write_atomic
from edgekit.models.clip.checkpoint import build_prompted, load_prompts
from edgekit.models.clip.config import shortened
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.clip.frozen import FrozenClip
from edgekit.models.clip.load import load_clip
from edgekit.models.clip.prompted import PromptedClip
from edgekit.models.clip.protocols import TaskName, load_task_data, measure, preset_of, recipe_name_of
from edgekit.models.data import EXPRESSIONS, usual_training_split, usual_validation_split
from edgekit.models.data.few_shot import MAX_VALIDATION_SHOTS, Splits, base_count
from edgekit.models.data.readers import Groups, Labels, Selection, load_dataset
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.loop import BEST_NAME
from edgekit.models.training.recipes import RECIPES

RESULTS_NAME, FINAL_NAME, SETTINGS_NAME = "results.json", "final.json", "settings.json"
DATA_SHA256 = "data_sha256"

VARIANTS = {
    BASE: (),
    "independent prompts": ("--flow", "independent"),
    "one-way flow (MaPLe)": ("--flow", "one-way"),
    "released code": ("--upstream-compat",),
}
ON_ALL_IMAGES = (BASE, "independent prompts")


@dataclass(frozen=True)
class Run:
    """One training: group, variant, seed, task, images per class, and flags."""

    group: str
    variant: str
    seed: int
    task: TaskName
    shots: int
    flags: tuple[str, ...]

    def folder(self, runs: Path) -> Path:
        name = "".join(char if char.isalnum() else "-" for char in self.variant.lower()).strip("-")
        return runs / self.group / f"{name}-{self.seed}"


def ablations(layers: int) -> dict[str, tuple[str, ...]]:
    """Return the flags of each ablation of HiCroPL, for a CLIP with this number of prompted layers."""
    return {
        "proxies: mean": ("--proxy", "mean"),
        "mapper: linear, own layer": ("--mapper", "linear"),
        "λ = 0": ("--consistency-weight", "0"),
        "λ = 4": ("--consistency-weight", "4"),
        "λ = 36": ("--consistency-weight", "36"),
        "k = 1": ("--cross-layer", "1"),
        f"k = {layers}": ("--cross-layer", str(layers)),
        "consistency of prompted features": ("--consistency-on", "prompted"),
    }


def planned(groups: Sequence[str], seeds: int, shots: int, layers: int) -> Iterator[Run]:
    """Yield the trainings of the given groups in the order of execution."""
    for group in groups:
        if group == "all":
            yield from (Run(group, name, 0, "all", shots, VARIANTS[name]) for name in ON_ALL_IMAGES)
            continue
        task: TaskName = "base-to-novel" if group == "base-to-novel" else "few-shot"
        for name, flags in (ablations(layers) if group == "ablations" else VARIANTS).items():
            yield from (Run(group, name, seed, task, shots, flags) for seed in range(seeds))


@dataclass(frozen=True)
class Pace:
    """Speed of this machine: seconds to start a training, per step of `batch` images, and per evaluated image.

    The start includes reading the data.
    """

    start_s: float
    step_s: float
    evaluated_image_s: float
    batch: int = 32


def measure_pace(clip: FrozenClip, data: Path, n_ctx: int | None, precision: str) -> tuple[Pace, dict[str, int]]:
    """Return the speed of this machine with a CLIP, and the number of images per split."""
    counts: dict[str, int] = {}

    def select(labels: Labels, classes: tuple[str, ...], groups: Groups) -> Selection:
        del classes, groups
        counts.update({name: len(numbers) for name, numbers in labels.items()})
        first = next(iter(labels))
        return {first: (first, np.arange(1))}

    started = time.perf_counter()
    load_dataset(data, clip.image_size_px, select=select)
    modules = "edgekit.models.training.loop, edgekit.models.clip.load, open_clip"
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
    start_s = time.perf_counter() - started
    config = shortened(preset_of("few-shot"), clip.config)
    config = replace(config, n_ctx=n_ctx or config.n_ctx)
    net = PromptedClip(clip, config, descriptions_for(EXPRESSIONS))
    batch = RECIPES["hicropl"].batch_size
    cost = measure_step(net, batch, 2, "wall", precision)
    return Pace(start_s, cost.step_s, cost.evaluated_image_s, batch), counts


def seconds_of(run: Run, pace: Pace, counts: Mapping[str, int], epochs: int | None) -> float:
    """Return the estimated duration of a training in seconds."""
    trained, held_back = usual_training_split(counts), usual_validation_split(counts)
    if run.task == "all":
        seen, validated = counts.get(trained or "", 0), counts.get(held_back or "", 0)
    else:
        classes = base_count(len(EXPRESSIONS)) if run.task == "base-to-novel" else len(EXPRESSIONS)
        seen, validated = classes * run.shots, classes * min(run.shots, MAX_VALIDATION_SHOTS)
    steps = -(-seen // pace.batch)
    an_epoch = steps * pace.step_s + validated * pace.evaluated_image_s
    count = epochs or RECIPES[recipe_name_of(run.task)].epochs
    return pace.start_s + count * an_epoch + counts.get(CHOSEN_ON, 0) * pace.evaluated_image_s


def estimate_text(runs: Sequence[Run], seconds: Sequence[float], pace: Pace) -> str:
    """Return the estimated duration of all trainings as text."""
    lines = [
        f"{len(runs)} trainings remain: about {sum(seconds) / 3600:.1f} hours at the pace measured now (a step of "
        f"{pace.batch} images {pace.step_s:.2f} s, an image evaluated {1000 * pace.evaluated_image_s:.1f} ms, a start "
        f"{pace.start_s:.0f} s)"
    ]
    for group in TITLES:
        of_group = [value for run, value in zip(runs, seconds, strict=True) if run.group == group]
        if of_group:
            lines.append(f"  {group}: {len(of_group)} x about {statistics.mean(of_group):.0f} s")
    return "\n".join(lines)


def with_kept_settings(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the kept results, which are in the file `path` beside them, and those of this call.

    Without results, nothing is kept.

    Raises:
        InputError: A setting has another value in the file, or is not in it.
    """
    runs = path.parent
    if not any(runs.glob(f"*/*/{RESULTS_NAME}")):
        return dict(settings)
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name, value in settings.items():
        if name == "base_clip_sha256" and not any(runs.glob(f"base-to-novel/*/{RESULTS_NAME}")):
            continue
        if name == DATA_SHA256 and name not in kept:  # results from before it was recorded
            continue
        if name not in kept:
            raise InputError(f"the results in '{runs}' do not record their {name}: use another --runs")
        if kept[name] != value:
            raise InputError(f"the results in '{runs}' have {name} {kept[name]}, not {value}: use another --runs")
    return {**kept, **settings}


def train(run: Run, clip: Path, data: Path, runs: Path, budget: Sequence[str]) -> None:
    """Run a training or resume it; a finished one is skipped.

    Raises:
        click.ClickException: The training failed; its own message is on stderr.
    """
    folder = run.folder(runs)
    if (folder / RESULTS_NAME).exists():
        return
    shots = () if run.task == "all" else ("--shots", str(run.shots))
    options = ["--clip", clip, "--data", data, "--task", run.task, *shots, "--seed", str(run.seed), *run.flags]
    where = ["--test-split", CHOSEN_ON, "-o", folder, "--resume", *budget]
    click.echo(f"{run.group}, {run.variant}, seed {run.seed}", err=True)
    done = subprocess.run([sys.executable, "-m", "edgekit.cli", "train", "--model", "hicropl", *options, *where])
    if done.returncode:
        raise click.ClickException(f"the training in '{folder}' ended with exit code {done.returncode}")


def measure_all_finally(plan: Sequence[Run], clip: Path, base_clip: Path | None, data: Path, runs: Path) -> None:
    """Measure the trained runs, except ablations, on PrivateTest; results that are already there are kept."""
    for group in dict.fromkeys(run.group for run in plan if run.group != "ablations"):
        folders = {run: run.folder(runs) for run in plan if run.group == group}
        left = [run for run, at in folders.items() if (at / RESULTS_NAME).exists() and not (at / FINAL_NAME).exists()]
        if left and group == "base-to-novel" and base_clip is None:
            click.echo(f"base to novel is not measured on {TESTED_ON}: it needs --base-clip", err=True)
            continue
        for run in left:
            measure_finally(run, _clip_of(run, clip, base_clip), data, runs)


def measure_finally(run: Run, clip_path: Path, data: Path, runs: Path) -> None:
    """Measure a trained run on PrivateTest."""
    folder = run.folder(runs)
    clip = load_clip(clip_path)
    net = build_prompted(load_prompts(folder / BEST_NAME), clip)
    splits = Splits(test=TESTED_ON)
    content = load_task_data(data, run.task, clip.image_size_px, run.shots, run.seed, splits)
    result = measure(run.task, net, content, descriptions_for)
    write_atomic(folder / FINAL_NAME, json.dumps(result.document(), indent=2) + "\n")


def collected(plan: Sequence[Run], runs: Path) -> list[dict[str, Any]]:
    """Return the existing results: one entry per group and variant, with its values in the order of the seeds."""
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    for run in plan:
        for split, name in ((CHOSEN_ON, RESULTS_NAME), (TESTED_ON, FINAL_NAME)):
            path = run.folder(runs) / name
            if path.exists():
                entry = entries.setdefault(
                    (run.group, run.variant), {"group": run.group, "variant": run.variant, "splits": {}}
                )
                summaries = entry["splits"].setdefault(split, {})
                for key, value in json.loads(path.read_text())["summary"].items():
                    summaries.setdefault(key, []).append(value)
    return list(entries.values())


@click.command()
@click.option("--few-shot", "groups", flag_value="few-shot", multiple=True)
@click.option("--full", "groups", flag_value="all", multiple=True)
@click.option("--base-to-novel", "groups", flag_value="base-to-novel", multiple=True)
@click.option("--ablations", "groups", flag_value="ablations", multiple=True)
@click.option("--estimate", "only_estimate", is_flag=True, help="Print the estimated duration and stop.")
@click.option("--report", "do_report", is_flag=True)
@click.option("--final", is_flag=True, help="Measure the variants on PrivateTest.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="FER-2013 in any form edgekit reads.")
@click.option("--clip", type=click.Path(path_type=Path), required=True, help="The CLIP to prompt.")
@click.option("--base-clip", type=click.Path(path_type=Path), help="A CLIP pretrained without the novel classes.")
@click.option("--shots", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="For few-shot trainings; default: the recipe's 50.")
@click.option("--full-epochs", type=click.IntRange(min=1), help="For trainings on all images; default: the recipe's 5.")
@click.option("--n-ctx", type=click.IntRange(min=1), help="Prompt tokens per layer; default: the preset's.")
@click.option("--min-area", type=float, help="Smallest random crop; default: the published 0.08.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="bf16", show_default=True)
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/prompts"), show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("docs/prompts"), show_default=True)
def main(
    groups: tuple[str, ...],
    only_estimate: bool,
    do_report: bool,
    final: bool,
    data: Path,
    clip: Path,
    base_clip: Path | None,
    shots: int,
    seeds: int,
    epochs: int | None,
    full_epochs: int | None,
    n_ctx: int | None,
    min_area: float | None,
    precision: str,
    threads: int | None,
    runs: Path,
    output: Path,
) -> None:
    """Run the steps whose flags are given, or all."""
    everything = not groups and not do_report
    wanted = [group for group in TITLES if group in groups or everything]
    if base_clip is None and "base-to-novel" in wanted:
        if not everything:
            raise click.UsageError("base to novel needs --base-clip")
        wanted.remove("base-to-novel")
        click.echo("base to novel is left out: it needs --base-clip", err=True)
    common = ["--precision", precision]
    for flag, value in (("--threads", threads), ("--n-ctx", n_ctx), ("--min-area", min_area)):
        common += [flag, str(value)] if value is not None else []
    set_torch_threads(threads)
    try:
        opened = load_clip(clip)
        layers = min(opened.config.vision.layers, opened.config.text.layers, 12)

        def count_of(run: Run) -> int | None:
            return full_epochs if run.task == "all" else epochs

        left = [run for run in planned(wanted, seeds, shots, layers) if not (run.folder(runs) / RESULTS_NAME).exists()]
        if left or only_estimate:
            pace, counts = measure_pace(opened, data, n_ctx, precision)
            click.echo(
                estimate_text(left, [seconds_of(run, pace, counts, count_of(run)) for run in left], pace), err=True
            )
        if only_estimate:
            return
        settings = {"shots": shots, "epochs": epochs, "full_epochs": full_epochs, "n_ctx": n_ctx, "min_area": min_area}
        settings |= {"clip_sha256": sha256_of(clip), "data": data.name, "precision": precision}
        if data.exists():
            settings[DATA_SHA256] = data_identity(data)
        if base_clip is not None:
            settings["base_clip_sha256"] = sha256_of(base_clip)
        settings = with_kept_settings(runs / SETTINGS_NAME, settings)
        if left:
            # Before the first training, so that no results are without settings.
            write_atomic(runs / SETTINGS_NAME, json.dumps(settings, indent=2) + "\n")
        for run in left:
            count = count_of(run)
            budget = [*common, *(("--epochs", str(count)) if count else ())]
            train(run, _clip_of(run, clip, base_clip), data, runs, budget)
        plan = list(planned(list(TITLES), seeds, shots, layers))
        if final:
            measure_all_finally(plan, clip, base_clip, data, runs)
        if do_report or everything:
            facts = {
                "clip": clip.name,
                "clip_sha256": sha256_of(clip),
                "base_clip": base_clip and base_clip.name,
                "shots": shots,
            }
            entries = collected(plan, runs)
            write_atomic(output / "prompts.json", json.dumps({**facts, "results": entries}, indent=2) + "\n")
            write_atomic(output / "prompts.md", report(entries, facts))
            click.echo(f"{output}: prompts.md, prompts.json", err=True)
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error


def _clip_of(run: Run, clip: Path, base_clip: Path | None) -> Path:
    return base_clip if run.group == "base-to-novel" and base_clip is not None else clip


if __name__ == "__main__":
    main()
