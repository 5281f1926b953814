"""Adapts a shipped model to faces of other persons with the recipe `adapt`, and measures what it gains and loses.

    edgekit data crop photos.tar -o crops
    python benchmarks/models/adaptation.py --crops crops --data fer2013.tar.gz

For each number of labelled crops per class and each draw, half of the persons give the training crops, and the other
half, never seen, are measured: mean recall of angry, happy, sad, surprise and neutral. The accuracies on FER-2013 show
what is forgotten. The persons come from the photographs' table, which `edgekit data crop` copies to `crops.csv`.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.model_store import resolve_model
from edgekit.models.data import EXPRESSIONS, ImageSet, training_split
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import Evaluation, evaluate, open_classifier
from edgekit.models.train import train

FREQUENT = ("angry", "happy", "sad", "surprise", "neutral")
FORGETTING_SPLITS = ("PublicTest", "PrivateTest")


@dataclass(frozen=True)
class Photos:
    """Face crops of photographs: `images`, and the person on each, int64 (N,)."""

    images: ImageSet
    persons: NDArray[np.int64]


def read_photos(crops: Path) -> Photos:
    """Return the crops of the seven expressions.

    Raises:
        click.UsageError: The crops have other classes, or no persons.
    """
    dataset = load_dataset(crops)
    images = dataset.split(training_split(dataset))
    if dataset.classes != EXPRESSIONS or images.groups is None:
        raise click.UsageError(f"'{crops}' has other classes than the seven expressions, or no table of persons")
    return Photos(images, np.unique(images.groups, return_inverse=True)[1])


def mean_recall(result: Evaluation) -> float:
    """Return the mean recall of the frequent expressions, 0..1."""
    return float(np.mean([result.per_class[name] or 0.0 for name in FREQUENT]))


def draw(photos: Photos, per_class: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the indices of up to `per_class` training crops of each class, and a mask of the crops to measure on."""
    generator = np.random.default_rng(seed)
    persons = generator.permutation(np.unique(photos.persons))
    is_trained = np.isin(photos.persons, persons[: len(persons) // 2])
    labels = photos.images.labels
    chosen = [generator.permutation(np.flatnonzero(is_trained & (labels == label)))[:per_class] for label in range(7)]
    return np.concatenate(chosen), ~is_trained


def write_folders(photos: Photos, indices: NDArray[np.int64], folder: Path) -> None:
    """Write the crops as `<class>/person-<number>_<index>.png`, from which training reads the persons."""
    for index in indices:
        file = folder / EXPRESSIONS[photos.images.labels[index]] / f"person-{photos.persons[index]}_{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), photos.images.images[index])


@click.command(help=__doc__)
@click.option("--crops", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="FER-2013.")
@click.option("--init", default="fer2013", show_default=True, help="The shipped model to adapt.")
@click.option("--per-class", type=int, multiple=True, default=(16, 64, 256), show_default=True)
@click.option("--draws", type=int, default=3, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True)
def main(crops: Path, data: Path, init: str, per_class: tuple[int, ...], draws: int, threads: int) -> None:
    """Print one markdown table."""
    photos = read_photos(crops)
    fer2013 = load_dataset(data)
    initial = open_classifier(resolve_model(init, (".safetensors",)), threads)
    on_photos = evaluate(initial, photos.images, "center-crop")
    old = {split: evaluate(initial, fer2013.split(split), "center-crop").accuracy for split in FORGETTING_SPLITS}
    click.echo(
        "| crops per class | training crops | mean recall before | after | gain ± spread | FER-2013 "
        + " | FER-2013 ".join(FORGETTING_SPLITS)
        + " |"
    )
    click.echo("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for count in per_class:
        rows = []
        for seed in range(draws):
            indices, is_measured = draw(photos, count, seed)
            with tempfile.TemporaryDirectory() as folder:
                write_folders(photos, indices, Path(folder) / "crops")
                options = {"init": init, "recipe": "adapt", "seed": seed, "threads": threads}
                result = train(data=Path(folder) / "crops", output=Path(folder) / "run", **options)
                adapted = open_classifier(result.checkpoint, threads)
            after = mean_recall(evaluate(adapted, photos.images.subset(is_measured), "center-crop"))
            losses = [
                evaluate(adapted, fer2013.split(split), "center-crop").accuracy - old[split]
                for split in FORGETTING_SPLITS
            ]
            rows.append([len(indices), mean_recall(on_photos.subset(is_measured)), after, *losses])
            click.echo(f"{count} per class, draw {seed}: {np.round(rows[-1], 4)}, epoch {result.best_epoch}", err=True)
        table = np.array(rows)
        crops_used, before, after, *losses = table.mean(axis=0)
        gains = 100 * (table[:, 2] - table[:, 1])
        changes = " | ".join(f"{100 * loss:+.1f}" for loss in losses)
        click.echo(
            f"| {count} | {crops_used:.0f} | {before:.1%} | {after:.1%} | "
            f"{gains.mean():+.1f} ± {gains.std(ddof=1) if draws > 1 else 0:.1f} | {changes} |"
        )


if __name__ == "__main__":
    main()
