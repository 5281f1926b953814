"""A CLIP with trained prompts as one ONNX file: images in, logits out, without text tower.

The image tower carries its prompts as constants; beside it the same tower runs without them, for the ensemble. The text
side is a matrix: class vectors times logit scale.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.contract import Contract
from edgekit.device.engines.classifier import Classifier
from edgekit.errors import InputError
from edgekit.export.onnx.to_onnx import Exported, export_net
from edgekit.files import sha256_of
from edgekit.models.clip.checkpoint import build_prompted, load_lasting_prompts, load_prompts, require_clip
from edgekit.models.clip.classifier import PROMPTED, clip_contract
from edgekit.models.clip.load import load_clip
from edgekit.models.clip.prompt_insertion import encode_image
from edgekit.models.clip.prompted import PromptedClip
from edgekit.models.data import DataSet
from edgekit.models.evaluation.evaluate import aligned, evaluate

# Logits are cosines times 100: the same rounding weighs more than in nets whose logits are sums of a few values.
TOLERANCE = 1e-3


class PromptedTower(nn.Module):
    """Logits (N, classes) of normalised images (N, 3, size, size)."""

    def __init__(self, net: PromptedClip, ensemble: bool) -> None:
        """Bake in what does not depend on the images; without `ensemble` the frozen features are left out of them."""
        super().__init__()
        self.visual = net.clip.model.visual
        self.ensemble = ensemble and net.config.ensemble
        self.prompts: Tensor
        self.class_matrix: Tensor
        with torch.no_grad():
            self.register_buffer("prompts", net.learner().vision.clone())
            self.register_buffer("class_matrix", (net.clip.logit_scale * net.text_features()).T.contiguous())

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features = F.normalize(encode_image(self.visual, images, self.prompts), dim=-1)
        if self.ensemble:
            frozen = F.normalize(encode_image(self.visual, images), dim=-1)
            features = F.normalize(features + frozen, dim=-1)
        return features @ self.class_matrix


@dataclass(frozen=True)
class Form:
    """An exported form: bytes, multiply-accumulates an image, and accuracy 0..1 where it was measured."""

    size_bytes: int
    macs: int | None
    accuracy: float | None


@dataclass(frozen=True)
class ExportedPrompts:
    """What was exported; `whole` and `reduced` are there if the ensemble was left out, to compare."""

    exported: Exported
    whole: Form | None = None
    reduced: Form | None = None


def open_prompts(path: Path, clip: str | None, descriptions: Mapping[str, Sequence[str]] | None) -> PromptedClip:
    """Return a prompted CLIP that can be exported.

    Args:
        path: A file of trained prompts.
        clip: The CLIP they belong to, by name or file.
        descriptions: Sentences of other classes than those it was trained with; see `edgekit.models.clip.descriptions`.

    Raises:
        InputError: The prompts change whenever they are used, `clip` is missing or another, or a sentence does not fit.
        UnavailableError: A CLIP by name cannot be downloaded.
    """
    checkpoint = load_lasting_prompts(path)
    net = build_prompted(checkpoint, load_clip(require_clip(path, clip), checkpoint.clip.config.activation))
    return net if descriptions is None else net.with_classes(descriptions)


def prompts_contract(path: Path, net: PromptedClip) -> Contract:
    """Return the contract of the exported file: whole pictures, gray if the prompts were trained on gray ones."""
    training = load_prompts(path).training
    name, gray = str(training.get("data_name", "unknown")), bool(training.get("gray"))
    contract = clip_contract(PROMPTED, net.clip.config, net.classes, name, gray)
    return replace(contract, provenance=replace(contract.provenance, checkpoint_sha256=sha256_of(path)))


def export_prompts(
    net: PromptedClip, contract: Contract, target: Path, ensemble: bool = True, measured_on: DataSet | None = None
) -> ExportedPrompts:
    """Export a prompted CLIP to `target`.

    Args:
        net: The prompted CLIP.
        contract: Its contract.
        target: The .onnx file.
        ensemble: Whether the frozen features are part of it. Without them the file passes an image through one tower
            instead of two, answers otherwise, and the result says what that costs.
        measured_on: A data set of one split, to measure accuracy on with and without.

    Raises:
        InputError: `target` does not end in .onnx, the prompts were trained without ensemble, or the data does not fit.
        GateError: The file answers otherwise than the prompted CLIP; `target` is left as it was.
        StorageError: The file cannot be written.
    """
    if ensemble:
        return ExportedPrompts(_exported(net, True, contract, target))
    if not net.config.ensemble:
        raise InputError("the prompts were trained without ensemble: there is none to leave out")
    exported = _exported(net, False, contract, target)
    with tempfile.TemporaryDirectory() as folder:
        whole = _exported(net, True, contract, Path(folder) / "whole.onnx")
        return ExportedPrompts(exported, _form(whole, measured_on), _form(exported, measured_on))


def _exported(net: PromptedClip, ensemble: bool, contract: Contract, target: Path) -> Exported:
    tower = PromptedTower(net, ensemble)
    return export_net(tower, contract, target, tolerance=TOLERANCE, shares_weights=True)


def _form(exported: Exported, dataset: DataSet | None) -> Form:
    if dataset is None:
        return Form(exported.size_bytes, exported.cost.macs, None)
    ((_, part),) = dataset.splits.items()
    classifier = Classifier(exported.path)
    result = evaluate(classifier, aligned(dataset, part, classifier.contract), "center-crop")
    return Form(exported.size_bytes, exported.cost.macs, result.accuracy)
