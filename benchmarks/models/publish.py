"""Files of a shipped model from a trained checkpoint: checkpoint with measured accuracy, export, model card.

    python benchmarks/models/publish.py runs/default/best.safetensors --name default --fer2013 fer2013.tar.gz \
        --ferplus ferplus_votes.csv --photos photos.tar --docs docs
    python benchmarks/models/publish.py --name fer2013 --fer2013 fer2013.tar.gz  # the card only

Writes NAME.safetensors, NAME.onnx and NAME.md into the package's assets; without a checkpoint, only the card of the
files that are there. The section on the training comes from the file of --training, by default from the present card:
`edgekit inspect` prints the record from which it is written. With --docs, writes models/NAME.json, the picture of the
photographs, and the tables of reference/results.md. A card states what was not measured.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from bands import in_bands, measured_faces
from card import FIELD_CLASSES, SPLIT, card, results_table, training_section

from edgekit.contract import Accuracy, Contract
from edgekit.device.engines.classifier import Classifier
from edgekit.export.profiling.cost import graph_cost, load_graph
from edgekit.export.run import export
from edgekit.files import sha256_of, write_atomic
from edgekit.model_store import ASSETS, CHECKPOINT_SUFFIX, ONNX_SUFFIX, SHIPPED
from edgekit.models.checkpoint import load_checkpoint, save_checkpoint
from edgekit.models.clip.text_tower import text_tower_beside
from edgekit.models.data import identical_to
from edgekit.models.evaluation.evaluate import Evaluation, aligned, calibration, mean_recall
from edgekit.models.evaluation.options import EvaluationOptions
from edgekit.models.evaluation.photos import PhotoEvaluation, evaluate_photos
from edgekit.models.evaluation.plots import save_evaluation
from edgekit.models.evaluation.run import evaluate, read_evaluation_data
from edgekit.models.model_loading import build_net
from edgekit.models.nets.registry import parameter_count
from edgekit.preprocess import CROP_MARGIN, softmax

BEGIN = "<!-- Between these marks, `benchmarks/models/publish.py --docs docs` writes. -->"
END = "<!-- End of what publish.py writes. -->"
_BINS = 10
_THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def measure(model: Path, given: argparse.Namespace) -> tuple[dict[str, Any], PhotoEvaluation | None]:
    """Return the figures of a model file on the data at hand; what was not measured is None."""
    classifier = Classifier(model)
    contract = classifier.contract
    found: dict[str, Any] = dict.fromkeys(("fer2013", "fer2013_distribution", "ferplus", "photographs"))
    photos = None
    if given.fer2013:
        crop = contract.crop
        data = read_evaluation_data(given.fer2013, crop.resize_hw[0], crop.fit, EvaluationOptions())
        whole = {way: evaluate(classifier, data, split=SPLIT, protocol=way) for way in ("center-crop", "ten-crop")}
        others = (image for name, part in data.splits.items() if name != SPLIT for image in part.images)
        alone = ~identical_to(data.split(SPLIT).images, others)
        without = {f"{way} without duplicates": result.subset(alone) for way, result in whole.items()}
        found["fer2013"] = {way: _accuracy(result) for way, result in (whole | without).items()}
        images = aligned(data, data.split(SPLIT), contract).images
        brightness = images.mean(axis=(1, 2, 3), dtype=float)
        by = {"brightness": in_bands(whole["center-crop"], "brightness", brightness)}
        found["fer2013_distribution"] = {**_distribution(whole["center-crop"], contract), "by": by}
        if given.ferplus:
            voted = {
                way: evaluate(classifier, data, split=SPLIT, ferplus=given.ferplus, protocol=way)
                for way in ("center-crop", "center-flip")
            }
            found["ferplus"] = {way: _on_ferplus(result) for way, result in voted.items()}
    if given.photos:
        [photos] = evaluate_photos([classifier], given.photos, detector=given.detector)
        found["photographs"] = _on_photos(photos, contract, given)
    return found, photos


def _accuracy(result: Evaluation) -> dict[str, Any]:
    names = ("accuracy", "correct", "total", "loss", "per_class")
    of = {name: getattr(result, name) for name in names}
    return {**of, "mean_recall": mean_recall(result.per_class), "calibration_error": result.calibration.expected_error}


def _on_ferplus(result: Evaluation) -> dict[str, Any]:
    eight = {"accuracy": result.eight_class_accuracy, "correct": result.correct, "contempt": result.contempt}
    eight["total"] = result.total + (result.contempt or 0)
    return {**_accuracy(result), "left_out": result.left_out, "eight_classes": eight}


def _on_photos(result: PhotoEvaluation, contract: Contract, given: argparse.Namespace) -> dict[str, Any]:
    found, classes = result.with_face, [name for name in FIELD_CLASSES if name in result.per_class]
    counts = zip(found.labels, found.confusion.sum(axis=1).tolist(), strict=True)
    by = {
        name: in_bands(found, name, values, classes)
        for name, values in measured_faces(given.photos, given.detector, contract).items()
        if values.size and values[0] == values[0]
    }
    return {
        **{name: getattr(result, name) for name in ("accuracy", "total", "detector", "per_class")},
        "correct": found.correct,
        "missed": result.missed_total,
        "left_out": dict(result.left_out),
        "images_per_class": {label: count + result.missed[label] for label, count in counts},
        "recall_of": classes,
        "mean_recall_of": mean_recall(result.per_class, classes),
        "with_face": _accuracy(found),
        **_distribution(found, contract),
        "by": by,
    }


def _distribution(result: Evaluation, contract: Contract) -> dict[str, Any]:
    """Return calibration, and accuracy and coverage by threshold."""
    bins = calibration(softmax(result.logits), result.truths, _BINS)
    filled = zip(bins.counts.tolist(), bins.confidence.tolist(), bins.accuracy.tolist(), strict=True)
    return {
        "calibration": [
            {"from": index / _BINS, "count": count, "confidence": confidence, "accuracy": accuracy}
            for index, (count, confidence, accuracy) in enumerate(filled)
            if count
        ],
        "risk_coverage": result.coverage(sorted({*_THRESHOLDS, contract.uncertain_below})),
    }


def publish(given: argparse.Namespace) -> Path:
    """Write the files of a model and return the path of its card."""
    folder, name = given.folder, given.name
    weights, model, page = (folder / f"{name}{suffix}" for suffix in (CHECKPOINT_SUFFIX, ONNX_SUFFIX, ".md"))
    training = training_section((given.training or page).read_text())
    if given.checkpoint:
        checkpoint = load_checkpoint(given.checkpoint)
        below = checkpoint.contract.uncertain_below if given.uncertain_below is None else given.uncertain_below
        # An older checkpoint may contain another crop margin of live faces than the current one.
        crop = replace(checkpoint.contract.crop, margin=CROP_MARGIN)
        checkpoint = replace(checkpoint, contract=replace(checkpoint.contract, crop=crop, uncertain_below=below))
        save_checkpoint(weights, checkpoint)
        export(weights, model)
    figures, photos = measure(model, given)
    if given.checkpoint:
        accuracy = tuple(
            Accuracy("fer2013", SPLIT, way, result["correct"], result["total"])
            for way, result in (figures["fer2013"] or {}).items()
        )
        contract = checkpoint.contract
        contract = replace(contract, provenance=replace(contract.provenance, accuracy=accuracy))
        save_checkpoint(weights, replace(checkpoint, contract=contract))
        if text_tower_beside(given.checkpoint).is_file():
            write_atomic(text_tower_beside(weights), text_tower_beside(given.checkpoint).read_bytes())
        export(weights, model)
    contract = Classifier(model).contract
    document = {
        "name": name,
        "architecture": contract.architecture,
        "labels": list(contract.labels),
        "temperature": contract.temperature,
        "parameters": parameter_count(build_net(load_checkpoint(weights))),
        "macs": graph_cost(load_graph(model)).macs,
        "size_bytes": model.stat().st_size,
        "sha256": sha256_of(model),
        "uncertain_below": contract.uncertain_below,
        **figures,
    }
    if given.docs is not None:
        write_atomic(given.docs / f"models/{name}.json", json.dumps(document, indent=1) + "\n")
        if photos is not None:
            picture = given.docs / f"models/{name}-photographs.png"
            save_evaluation(picture, photos.with_face, f"{name} on photographs, largest face of each")
        update_results(given.docs)
    write_atomic(page, card(document, training, given.docs, folder))
    return page


def update_results(docs: Path) -> None:
    """Write the tables of all documents in docs/models between the marks of docs/reference/results.md."""
    page = docs / "reference/results.md"
    before, _, rest = page.read_text().partition(BEGIN)
    write_atomic(page, f"{before}{BEGIN}\n\n{results_tables(docs / 'models')}\n{END}{rest.partition(END)[2]}")


def results_tables(models: Path) -> str:
    """Return the table of the shipped models whose documents are in the folder `models`."""
    paths = [models / f"{name}.json" for name in SHIPPED]
    return results_table([json.loads(path.read_text()) for path in paths if path.is_file()])


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="trained checkpoint; default: write the card only")
    parser.add_argument("--name", default="default", choices=SHIPPED)
    parser.add_argument("--folder", type=Path, default=ASSETS, help="folder of the three files")
    parser.add_argument("--fer2013", type=Path, help="FER-2013, measured on PrivateTest")
    parser.add_argument("--ferplus", type=Path, help="CSV of FER+ votes; needs --fer2013")
    parser.add_argument("--photos", type=Path, help="whole photographs")
    parser.add_argument("--detector", default="yunet", help="detector for the photographs, or YuNet's .onnx file")
    parser.add_argument("--training", type=Path, help="Markdown with the section on the training")
    parser.add_argument("--uncertain-below", type=float, help="threshold of 'uncertain'; default: the checkpoint's")
    parser.add_argument("--docs", type=Path, help="folder of the docs, for document, picture and tables of the model")
    print(publish(parser.parse_args()))


if __name__ == "__main__":
    main()
