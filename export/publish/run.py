"""Files of a model from a trained checkpoint: checkpoint with measured accuracy, export, card, figures of the docs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.contract import Contract
from edgekit.device.engines.classifier import Classifier
from edgekit.export.onnx.to_onnx import export_checkpoint
from edgekit.export.profiling.cost import graph_cost, load_graph
from edgekit.export.publish.card import card, training_facts
from edgekit.export.publish.measure import Figures, Sources, figures_document, measure
from edgekit.export.publish.results import update_results
from edgekit.files import sha256_of, write_atomic
from edgekit.model_store import CHECKPOINT_SUFFIX, ONNX_SUFFIX
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.clip.text_tower import text_tower_beside
from edgekit.models.evaluation.evaluate import TorchClassifier
from edgekit.models.evaluation.plots import save_evaluation
from edgekit.models.model_loading import build_net
from edgekit.models.nets.registry import parameter_count
from edgekit.preprocess import CROP_MARGIN

# In the folder of the docs: one document and, if photographs were measured, one picture per model.
MODELS_FOLDER = "models"
RESULTS_PAGE = "reference/results.md"


@dataclass(frozen=True)
class Published:
    """Paths of a published model's files and the document of its figures."""

    onnx: Path
    card: Path
    document: Mapping[str, Any]


def publish(
    checkpoint_path: Path,
    folder: Path,
    name: str,
    sources: Sources,
    docs: Path | None = None,
    notify: Notify = ignore_message,
    uncertain_below: float | None = None,
) -> Published:
    """Write checkpoint, exported file and card of a model, measured on the data that is at hand.

    Args:
        checkpoint_path: The trained checkpoint. If its folder has the text tower of its teacher, it is copied, too.
        folder: Folder of NAME.safetensors, NAME.onnx and NAME.md.
        name: Name of the model.
        sources: The data.
        docs: Folder of the documentation: gets models/NAME.json, with photographs models/NAME-photographs.png, and
            the tables of reference/results.md.
        notify: Called with messages for the user.
        uncertain_below: Threshold of the label "uncertain"; None: the checkpoint's.

    Raises:
        InputError: The checkpoint, its record of the training or the data cannot be used; nothing is written.
        GateError: The exported file's logits differ from the checkpoint's.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    training_facts(name, checkpoint.training)  # the card needs them, after the long measurement
    contract = checkpoint.contract
    # An older checkpoint may contain another crop margin of live faces than the current one.
    crop = replace(contract.crop, margin=CROP_MARGIN)
    below = contract.uncertain_below if uncertain_below is None else uncertain_below
    contract = replace(contract, crop=crop, uncertain_below=below)
    figures = measure(TorchClassifier(build_net(checkpoint), contract), sources, notify)
    contract = replace(contract, provenance=replace(contract.provenance, accuracy=figures.accuracy))
    weights = folder / f"{name}{CHECKPOINT_SUFFIX}"
    save_checkpoint(weights, Checkpoint(contract, checkpoint.state, checkpoint.training))
    if text_tower_beside(checkpoint_path).is_file():
        write_atomic(text_tower_beside(weights), text_tower_beside(checkpoint_path).read_bytes())
    export_checkpoint(weights, folder / f"{name}{ONNX_SUFFIX}")
    return _describe(folder, name, figures, docs)


def write_card(
    folder: Path, name: str, sources: Sources, docs: Path | None = None, notify: Notify = ignore_message
) -> Published:
    """Write the card of a model whose files exist in `folder`; see `publish` for arguments, result and errors."""
    training_facts(name, load_checkpoint(folder / f"{name}{CHECKPOINT_SUFFIX}").training)
    figures = measure(Classifier(folder / f"{name}{ONNX_SUFFIX}"), sources, notify)
    return _describe(folder, name, figures, docs)


def _describe(folder: Path, name: str, figures: Figures, docs: Path | None) -> Published:
    onnx, path = folder / f"{name}{ONNX_SUFFIX}", folder / f"{name}.md"
    contract = Classifier(onnx).contract
    checkpoint = load_checkpoint(folder / f"{name}{CHECKPOINT_SUFFIX}")
    parameters = parameter_count(build_net(checkpoint))
    document = {**_of_file(onnx, name, contract, parameters), **figures_document(figures, contract)}
    picture = None
    if docs is not None:
        models = docs / MODELS_FOLDER
        write_atomic(models / f"{name}.json", json.dumps(document, indent=1) + "\n")
        if figures.photos is not None:
            picture = models / f"{name}-photographs.png"
            save_evaluation(picture, figures.photos.with_face, f"{name} on photographs, largest face of each")
        update_results(docs / RESULTS_PAGE, models)
    write_atomic(path, card(document, checkpoint.training, picture, folder))
    return Published(onnx, path, document)


def _of_file(onnx: Path, name: str, contract: Contract, parameters: int) -> dict[str, Any]:
    return {
        "name": name,
        "architecture": contract.architecture,
        "labels": list(contract.labels),
        "temperature": contract.temperature,
        "parameters": parameters,
        "macs": graph_cost(load_graph(onnx)).macs,
        "size_bytes": onnx.stat().st_size,
        "sha256": sha256_of(onnx),
    }
