"""A small CLIP whose patches are embedded by the trunk of a trained EdgeCNN."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.errors import InputError
from edgekit.models.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.clip.architecture import Tower, read_trunk
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.clip.hicropl import PromptConfig, PromptedClip
from edgekit.models.clip.load import load_clip
from edgekit.models.clip.options import MiniClipOptions
from edgekit.models.data import EXPRESSIONS, DataSet
from edgekit.models.data.ferplus import COLUMNS
from edgekit.models.data.layout import canonical_class
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import create_model
from edgekit.models.tensor_files import read_header
from edgekit.models.train_clip import MiniClipTask, TeacherTargets, _teacher_targets, hybrid_config, train_clip
from edgekit.models.training.loop import BEST_NAME, train_job
from edgekit.models.training.recipes import RECIPES, Recipe
from edgekit.models.training.run import read_training_data
from edgekit.preprocess import FloatArray
from tests.clips import random_clip
from tests.resuming import job_of, train_whole_and_resumed

SMALL = replace(hybrid_config("edgecnn"), vision=Tower(64, 2, 1), text=Tower(32, 2, 1), embed_dim=32)
RECIPE = replace(RECIPES["clip-mini"], epochs=2, batch_size=28, ema_decay=0.5)


def checkpoint_of(architecture: str, path: Path, labels: tuple[str, ...] = EXPRESSIONS) -> Path:
    torch.manual_seed(1)
    net = create_model(architecture, 7)
    contract = contract_for(architecture, labels, "fer2013", gray=True)
    save_checkpoint(path, Checkpoint(contract, net.state_dict(), {}))
    return path


@pytest.fixture(scope="module")
def trunk_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of("edgecnn", tmp_path_factory.mktemp("trunk") / "net.safetensors")


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
    recipe = replace(RECIPE, epochs=4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train_whole_and_resumed(lambda: job_of(task_on(bars, trunk_path, recipe), recipe), tmp_path, 6)
    finally:
        torch.set_num_threads(threads)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]


def test_a_teachers_probabilities_are_a_second_target(bars: DataSet, trunk_path: Path) -> None:
    numbers = torch.rand(28, 13, generator=torch.Generator().manual_seed(0))
    numbers[:, -1] = 0.5
    losses = []
    for teacher in (None, TeacherTargets(np.full((56, 7), 1 / 7, np.float32), "none")):
        task, net = _started(bars, trunk_path, teacher)
        losses.append(float(task.loss(net, torch.arange(28), numbers).loss.detach()))
    assert losses[1] > losses[0] + 1  # the cross-entropy to equal shares of seven classes is at least log 7


def _started(bars: DataSet, trunk_path: Path, teacher: TeacherTargets | None = None) -> tuple[MiniClipTask, Any]:
    task = task_on(bars, trunk_path, teacher=teacher)
    torch.manual_seed(0)
    net = task.build(torch.device("cpu")).train()
    task.start_epoch(net, 0)
    return task, net


def test_prompts_of_each_layer_learn_above_a_trunk() -> None:
    clip = random_clip(SMALL)
    config = PromptConfig(n_ctx=2, depth=2, cross_layer=1)
    net = PromptedClip(clip, config, {"happy": ["a happy face"], "sad": ["a sad face"]})
    net.loss(torch.rand(4, 3, 48, 48), torch.tensor([0, 1, 0, 1])).total.backward()  # type: ignore[no-untyped-call]
    gradient = net.learner.vision_prompts.grad
    assert gradient is not None
    assert (gradient.flatten(1).abs().max(dim=1).values > 0).all()
    assert not any(parameter.requires_grad for parameter in clip.parameters())


@pytest.mark.slow
def test_one_command_trains_a_clip_on_a_trunk_with_votes_and_a_teacher(
    bars_folder: Path, trunk_path: Path, tmp_path: Path
) -> None:
    votes = _votes(bars_folder, tmp_path / "votes.csv")
    messages: list[str] = []
    stages: dict[str, tuple[int, int | None]] = {}
    options: dict[str, Any] = {
        "data": bars_folder,
        "output": tmp_path / "run",
        "trunk": str(trunk_path),
        "ferplus": votes,
        "teacher": [str(trunk_path)],
        "epochs": 1,
        "accelerator": "cpu",
    }
    result = train_clip(
        **options,
        notify=messages.append,
        progress=lambda stage, done, total: stages.update({stage: (done, total)}),
    )
    clip = load_clip(result.checkpoint)
    assert clip.config == hybrid_config("edgecnn")
    (count,) = {stages[f"teacher net.safetensors: {images}"] for images in ("images", "mirror images")}
    assert count[0] == count[1]
    announced = f"teacher net.safetensors classifies {count[0]} training images and their mirror images"
    assert announced in messages
    assert any(message.startswith("teacher net.safetensors agrees with ") for message in messages)
    record = read_header(result.checkpoint)["edgekit-clip"]
    assert '"captions": "votes"' in record.replace('":"', '": "')
    assert "trunk_sha256" in record

    other_votes, other_texts = tmp_path / "other.csv", tmp_path / "other.json"
    other_votes.write_text(votes.read_text().replace("8", "9"))
    other_texts.write_text('{"happy": ["a glad face"]}')
    for changes, message in (
        ({"ferplus": other_votes}, "its ferplus_sha256 was "),
        ({"descriptions": other_texts}, "its descriptions_sha256 was "),
    ):
        with pytest.raises(InputError, match=message):
            train_clip(**options | changes, resume=True)


def test_a_teacher_that_is_given_twice_counts_twice(bars_folder: Path, trunk_path: Path, tmp_path: Path) -> None:
    other = checkpoint_of("mini-xception", tmp_path / "other.safetensors")

    def probabilities(*teachers: Path) -> FloatArray:
        options = MiniClipOptions(data=bars_folder, output=tmp_path / "run", teacher=[str(each) for each in teachers])
        found = _teacher_targets(options, read_training_data(options))
        assert found is not None
        return found.probabilities

    first, second = probabilities(trunk_path), probabilities(other)
    np.testing.assert_allclose(probabilities(trunk_path, other, trunk_path), (2 * first + second) / 3, atol=1e-6)


def test_patches_are_left_out_except_in_the_last_quarter(bars: DataSet, trunk_path: Path) -> None:
    task = task_on(bars, trunk_path, replace(RECIPE, epochs=4))
    net: Any = task.build(torch.device("cpu")).train()
    tokens = []
    net.visual.ln_pre.register_forward_hook(lambda _module, inputs, _output: tokens.append(inputs[0].shape[1]))
    for epoch in (0, 2, 3):
        task.start_epoch(net, epoch)
        task.loss(net, torch.arange(4), torch.full((4, 13), 0.5))
    assert tokens == [19, 19, 37]  # the class token, and 18 or 36 patches


def _votes(folder: Path, path: Path) -> Path:
    """Write FER+ votes for the images of a folder, and return their file."""
    rows = [
        ",".join([name.parts[0], str(name), *("8" if _votes_for(name, column) else "0" for column in COLUMNS)])
        for name in sorted(each.relative_to(folder) for each in folder.rglob("*.png"))
    ]
    path.write_text("\n".join([",".join(["Usage", "kaggle_path", *COLUMNS]), *rows]))
    return path


def _votes_for(path: Path, column: str) -> bool:
    return canonical_class(column) == path.parts[1]
