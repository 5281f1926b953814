"""Calibration after training: the temperature is fitted, folded into the weights and recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.data import ImageSet
from edgekit.models.evaluation.evaluate import Evaluation, TorchClassifier, evaluate, fit_temperature
from edgekit.models.model_loading import build_net, contract_for
from edgekit.models.nets.embedding_net import EmbeddingNet
from edgekit.models.nets.registry import create_model
from edgekit.models.training.task import calibrated


def test_the_fitted_temperature_is_the_one_the_logits_were_scaled_by() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 5)).astype(np.float32)
    uniform = generator.uniform(size=(4000, 1))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truths = (shares.cumsum(axis=1) < uniform).sum(axis=1)  # drawn from the probabilities of the logits
    assert fit_temperature(logits, truths) == pytest.approx(1, abs=0.1)
    assert fit_temperature(3 * logits, truths) == pytest.approx(3, abs=0.3)


@pytest.mark.parametrize("architecture", ["edgecnn", "mini-xception", "shufflenetv2-x0.5", "mini-xception@16"])
def test_a_temperature_changes_no_prediction_and_is_recorded(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    contract = contract_for(architecture, ("a", "b", "c"), "noise", gray=True)
    net = create_model(architecture, 3)
    if isinstance(net, EmbeddingNet):
        net.set_classes(torch.nn.functional.normalize(torch.randn(3, 16), dim=1), 8.0)
    save_checkpoint(path, Checkpoint(contract, net.state_dict()))
    images = np.random.default_rng(0).integers(0, 255, (30, 48, 48, 1), dtype=np.uint8)
    part = ImageSet(images, np.arange(30) % 3)
    before = _logits(path, part)
    truths = before.argmax(axis=1)
    truths[:9] = (truths[:9] + 1) % 3  # correct on 70 %
    after = calibrated(load_checkpoint(path), replace(part, labels=truths))
    save_checkpoint(path, after)
    temperature = after.contract.temperature
    assert temperature != 1
    assert after.training["calibration"]["temperature"] == temperature
    losses = [Evaluation(contract.labels, truths, logits).loss for logits in (before, _logits(path, part))]
    assert losses[1] <= losses[0]
    assert np.allclose(_logits(path, part), before / temperature, rtol=1e-3, atol=1e-3)


def test_few_validation_images_leave_the_checkpoint_alone() -> None:
    contract = contract_for("mini-xception", ("a", "b"), "noise", gray=True)
    checkpoint = Checkpoint(contract, create_model("mini-xception", 2).state_dict())
    assert calibrated(checkpoint, ImageSet(np.zeros((4, 48, 48, 1), np.uint8), np.arange(4) % 2)) is checkpoint


def _logits(path: Path, part: ImageSet) -> np.ndarray:
    checkpoint = load_checkpoint(path)
    return evaluate(TorchClassifier(build_net(checkpoint), checkpoint.contract), part, "center-crop").logits
