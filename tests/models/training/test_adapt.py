"""The recipe `adapt` for small data sets: frozen layers, weight interpolation, early stopping, new classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from edgekit.errors import InputError
from edgekit.model_store import resolve_model
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.data import EXPRESSIONS, DataSet
from edgekit.models.model_loading import contract_for
from edgekit.models.train import train
from edgekit.models.training.init_weights import read_initial_weights
from edgekit.models.training.loop import BEST_NAME, EpochReport, train_job
from edgekit.models.training.recipes import RECIPES, freeze, layer_rates
from edgekit.models.training.task import ClassificationTask
from tests.resuming import job_of

INITIAL = resolve_model("fer2013", (".safetensors",))
QUICK = replace(RECIPES["adapt"], epochs=2, batch_size=14)


def _adapted(data: DataSet, folder: Path, recipe=QUICK):
    contract = contract_for("edgecnn", data.classes, data.name, data.is_gray)
    initial = read_initial_weights(INITIAL, contract, lambda _message: None)
    parts = data.splits["Training"], data.splits["PublicTest"]
    task = ClassificationTask(contract, recipe, *parts, initial=initial)
    history = train_job(job_of(task, recipe), folder)
    return history, load_checkpoint(folder / BEST_NAME).state


def test_only_the_last_layer_moves_and_only_by_its_share(bars: DataSet, tmp_path: Path) -> None:
    start = load_checkpoint(INITIAL).state
    _, shared = _adapted(bars, tmp_path / "shared", replace(QUICK, keep="last"))
    _, whole = _adapted(bars, tmp_path / "whole", replace(QUICK, keep="last", initial_share=0.0))
    for name, tensor in start.items():
        if not name.startswith("classifier"):
            assert torch.equal(shared[name], tensor), name
    moved, moved_fully = (state["classifier.weight"] - start["classifier.weight"] for state in (shared, whole))
    assert moved_fully.abs().max() > 0
    assert torch.allclose(moved, (1 - QUICK.initial_share) * moved_fully, atol=1e-6)


def test_an_early_stop_is_in_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "adapt-new-classes"  # replaces `adapt` for other classes
    monkeypatch.setitem(RECIPES, name, replace(RECIPES[name], patience=2, max_lr=1e-12))
    _write_pictures(tmp_path / "data", ("dark", "light"), 20)
    options = {"recipe": "adapt", "init": "fer2013", "epochs": 9, "precision": "fp32", "threads": 1}
    result = train(data=tmp_path / "data", output=tmp_path / "run", **options)
    assert result.document()["stopped_early"] is True
    assert len(result.history) < 9


def _write_pictures(folder: Path, labels: tuple[str, str], count: int) -> None:
    """Write pictures of noise; those of the second class are brighter."""
    generator = np.random.default_rng(0)
    for label, brightness in zip(labels, (0, 90), strict=True):
        for index in range(count):
            file = folder / label / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image = generator.integers(brightness, brightness + 160, (48, 48), dtype=np.uint8)
            assert cv2.imwrite(str(file), image)


def test_ties_of_accuracy_are_broken_by_the_loss() -> None:
    report = EpochReport(1, 0.1, 1.0, 0.5, 0.9, 0.8, 1.0, 1.0)
    assert replace(report, validation_loss=0.7).rank > report.rank
    assert replace(report, validation_accuracy=0.81, validation_loss=2.0).rank > report.rank


def test_rates_fall_towards_the_input_and_zero_freezes() -> None:
    net = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for _ in range(4)), nn.Linear(3, 2))
    rates = [rate for _, rate in layer_rates(net, 0.5)]
    assert rates == [1 / 16, 1 / 16, 1 / 8, 1 / 8, 1 / 4, 1 / 4, 1 / 2, 1 / 2, 1]
    net.train()
    freeze(net, 0.0)
    assert [name for name, parameter in net.named_parameters() if parameter.requires_grad] == ["4.weight", "4.bias"]
    assert not net[0][1].training


def test_shared_classes_keep_their_rows() -> None:
    contract = contract_for("edgecnn", ("happy", "tired"), "own", gray=True)
    initial = read_initial_weights(INITIAL, contract, lambda _message: None)
    old = load_checkpoint(INITIAL).state["classifier.weight"]
    merged = initial.merged_into({"classifier.weight": torch.zeros(2, 152), "classifier.bias": torch.zeros(2)})
    assert torch.equal(merged["classifier.weight"][0], old[EXPRESSIONS.index("happy")])
    assert not merged["classifier.weight"][1].any()
    assert initial.new_classes == ("tired",)


def test_adapt_needs_initial_weights(tmp_path: Path) -> None:
    _write_pictures(tmp_path / "data", ("dark", "light"), 4)
    with pytest.raises(InputError, match="add --init default"):
        train(data=tmp_path / "data", output=tmp_path / "run", recipe="adapt")


def test_own_classes_are_learned_calibrated_and_recorded(tmp_path: Path) -> None:
    _write_pictures(tmp_path / "data", ("dark", "light"), 60)
    messages: list[str] = []
    options = {"recipe": "adapt", "init": "fer2013", "epochs": 2, "subject": "image", "precision": "fp32"}
    result = train(data=tmp_path / "data", output=tmp_path / "run", notify=messages.append, **options)
    contract = load_checkpoint(result.checkpoint).contract
    assert contract.subject == "image"
    assert contract.temperature == result.temperature
    assert any("adapt-new-classes" in message for message in messages)
    assert result.validation_accuracy > 0.8
    assert not result.stopped_early
