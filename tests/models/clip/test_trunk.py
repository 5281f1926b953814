"""A small CLIP whose patches are embedded by the trunk of a trained EdgeCNN."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.models.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.clip.architecture import Tower, read_trunk
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.clip.load import load_clip
from edgekit.models.data import EXPRESSIONS, DataSet
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import create_model
from edgekit.models.tensor_files import read_header
from edgekit.models.train_clip import MiniClipTask, TeacherTargets, hybrid_config, train_clip
from edgekit.models.training.loop import BEST_NAME, train_job
from edgekit.models.training.recipes import RECIPES, Recipe
from tests.clips import random_clip
from tests.ferplus import save_votes
from tests.resuming import job_of, train_whole_and_resumed

SMALL = replace(hybrid_config("edgecnn"), vision=Tower(64, 2, 1), text=Tower(32, 2, 1), embed_dim=32)
RECIPE = replace(RECIPES["clip-mini"], epochs=2, batch_size=28, ema_decay=0.5)


@pytest.fixture(scope="module")
def trunk_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("trunk") / "net.safetensors"
    contract = contract_for("edgecnn", EXPRESSIONS, "fer2013", gray=True)
    save_checkpoint(path, Checkpoint(contract, create_model("edgecnn", 7).state_dict()))
    return path


def task_on(data: DataSet, trunk: Path, recipe: Recipe = RECIPE, teacher: TeacherTargets | None = None) -> MiniClipTask:
    training, validation = data.splits["Training"], data.splits["PublicTest"]
    described = descriptions_for(data.classes)
    weights = read_trunk(trunk)
    return MiniClipTask(SMALL, data.classes, described, recipe, training, validation, "bars", weights, teacher=teacher)


def test_a_trunk_gives_36_tokens_and_the_features_are_open_clips() -> None:
    clip = random_clip(SMALL)
    assert clip.model.visual.positional_embedding.shape == (37, 64)
    images = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = clip.model.visual(images)
    torch.testing.assert_close(clip.encode_image(images), expected)


def test_a_trunk_stays_as_it_is_and_above_it_the_clip_learns(bars: DataSet, trunk_path: Path, tmp_path: Path) -> None:
    task = task_on(bars, trunk_path)
    train_job(job_of(task, RECIPE), tmp_path / "run")
    trained, start = load_clip(tmp_path / "run" / BEST_NAME).model.state_dict(), read_trunk(trunk_path).state
    for name, tensor in start.items():
        assert torch.equal(trained[f"visual.conv1.trunk.{name}"], tensor), name
    torch.manual_seed(0)
    before: Any = task_on(bars, trunk_path).build(torch.device("cpu"))
    assert not torch.equal(trained["visual.conv1.project.weight"], before.visual.conv1.project.weight)


def test_pretraining_learns_and_resumes_bit_for_bit(bars: DataSet, trunk_path: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train_whole_and_resumed(lambda: job_of(task_on(bars, trunk_path), RECIPE), tmp_path, 3)
    finally:
        torch.set_num_threads(threads)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]


def test_a_teachers_probabilities_are_a_second_target(bars: DataSet, trunk_path: Path) -> None:
    numbers = torch.rand(28, 13, generator=torch.Generator().manual_seed(0))
    numbers[:, -1] = 0.5
    losses = []
    for teacher in (None, TeacherTargets(np.full((56, 7), 1 / 7, np.float32), "none")):
        task = task_on(bars, trunk_path, teacher=teacher)
        torch.manual_seed(0)
        net: Any = task.build(torch.device("cpu")).train()
        task.start_epoch(net, 0)
        losses.append(float(task.loss(net, torch.arange(28), numbers).loss.detach()))
    assert losses[1] > losses[0] + 1  # the cross-entropy to equal shares of seven classes is at least log 7


@pytest.mark.slow
def test_one_command_trains_a_clip_on_a_trunk_with_votes_and_a_teacher(
    bars_folder: Path, trunk_path: Path, tmp_path: Path
) -> None:
    save_votes(bars_folder, tmp_path / "votes.csv")
    result = train_clip(
        data=bars_folder,
        output=tmp_path / "run",
        trunk=str(trunk_path),
        ferplus=tmp_path / "votes.csv",
        teacher=[str(trunk_path)],
        epochs=1,
        accelerator="cpu",
    )
    clip = load_clip(result.checkpoint)
    assert clip.config == hybrid_config("edgecnn")
    record = read_header(result.checkpoint)["edgekit-clip"]
    assert '"captions": "votes"' in record.replace('":"', '": "')
    assert "trunk_sha256" in record


def test_patches_are_left_out_except_in_the_last_quarter(bars: DataSet, trunk_path: Path) -> None:
    task = task_on(bars, trunk_path, replace(RECIPE, epochs=4))
    net: Any = task.build(torch.device("cpu")).train()
    tokens = []
    net.visual.ln_pre.register_forward_hook(lambda _module, inputs, _output: tokens.append(inputs[0].shape[1]))
    for epoch in (0, 2, 3):
        task.start_epoch(net, epoch)
        task.loss(net, torch.arange(4), torch.full((4, 13), 0.5))
    assert tokens == [19, 19, 37]  # the class token, and 18 or 36 patches
