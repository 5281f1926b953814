"""What classification and distillation have in common."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from edgekit.models.classification import ClassificationTask
from edgekit.models.data import DataSet
from edgekit.models.provenance import contract_for
from edgekit.models.recipes import RECIPES


@pytest.mark.parametrize("with_targets", [False, True])
def test_images_without_label_cost_nothing(bars: DataSet, with_targets: bool) -> None:
    training = bars.splits["Training"].subset(np.arange(2))
    targets = np.array([[0.5, 0.5, 0, 0, 0, 0, 0], [0] * 7], np.float32) if with_targets else None
    training = dataclasses.replace(training, labels=np.array([0, -1]), targets=targets)
    contract = contract_for("edgecnn", bars.classes, bars.name, gray=True)
    task = ClassificationTask(contract, RECIPES["fer2013"], training, bars.splits["PublicTest"])
    task.build(torch.device("cpu"))
    losses = task.label_loss(torch.zeros(2, 7), torch.tensor([0, 1]))
    assert losses.tolist() == pytest.approx([math.log(7), 0])
