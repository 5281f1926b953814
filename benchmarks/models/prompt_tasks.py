"""Few-shot tasks for a CLIP: comparison of HiCroPL, simpler prompts, and two linear baselines.

\b
    edgekit data crop photos.tar -o faces
    python benchmarks/models/prompt_tasks.py --clip runs/mini/best.safetensors --data fer2013.tar.gz \\
        --ferplus ferplus_votes.csv --faces faces --task labels --task photographs
    python benchmarks/models/prompt_tasks.py --clip ... --data ... --report

Tasks; a task without its data is left out:

\b
    labels        few images with the majority of the FER+ votes as label (--ferplus), for a CLIP of FER-2013's labels
    photographs   few face crops of photographs (--faces), and of darkened, blurred and compressed copies; the persons
                  of training and test differ
    classes       groups of the expressions as new classes; with --base-clip, classes new to this CLIP
    cross         few images of one data set, evaluated on the others (FER-2013, --ferplus, --faces, --ck)

Training images are balanced and test images are not, so accuracy and balanced accuracy (mean recall) are both measured.
Choices are made on PublicTest, the default of --split; measure on PrivateTest (--split PrivateTest) when they are made.
Each finished cell is one line of cells.jsonl; a second run with the same settings and data continues. --report writes
tables, the differences on the same draws, and one plot per task.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from linear_baselines import Baseline, LinearClassifier, fit_baseline, tower_input, unit_features, zero_shot
from numpy.typing import NDArray
from prompt_task_data import TASKS, Content, Sources, make_tasks, up_to_shots
from prompt_task_report import write_report

from edgekit.errors import EdgekitError, InputError
from edgekit.files import sha256_of, write_atomic
from edgekit.models.clip.checkpoint import build_prompted, load_prompts
from edgekit.models.clip.config import PromptConfig, shortened
from edgekit.models.clip.frozen import FrozenClip
from edgekit.models.clip.load import load_clip
from edgekit.models.clip.prompt_task import PromptTask
from edgekit.models.clip.prompted import PromptedClip, frozen_classifier, prompts_kept
from edgekit.models.clip.protocols import preset_of
from edgekit.models.data import ImageSet
from edgekit.models.data.resized_crop import ResizedCrop
from edgekit.models.evaluation.evaluate import Evaluation, mean_recall
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.loop import BEST_NAME, train_job
from edgekit.models.training.options import Precision
from edgekit.models.training.recipes import RECIPES
from edgekit.models.training.task import TrainingJob

CELLS_NAME = "cells.jsonl"
ZERO_SHOT = "zero-shot"
_BATCH_IMAGES = 160
BASELINES: dict[str, Baseline] = {"bias per class": "bias", "linear probe": "probe"}
FLOWS: dict[str, dict[str, Any]] = {
    "HiCroPL": {},
    "independent prompts": {"flow": "independent"},
    "one-way flow (MaPLe)": {"flow": "one-way"},
    "released code": {"upstream_compat": True},
}


@dataclass(frozen=True)
class Settings:
    """Settings that the cells of one run share; a cell measured with other settings is measured again."""

    split: str
    epochs: int
    n_ctx: int
    min_area: float
    max_lr: float
    cross_layer: int | None
    precision: Precision
    repeat: bool = False


_SETTINGS = tuple(field.name for field in fields(Settings))


def row_names(weights: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Return the rows with prompts: changes of the preset by name, one row per flow and λ."""
    return {
        f"{name}, λ = {weight:g}": {**changes, "consistency_weight": weight}
        for name, changes in FLOWS.items()
        for weight in weights
    }


