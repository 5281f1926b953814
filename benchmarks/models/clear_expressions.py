"""Recall of each class on images whose expression is clear: most FER+ votes agree with FER-2013's label.

    python benchmarks/models/clear_expressions.py default fer2013 --data fer2013.tar.gz --ferplus ferplus_votes.csv

Posed faces show clear expressions, so this measure stands in for a set of posed faces. Faces of everyday life are
often almost neutral. A net trained on votes can be more accurate on such faces than a net trained on labels, and less
accurate on clear expressions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import EdgekitError
from edgekit.models.data import EXPRESSIONS, DataSet
from edgekit.models.data.ferplus import EXPRESSION_COLUMNS, vote_counts
from edgekit.models.evaluation.evaluate import mean_recall
from edgekit.models.evaluation.run import evaluate, read_evaluation_data

_FILE = click.Path(path_type=Path, exists=True)
_IMAGE_PX = 48


@click.command(help=__doc__)
@click.argument("models", nargs=-1, required=True)
@click.option("--data", type=_FILE, required=True, help="FER-2013.")
@click.option("--ferplus", type=_FILE, required=True, help="CSV of FER+ votes.")
@click.option("--split", default="PrivateTest", show_default=True)
@click.option(
    "--agreement",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="Smallest share of the votes for the label's expression.",
)
def main(models: Sequence[str], data: Path, ferplus: Path, split: str, agreement: float) -> None:
    """Print one row per model."""
    try:
        part = clear_part(read_evaluation_data(data, _IMAGE_PX, "square"), ferplus, split, agreement)
        labels = part.split(split).labels
        print(f"| model | accuracy | mean recall | {' | '.join(EXPRESSIONS)} |")
        print("| --- " * (len(EXPRESSIONS) + 3) + "|")
        print(f"| images | {len(labels)} | | {' | '.join(map(str, np.bincount(labels, minlength=len(EXPRESSIONS))))} |")
        for model in models:
            result = evaluate(model, part, split=split)
            shares = (result.accuracy, mean_recall(result.per_class), *(result.per_class[name] for name in EXPRESSIONS))
            cells = " | ".join("-" if share is None else f"{share:.1%}" for share in shares)
            print(f"| {model} | {cells} |", flush=True)
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error


def clear_part(dataset: DataSet, ferplus: Path, split: str, agreement: float) -> DataSet:
    """Return the images of a split whose share of votes for the label's expression is at least `agreement`."""
    only = replace(dataset, splits={split: dataset.split(split)})
    counts = vote_counts(only, ferplus, split)[split]
    part = only.split(split)
    total = counts.sum(axis=1)
    of_label = counts[:, EXPRESSION_COLUMNS][np.arange(len(part)), part.labels]
    clear: NDArray[np.bool_] = (total > 0) & (of_label >= agreement * total)
    return replace(only, splits={split: part.subset(clear)})


if __name__ == "__main__":
    main()
