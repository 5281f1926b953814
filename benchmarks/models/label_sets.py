"""Accuracy of labels by text: a CLIP's student with each set of labels in label_sets.json.

\b
    python benchmarks/models/label_sets.py runs/student.safetensors --clip runs/mini/best.safetensors \\
        --prompts runs/prompts/best.safetensors --data fer2013.tar.gz --ferplus ferplus_votes.csv --split PrivateTest

Each label has sentences under one or more names, and the expressions that it stands for. The truth is the majority of
the FER+ votes. Each cell has accuracy / mean recall in percent. For `labels by text`, a label has all its sentences,
and its logit is that of its most similar sentence, as in `edgekit export --classes`. For `labels by text, merged`, each
name is a label of its own, and these labels are merged. `old labels, merged` is the sum of the old labels'
probabilities, which needs no text. `most frequent label` is the accuracy of always predicting this label.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np
from torch import nn

from edgekit.contract import Contract, LabelMap
from edgekit.errors import EdgekitError
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.data import DataSet
from edgekit.models.data.ferplus import with_ferplus
from edgekit.models.data.merging import merge_classes
from edgekit.models.data.readers import load_dataset
from edgekit.models.distill.relabel import relabel_by_text
from edgekit.models.evaluation.evaluate import Evaluation, TorchClassifier, aligned, evaluate, mean_recall
from edgekit.models.model_loading import build_merged_net, merge_net

SETS = Path(__file__).with_name("label_sets.json")
_FILE = click.Path(path_type=Path, exists=True)


@click.command(help=__doc__)
@click.argument("student", type=_FILE)
@click.option("--clip", required=True, metavar="NAME|FILE")
@click.option("--prompts", type=_FILE, help="The teacher's prompts, if it had some.")
@click.option("--data", type=_FILE, required=True, help="FER-2013.")
@click.option("--ferplus", type=_FILE, required=True, help="CSV of FER+ votes.")
@click.option("--split", default="PublicTest", show_default=True)
@click.option("--sets", type=_FILE, default=SETS, show_default=False, help="Other sets of labels.")
def main(student: Path, clip: str, prompts: Path | None, data: Path, ferplus: Path, split: str, sets: Path) -> None:
    """Print one table."""
    try:
        majority = with_ferplus(load_dataset(data), ferplus, "majority")
        print("| set | labels | labels by text | labels by text, merged | old labels, merged | most frequent label |")
        print("| --- | --- | ---: | ---: | ---: | ---: |")
        for name, labels in json.loads(sets.read_text()).items():
            print(_row(name, labels, student, clip, prompts, majority, split), flush=True)
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error


def _row(
    name: str, labels: dict[str, Any], student: Path, clip: str, prompts: Path | None, majority: DataSet, split: str
) -> str:
    groups = LabelMap(tuple(labels), tuple(tuple(entry["of"]) for entry in labels.values()))
    data = merge_classes(majority, groups)
    checkpoint = load_checkpoint(student)
    texts = {label: tuple(chain(*entry["sentences"].values())) for label, entry in labels.items()}
    one = _evaluated(*relabel_by_text(checkpoint, texts, clip, prompts), data, split)
    parts = {part: tuple(found) for entry in labels.values() for part, found in entry["sentences"].items()}
    of_parts = LabelMap(tuple(labels), tuple(tuple(entry["sentences"]) for entry in labels.values()))
    by_parts = relabel_by_text(checkpoint, parts, clip, prompts)
    text_merged = _evaluated(*merge_net(*by_parts, of_parts), data, split)
    merged = _evaluated(*build_merged_net(checkpoint, groups), data, split)
    frequent = np.bincount(one.truths).max() / one.total
    cells = [
        f"{100 * found.accuracy:.1f} / {100 * mean_recall(found.per_class):.1f}" for found in (one, text_merged, merged)
    ]
    return f"| {name} | {', '.join(labels)} | {' | '.join(cells)} | {100 * frequent:.1f} |"


def _evaluated(net: nn.Module, contract: Contract, data: DataSet, split: str) -> Evaluation:
    return evaluate(TorchClassifier(net, contract), aligned(data, data.split(split), contract), "center-crop")


if __name__ == "__main__":
    main()
