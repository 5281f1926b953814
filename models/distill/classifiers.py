"""Classifiers as teachers: checkpoints and exported files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edgekit.files import sha256_of
from edgekit.model_store import ONNX_SUFFIX
from edgekit.models.checkpoints.checkpoint import load_checkpoint
from edgekit.models.data.folds import pixel_facts
from edgekit.models.distill.teachers import Teacher, TeacherOutputs, name_of, to_teacher_input
from edgekit.models.evaluation.evaluate import CropClassifier, TorchClassifier, open_classifier
from edgekit.models.model_loading import build_net
from edgekit.preprocess import ImageU8


def classifier_teacher(path: Path, device: torch.device, threads: int | None = None) -> Teacher:
    """Return an edgekit checkpoint or exported file as a teacher.

    Raises:
        InputError: The file cannot be used.
    """
    classifier: CropClassifier
    facts: dict[str, Any] = {}
    if path.suffix == ONNX_SUFFIX:
        classifier = open_classifier(path, threads)
    else:
        checkpoint = load_checkpoint(path)
        classifier = TorchClassifier(build_net(checkpoint), checkpoint.contract, device)
        if isinstance(fold := checkpoint.training.get("fold"), dict):
            facts = {"fold": fold, "pixels": pixel_facts(checkpoint.contract.crop)}
    contract = classifier.contract

    def predict(crops: ImageU8) -> TeacherOutputs:
        return TeacherOutputs(
            classifier.logits(to_teacher_input(crops, contract.input.size_hw, contract.crop.grayscale))
        )

    height, width = (
        cropped / full for cropped, full in zip(contract.input.size_hw, contract.crop.resize_hw, strict=True)
    )
    return Teacher(
        kind="classifier",
        name=name_of(path),
        labels=contract.labels,
        sha256=sha256_of(path),
        predict=predict,
        share_hw=(height, width),
        subject=contract.subject,
        crop=contract.crop,
        facts={"architecture": contract.architecture, **facts},
    )