class Bench:
    """Measures the cells of one content (source and seed) on one CLIP."""

    def __init__(self, clip: FrozenClip, content: Content, settings: Settings) -> None:
        """Encode the descriptions and the test images with the plain CLIP."""
        self._clip = clip
        self._content = content
        self._settings = settings
        self._text = frozen_classifier(clip, content.descriptions)
        self._start = zero_shot(clip, self._text)
        self._features: dict[str, torch.Tensor] = {}
        self._inputs: dict[str, torch.Tensor] = {}
        self._is_bf16 = settings.precision == "bf16"

    def measure(self, row: str, changes: Mapping[str, Any] | None, shots: int, seed: int) -> dict[str, Any]:
        """Return the accuracies of a row by target, and a note on classes with fewer images than shots."""
        content = self._content
        chosen, short = up_to_shots(content.pool.labels, content.classes, shots, seed)
        if self._settings.repeat and shots:
            chosen = repeated(chosen, content.pool.labels, shots)
        few = content.pool.subset(chosen)
        if changes is not None:
            results = self.evaluate(self.prompted(changes, few, seed))
        else:
            linear = self._start if row == ZERO_SHOT else self._fitted(BASELINES[row], few)
            results = {name: self._linear(linear, name) for name in content.targets}
        note = ", ".join(f"{name} has {count} images" for name, count in short.items()) if row != ZERO_SHOT else ""
        return {"results": {name: _scores(result) for name, result in results.items()}, "note": note}

    def _fitted(self, kind: Baseline, few: ImageSet) -> LinearClassifier:
        """Return a baseline fitted to the images and their mirror images."""
        views = (few.images, few.images[:, :, ::-1])
        features = torch.cat([self._plain_features(tower_input(self._clip, view)) for view in views])
        labels = torch.from_numpy(few.labels).repeat(2).numpy()
        return fit_baseline(kind, self._start, float(self._clip.logit_scale), features, labels)

    def _linear(self, linear: LinearClassifier, target: str) -> Evaluation:
        part = self._content.targets[target]
        if target not in self._features:
            self._features[target] = self._plain_features(self._tokens(target))
        return Evaluation(self._content.classes, part.labels, linear.logits(self._features[target]))

    def _plain_features(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self._is_bf16):
            return unit_features(self._clip, inputs)

    def prompted(self, changes: Mapping[str, Any], few: ImageSet, seed: int) -> PromptedClip:
        """Return the CLIP with prompts trained on the images, as after the last epoch."""
        settings, content = self._settings, self._content
        config = replace(shortened(preset_of("few-shot"), self._clip.config), n_ctx=settings.n_ctx)
        if settings.cross_layer is not None:
            config = replace(config, cross_layer=settings.cross_layer)
        config = PromptConfig(**{**asdict(config), **changes})
        recipe = RECIPES["hicropl"]
        crop = ResizedCrop(settings.min_area)
        recipe = replace(recipe, epochs=settings.epochs, max_lr=settings.max_lr, augmentation=crop)
        # The last epoch is kept; the validation during training is not used.
        task = PromptTask(self._clip, config, content.descriptions, recipe, few, few.subset([0]), content.name)
        job = TrainingJob(task, recipe, {}, seed=seed, precision=settings.precision, accelerator="cpu")
        with tempfile.TemporaryDirectory() as folder:
            train_job(job, Path(folder) / "run")
            return build_prompted(load_prompts(Path(folder) / "run" / BEST_NAME), self._clip)

    @torch.no_grad()
    def evaluate(self, net: PromptedClip) -> dict[str, Evaluation]:
        """Return the predictions of a CLIP with prompts by target."""
        results = {}
        for name, part in self._content.targets.items():
            with prompts_kept(net), torch.autocast("cpu", torch.bfloat16, enabled=self._is_bf16):
                text = None if net.config.upstream_compat else net.text_features()
                logits = torch.cat([net(batch, text) for batch in self._tokens(name).split(_BATCH_IMAGES)])
            results[name] = Evaluation(self._content.classes, part.labels, logits.numpy())
        return results

    def _tokens(self, target: str) -> torch.Tensor:
        """Return a target's images as the tower's input; for a trunk, its feature maps, which prompts do not change."""
        if target not in self._inputs:
            self._inputs[target] = tower_input(self._clip, self._content.targets[target].images)
        return self._inputs[target]


