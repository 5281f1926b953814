"""Accuracy of FER+ votes on FER-2013's labels: the votes alone, a net alone, and both combined.

    python benchmarks/models/votes.py --data fer2013.tar.gz --ferplus ferplus_votes.csv

Prints, on a split that neither votes nor net were fitted on, accuracy and cross-entropy of three predictions: P(label |
votes), the net on the centre crop and its mirror image, and the product softmax(a log p_net + b (log P(label | votes) -
log prior)).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from edgekit.errors import EdgekitError
from edgekit.model_store import resolve_model
from edgekit.models.data import training_split
from edgekit.models.data.ferplus import label_posteriors
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import Evaluation, aligned, evaluate, open_classifier


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--ferplus", type=click.Path(path_type=Path), required=True)
@click.option("--model", default="fer2013", show_default=True)
@click.option("--split", default="PublicTest", show_default=True)
@click.option("--net-weight", "a", default=0.7, show_default=True)
@click.option("--votes-weight", "b", default=0.5, show_default=True)
def main(data: Path, ferplus: Path, model: str, split: str, a: float, b: float) -> None:
    """Compare votes, net and both on a split."""
    try:
        dataset = load_dataset(data)
        posterior = np.log(label_posteriors(dataset, ferplus)[split])
        classifier = open_classifier(resolve_model(model))
        images = aligned(dataset, dataset.split(split), classifier.contract)
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error
    labels = dataset.split(training_split(dataset, None)).labels
    prior = np.log(np.bincount(labels, minlength=len(dataset.classes)) / len(labels))
    mirrored = replace(images, images=np.ascontiguousarray(images.images[:, :, ::-1]))
    views = [evaluate(classifier, part, "center-crop").logits for part in (images, mirrored)]
    net = np.mean(views, axis=0)
    net = net - np.logaddexp.reduce(net, axis=1, keepdims=True)
    for name, logits in (("votes", posterior), ("net", net), ("both", a * net + b * (posterior - prior))):
        result = Evaluation(dataset.classes, images.labels, logits.astype(np.float32))
        print(f"{name:>5}: {result.accuracy:.2%} ({result.correct} of {result.total}), cross-entropy {result.loss:.3f}")


if __name__ == "__main__":
    main()
