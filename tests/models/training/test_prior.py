"""Logit adjustment changes the last layer's bias by the logarithm of the class shares, once, before the calibration."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.errors import InputError
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint
from edgekit.models.data import DataSet
from edgekit.models.data.balance import class_prior
from edgekit.models.data.readers import load_dataset
from edgekit.models.distill.run import distill
from edgekit.models.evaluation.evaluate import TorchClassifier, evaluate
from edgekit.models.model_loading import build_net, contract_for
from edgekit.models.nets.registry import create_model
from edgekit.models.train import train
from edgekit.models.training.prior import adjusted, class_bias
from edgekit.models.training.record import TrainingRecord
from tests.images import write_image

PRIOR = np.array([0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], np.float32)


def test_logits_change_by_the_logarithm_of_the_shares(bars: DataSet) -> None:
    torch.manual_seed(0)
    contract = contract_for("edgecnn", bars.classes, bars.name, gray=True)
    before = Checkpoint(contract, create_model("edgecnn", 7).state_dict(), {"seed": 3})
    after = adjusted(before, PRIOR, 0.5)
    change = np.subtract(*(_logits(each, bars) for each in (after, before)))
    assert np.allclose(change, -0.5 * (np.log(PRIOR) - np.log(PRIOR).mean()), atol=1e-4)
    assert after.training["seed"] == 3
    record = TrainingRecord.read(after.training).prior_adjustment
    assert record is not None
    assert (record.strength, record.prior) == (0.5, pytest.approx(PRIOR.tolist()))


def _logits(checkpoint: Checkpoint, bars: DataSet) -> np.ndarray:
    classifier = TorchClassifier(build_net(checkpoint), checkpoint.contract)
    return evaluate(classifier, bars.splits["PublicTest"], "center-crop").logits


def test_the_prior_is_the_mean_target(bars: DataSet) -> None:
    part = bars.splits["Training"].subset(np.array([0, 1, 7]))
    assert class_prior(part, 7).tolist() == pytest.approx([2 / 3, 1 / 3, *[0] * 5])
    targets = np.full((3, 7), 1 / 7, np.float32)
    targets[0] = np.eye(7)[3]
    assert class_prior(dataclasses.replace(part, targets=targets), 7)[3] == pytest.approx((1 + 2 / 7) / 3)


def test_a_training_adjusts_before_it_calibrates(bars_folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "data": bars_folder,
        "model": "mini-xception",
        "epochs": 2,
        "batch_size": 28,
        "accelerator": "cpu",
    }
    notices: list[str] = []
    train(**options, output=tmp_path / "plain")
    train(**options, output=tmp_path / "adjusted", prior_strength=1.0, notify=notices.append)
    plain, adjusted = (load_checkpoint(tmp_path / name / "best.safetensors") for name in ("plain", "adjusted"))
    assert "prior_adjustment" not in plain.training
    assert adjusted.training["prior_adjustment"]["prior"] == pytest.approx([1 / 7] * 7)
    kinds = [message.split()[0] for message in notices]
    assert kinds.index("logits") < kinds.index("calibrated")
    with pytest.raises(InputError, match=r"its prior_strength was 1\.0, now it is 0\.5"):
        train(**options, output=tmp_path / "adjusted", prior_strength=0.5, resume=True)
    with pytest.raises(InputError, match="so does balance 'sampler'"):
        train(**options, output=tmp_path / "twice", prior_strength=1.0, balance=True)
    del options["model"]
    student = {"teachers": [str(tmp_path / "plain")], "student": "mini-xception", "prior_strength": 0.5}
    distilled = distill(**options, **student, output=tmp_path / "student").training.checkpoint
    assert load_checkpoint(distilled).training["prior_adjustment"]["strength"] == 0.5


def test_the_reported_accuracy_is_that_of_the_adjusted_weights(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split, counts in (("train", (40, 8)), ("val", (12, 12))):
        for label, count in zip(("common", "rare"), counts, strict=True):
            for index in range(count):
                file = tmp_path / "data" / split / label / f"{index}.png"
                write_image(file, generator.integers(0, 255, (48, 48), np.uint8))
    options: dict[str, Any] = {
        "data": tmp_path / "data",
        "output": tmp_path / "run",
        "model": "mini-xception",
        "epochs": 2,
        "batch_size": 24,
        "accelerator": "cpu",
        "precision": "fp32",
        "threads": 1,
        "prior_strength": 2.0,
    }
    notices: list[str] = []
    result = train(**options, calibrate=False, notify=notices.append)
    checkpoint = load_checkpoint(result.checkpoint)
    validation = load_dataset(tmp_path / "data").splits["val"]
    found = evaluate(TorchClassifier(build_net(checkpoint), checkpoint.contract), validation, "center-crop")
    before = result.history[result.best_epoch - 1]
    assert before.validation_loss != pytest.approx(found.loss, rel=1e-3)
    for best in (result.document()["best"], checkpoint.training["best"]):
        assert (best["validation_accuracy"], best["validation_loss"]) == (found.accuracy, found.loss)
        assert best["epoch"] == result.best_epoch
    assert f"after the adjustment: {found.accuracy:.2%} on val" in notices
    calibrated = train(**options, resume=True)
    content = calibrated.checkpoint.read_bytes()
    again = train(**options, resume=True)
    assert again.best == calibrated.best == result.best
    assert again.checkpoint.read_bytes() == content


def test_a_net_whose_last_layer_has_no_bias_is_refused() -> None:
    assert class_bias("edgecnn") == "classifier.bias"
    with pytest.raises(InputError, match="leave prior-strength out"):
        class_bias("edgecnn@12")