def repeated(chosen: NDArray[np.int64], labels: NDArray[np.int64], shots: int) -> NDArray[np.int64]:
    """Return the chosen indices, with those of a class that has fewer than `shots` repeated up to this number."""
    members = [chosen[labels[chosen] == label] for label in np.unique(labels[chosen])]
    return np.concatenate([np.resize(own, shots) for own in members])


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Return the finished cells of a file; an incomplete last line is left out."""
    cells = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            cells.append(json.loads(line))
        except ValueError:
            continue
    return cells


def planned(
    rows: Mapping[str, Mapping[str, Any]], shots: Sequence[int]
) -> Iterator[tuple[str, Mapping[str, Any] | None, int]]:
    """Yield (row, its prompts or None, shots) of one source and seed; zero-shot has no shots."""
    yield ZERO_SHOT, None, 0
    for count in shots:
        yield from ((name, None, count) for name in BASELINES)
        yield from ((name, changes, count) for name, changes in rows.items())


def _scores(result: Evaluation) -> dict[str, Any]:
    recalls = {name: recall for name, recall in result.per_class.items() if recall is not None}
    return {
        "accuracy": result.accuracy,
        "balanced": mean_recall(result.per_class),
        "images": result.total,
        "recalls": recalls,
    }


def _run(
    sources: Sources,
    tasks: Sequence[str],
    rows: Mapping[str, Mapping[str, Any]],
    shots: Sequence[int],
    seeds: Sequence[int],
    settings: Settings,
    path: Path,
) -> None:
    """Measure the cells that are not in the file and append them to it."""
    common = asdict(settings)
    finished = read_cells(path)
    done = {_identity(cell) for cell in finished if _is_of(cell, sources)}
    # Without the incomplete line of an interrupted run, to which the next cell would be appended.
    write_atomic(path, "".join(json.dumps(cell, ensure_ascii=False) + "\n" for cell in finished))
    for source in make_tasks(sources, tasks, settings.split):
        clip = load_clip(source.clip)
        data = {name: identity for name in source.data if (identity := sources.identity(name))}
        for seed in seeds:
            bench: Bench | None = None
            for row, changes, count in planned(rows, shots):
                cell = {"task": source.task, "source": source.name, "row": row, "shots": count, "seed": seed}
                cell |= {"clip_sha256": clip.sha256, "data": data, **common}
                if _identity(cell) in done:
                    continue
                bench = bench or Bench(clip, source.content(seed), settings)
                started = time.perf_counter()
                cell |= bench.measure(row, changes, count, seed)
                cell["seconds"] = round(time.perf_counter() - started, 1)
                with path.open("a") as stream:
                    stream.write(json.dumps(cell, ensure_ascii=False) + "\n")
                click.echo(_line(cell), err=True)


def _identity(cell: Mapping[str, Any]) -> str:
    names = ("task", "source", "row", "shots", "seed", "clip_sha256", *_SETTINGS)
    return json.dumps([cell.get(name) for name in names])


def _is_of(cell: Mapping[str, Any], sources: Sources) -> bool:
    """Return whether a cell was measured on this data; data that the cell or the call does not name is not compared."""
    return all(sources.identity(name) in (None, recorded) for name, recorded in cell.get("data", {}).items())


def _line(cell: Mapping[str, Any]) -> str:
    scores = ", ".join(
        f"{name} {score['accuracy']:.2%} / {score['balanced']:.2%}" for name, score in cell["results"].items()
    )
    note = f" ({cell['note']})" if cell["note"] else ""
    return f"{cell['source']}, {cell['row']}, {cell['shots']} shots, seed {cell['seed']}: {scores}{note}"


_FILE = click.Path(path_type=Path, exists=True)
_SETTING_OPTIONS = (
    click.option("--epochs", type=click.IntRange(min=1), default=50, show_default=True),
    click.option("--n-ctx", type=click.IntRange(min=1), default=4, show_default=True),
    click.option("--min-area", default=0.08, show_default=True, help="Smallest area of a random crop, of the image's."),
    click.option("--max-lr", default=RECIPES["hicropl"].max_lr, show_default=True, help="Largest learning rate."),
    click.option("--cross-layer", type=click.IntRange(min=1), help="k of HiCroPL; default: half of the layers."),
    click.option("--split", type=click.Choice(["PublicTest", "PrivateTest"]), default="PublicTest", show_default=True),
    click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True),
)


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `Settings` to a command, in the order of the help."""
    for option in reversed(_SETTING_OPTIONS):
        command = option(command)
    return command


@click.command(help=__doc__)
@click.option("--task", "tasks", type=click.Choice(TASKS), multiple=True, help="Default: all tasks that have data.")
@click.option("--clip", type=_FILE, required=True)
@click.option("--base-clip", type=_FILE, help="A CLIP pretrained with --leave-out.")
@click.option("--data", type=_FILE, required=True, help="FER-2013 in any form edgekit reads.")
@click.option("--ferplus", type=_FILE, help="CSV of FER+ votes.")
@click.option("--faces", type=_FILE, help="Face crops with persons, from `edgekit data crop`.")
@click.option("--ck", type=_FILE, help="CK+ as folders of classes; it may lack neutral.")
@click.option("--shots", type=click.IntRange(min=1), multiple=True, default=(1, 2, 4, 8, 16), show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--weight", "weights", type=float, multiple=True, default=(12.0, 2.0, 0.0), show_default=True, help="λ.")
@click.option("--only", multiple=True, help="Start of the names of the rows with prompts to train; default: all.")
@settings_options
@click.option("--repeat", is_flag=True, help="Repeat the images of a class that has fewer images than shots.")
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--report", is_flag=True, help="Write tables and plots of the finished cells, and stop.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("runs/tasks"), show_default=True)
def main(
    tasks: tuple[str, ...],
    shots: tuple[int, ...],
    seeds: int,
    weights: tuple[float, ...],
    only: tuple[str, ...],
    threads: int | None,
    report: bool,
    output: Path,
    **values: Any,
) -> None:
    """Measure the tasks."""
    set_torch_threads(threads)
    settings = Settings(**{name: values.pop(name) for name in _SETTINGS})
    every = row_names(weights)
    rows = {name: changes for name, changes in every.items() if not only or name.startswith(only)}
    cells = output / CELLS_NAME
    try:
        if unknown := next((start for start in only if not any(name.startswith(start) for name in every)), None):
            raise InputError(f"only '{unknown}' begins no row: the rows are {', '.join(every)}")
        sources = Sources(**values)
        if not report:
            _run(sources, tasks or TASKS, rows, shots, range(seeds), settings, cells)
        same = asdict(settings)
        clips = [sha256_of(path) for path in (sources.clip, sources.base_clip) if path is not None]
        found = [cell for cell in read_cells(cells) if cell["clip_sha256"] in clips and same.items() <= cell.items()]
        kept = [cell for cell in found if _is_of(cell, sources)]
        if not kept:
            raise InputError(f"'{cells}' has no cell of this CLIP and data with these settings: leave --report out")
        for path in write_report(kept, output, f"{sources.clip.name}, sha256 {clips[0][:12]}"):
            click.echo(path, err=True)
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
