"""Adapts a shipped model to faces of other persons with the recipe `adapt`, and measures gain and loss of accuracy.

\b
    edgekit data crop photos.tar -o crops
    python benchmarks/models/adaptation.py --crops crops --data fer2013.tar.gz --ferplus ferplus_votes.csv

Half of the persons, the same in all draws, is used only for evaluation: accuracy, and mean recall of angry, happy, sad,
surprise and neutral. The training crops are drawn from the other half, at most the given number per class. The
accuracies on FER-2013 and on the majorities of FER+ show the loss on old data. The persons come from the photographs'
table, which `edgekit data crop` copies to `crops.csv`.

With --choose, a fifth of the persons of the other half is measured instead, another one in each draw. Settings of the
recipe are chosen so.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.contract import Contract
from edgekit.model_store import resolve_model
from edgekit.models.data import EXPRESSIONS, ImageSet, training_split
from edgekit.models.data.ferplus import majority_part
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import evaluate, mean_recall, open_classifier, with_contract_channels
from edgekit.models.train import train
from edgekit.models.training.recipes import Balance

FREQUENT = ("angry", "happy", "sad", "surprise", "neutral")
_HALVES_SEED = 2026


@dataclass(frozen=True)
class Photos:
    """Face crops of photographs: `images`, and the person on each, int64 (N,)."""

    images: ImageSet
    persons: NDArray[np.int64]


def read_photos(crops: Path, contract: Contract) -> Photos:
    """Return the crops of the seven expressions, in gray if the model to adapt requires gray.

    Raises:
        click.UsageError: The crops have other classes, or no persons.
    """
    dataset = load_dataset(crops)
    images = dataset.split(training_split(dataset))
    if dataset.classes != EXPRESSIONS or images.groups is None:
        raise click.UsageError(f"'{crops}' has other classes than the seven expressions, or no table of persons")
    return Photos(with_contract_channels(images, contract), np.unique(images.groups, return_inverse=True)[1])


def draw(photos: Photos, per_class: int, seed: int, choose: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the indices of up to `per_class` training crops of each class, and a mask of the crops to measure on."""
    generator = np.random.default_rng(seed)
    persons = np.random.default_rng(_HALVES_SEED).permutation(np.unique(photos.persons))
    measured, others = persons[: len(persons) // 2], persons[len(persons) // 2 :]
    if choose:
        others = generator.permutation(others)
        measured, others = others[: len(others) // 5], others[len(others) // 5 :]
    is_trained, labels = np.isin(photos.persons, others), photos.images.labels
    chosen = [generator.permutation(np.flatnonzero(is_trained & (labels == label)))[:per_class] for label in range(7)]
    return np.concatenate(chosen), np.isin(photos.persons, measured)


def read_old(data: Path, ferplus: Path) -> dict[str, ImageSet]:
    """Return the images that show the loss on old data, by the name of the column."""
    fer2013 = load_dataset(data)
    splits = {f"FER-2013 {name}": fer2013.split(name) for name in ("PublicTest", "PrivateTest")}
    return {**splits, "FER+ PrivateTest": majority_part(fer2013, ferplus, "PrivateTest")}


def write_folders(photos: Photos, indices: NDArray[np.int64], folder: Path) -> None:
    """Write the crops as `<class>/person-<number>_<index>.png`, from which training reads the persons."""
    for index in indices:
        file = folder / EXPRESSIONS[photos.images.labels[index]] / f"person-{photos.persons[index]}_{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), photos.images.images[index][..., ::-1])  # OpenCV writes BGR


@click.command(help=__doc__)
@click.option("--crops", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="FER-2013.")
@click.option("--ferplus", type=click.Path(path_type=Path, exists=True), required=True, help="The votes of FER+.")
@click.option("--init", default="default", show_default=True, help="The shipped model to adapt.")
@click.option("--per-class", type=int, multiple=True, default=(16, 64, 256), show_default=True)
@click.option("--balance", type=click.Choice(["none", "loss", "sampler"]), help="Default: the recipe's.")
@click.option("--draws", type=int, default=3, show_default=True)
@click.option("--choose", is_flag=True, help="Measure persons that are not those of the published figures.")
@click.option("--threads", type=int, default=1, show_default=True)
def main(
    crops: Path,
    data: Path,
    ferplus: Path,
    init: str,
    per_class: tuple[int, ...],
    balance: Balance | None,
    draws: int,
    choose: bool,
    threads: int,
) -> None:
    """Print one markdown table."""
    initial = open_classifier(resolve_model(init, (".safetensors",)), threads)
    photos, old = read_photos(crops, initial.contract), read_old(data, ferplus)
    on_photos = evaluate(initial, photos.images, "center-crop")
    on_old = {name: evaluate(initial, images, "center-crop").accuracy for name, images in old.items()}
    columns = ("crops per class", "training crops", "mean recall before", "after", "gain ± spread")
    click.echo(f"| {' | '.join((*columns, 'accuracy before', 'after', *old))} |")
    click.echo("| ---: " * (len(columns) + 2 + len(old)) + "|")
    for count in per_class:
        rows = []
        for seed in range(draws):
            indices, is_measured = draw(photos, count, seed, choose)
            with tempfile.TemporaryDirectory() as folder:
                write_folders(photos, indices, Path(folder) / "crops")
                options = {"init": init, "recipe": "adapt", "balance": balance, "seed": seed, "threads": threads}
                result = train(data=Path(folder) / "crops", output=Path(folder) / "run", **options)
                adapted = open_classifier(result.checkpoint, threads)
            before = on_photos.subset(is_measured)
            after = evaluate(adapted, photos.images.subset(is_measured), "center-crop")
            losses = [evaluate(adapted, old[name], "center-crop").accuracy - on_old[name] for name in old]
            recalls = [mean_recall(each.per_class, FREQUENT) for each in (before, after)]
            rows.append([len(indices), *recalls, before.accuracy, after.accuracy, *losses])
            click.echo(
                f"{count} per class, draw {seed}: {np.round(rows[-1], 4)}, {len(result.history)} epochs", err=True
            )
        click.echo(row(count, np.array(rows)))


def row(count: int, draws: NDArray[np.float64]) -> str:
    """Return the markdown row of some draws: the means, and the spread of the gain."""
    crops, before, after, accuracy_before, accuracy_after, *losses = draws.mean(axis=0)
    gains = 100 * (draws[:, 2] - draws[:, 1])
    spread = gains.std(ddof=1) if len(gains) > 1 else 0.0
    cells = (f"{crops:.0f}", f"{before:.1%}", f"{after:.1%}", f"{gains.mean():+.1f} ± {spread:.1f}")
    accuracies = (f"{accuracy_before:.1%}", f"{accuracy_after:.1%}")
    return f"| {count} | {' | '.join((*cells, *accuracies, *(f'{100 * loss:+.1f}' for loss in losses)))} |"


if __name__ == "__main__":
    main()
