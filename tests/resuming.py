"""Jobs for the training loop; comparison of an interrupted and resumed training with an uninterrupted training."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.models.training.loop import STATE_NAME, train_job
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.record import TrainingRecord
from edgekit.models.training.task import Task, TrainingJob


def job_of(task: Task, recipe: Recipe, seed: int = 0, **record: Any) -> TrainingJob:
    """Return a job on the CPU; `record` are further fields of its record."""
    made = TrainingRecord(recipe=asdict(recipe), seed=seed, settings=task.fingerprint(), **record)
    return TrainingJob(task, recipe, made, accelerator="cpu")


def train_whole_and_resumed(
    job: Callable[[], TrainingJob], folder: Path, interrupted_after: int
) -> dict[str, torch.Tensor]:
    """Train without and with an interruption after that many steps; check that the weights are equal; return them.

    The trainings are in the folders "whole" and "resumed".
    """
    steps = itertools.count(1)

    def interrupt(_: object) -> None:
        if next(steps) == interrupted_after:
            raise KeyboardInterrupt

    train_job(job(), folder / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_job(job(), folder / "resumed", on_step=interrupt)
    assert (folder / "resumed" / STATE_NAME).exists(), "no epoch was finished before the interruption"
    train_job(job(), folder / "resumed", resume=True)
    whole, resumed = (torch.load(folder / name / STATE_NAME, weights_only=True) for name in ("whole", "resumed"))
    for part in ("net", "average"):
        assert whole[part].keys() == resumed[part].keys()
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, resumed[part][name]), f"{part}: {name}"
    weights: dict[str, torch.Tensor] = whole["net"]
    return weights
