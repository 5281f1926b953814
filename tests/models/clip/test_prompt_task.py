"""Prompt training in the common loop: published hyper-parameters, a frozen CLIP, and bit-exact resumption."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from edgekit.errors import InputError
from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.checkpoint import build_prompted, load_prompts
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.clip.hicropl import PRESETS, PromptConfig, shortened
from edgekit.models.clip.load import FrozenClip
from edgekit.models.clip.options import PromptOptions
from edgekit.models.clip.train_prompts import PromptTask
from edgekit.models.data import DataSet
from edgekit.models.data.augment import ResizedCrop
from edgekit.models.training.loop import BEST_NAME, STATE_NAME, train_job
from edgekit.models.training.recipes import RECIPES, Recipe, make_optimizer
from edgekit.models.training.task import TrainingJob
from tests.clips import random_clip
from tests.resuming import job_of, train_whole_and_resumed

CONFIG = PromptConfig(n_ctx=2, depth=3, cross_layer=2)
RECIPE = replace(RECIPES["hicropl"], epochs=3, batch_size=14, augmentation=ResizedCrop(min_area=0.5))


@pytest.fixture(scope="module")
def clip() -> FrozenClip:
    return random_clip(ClipConfig(48, 16, Tower(64, 3, 1), Tower(64, 3, 1), 32), seed=1)


def job(clip: FrozenClip, data: DataSet, recipe: Recipe = RECIPE, config: PromptConfig = CONFIG) -> TrainingJob:
    descriptions = descriptions_for(data.classes)
    training, validation = data.splits["Training"], data.splits["PublicTest"]
    task = PromptTask(clip, config, descriptions, recipe.augmentation, training, validation, data.name)
    return job_of(task, recipe, data_sha256=data.checksum())


def state(folder: Path, name: str = "net") -> dict[str, torch.Tensor]:
    document: dict[str, Any] = torch.load(folder / STATE_NAME, weights_only=True)
    part: dict[str, torch.Tensor] = document[name]
    return part


def test_learning_rates_are_the_published_ones() -> None:
    recipe = RECIPES["hicropl"]
    rates = [recipe.learning_rate(epoch, step, 9) for epoch in range(recipe.epochs) for step in (0, 8)]
    cosine = [0.0025 * (1 + math.cos(math.pi * epoch / 50)) / 2 for epoch in range(49)]
    assert rates[::2] == pytest.approx([1e-5, *cosine], rel=1e-12)
    assert rates[1::2] == rates[::2]  # one rate per epoch
    assert (recipe.epochs, recipe.batch_size) == (50, 32)


def test_the_optimizer_is_the_published_one() -> None:
    net = nn.Linear(2, 2)
    optimizer = make_optimizer(RECIPES["hicropl"], net)
    assert type(optimizer) is torch.optim.Adam
    (group,) = optimizer.param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-3, 5e-4)


def test_adamw_spares_gains_biases_and_scalars() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    net.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
    optimizer = make_optimizer(RECIPES["clip-mini"], net)
    assert type(optimizer) is torch.optim.AdamW
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in net.named_parameters()} == {
        "scale": 0.0,
        "0.weight": 0.1,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
    }


def test_training_lowers_the_loss_and_keeps_the_last_epoch(clip: FrozenClip, bars: DataSet, tmp_path: Path) -> None:
    before = copy.deepcopy(clip.state_dict())
    history = train_job(job(clip, bars, replace(RECIPE, epochs=8)), tmp_path)
    assert history[-1].loss < 0.8 * history[0].loss
    assert history[-1].accuracy > history[0].accuracy
    assert all(torch.equal(tensor, before[name]) for name, tensor in clip.state_dict().items())

    checkpoint = load_prompts(tmp_path / BEST_NAME)
    assert checkpoint.training["best"]["epoch"] == 8
    assert checkpoint.training["prompts"]["n_ctx"] == 2
    assert checkpoint.training["recipe"]["optimizer"] == "adam"
    assert checkpoint.classes == bars.classes
    net = build_prompted(checkpoint, clip)
    saved = load_file(tmp_path / BEST_NAME)
    assert saved.keys() == net.learner.state_dict().keys() == state(tmp_path).keys()  # no tensor of the CLIP


def test_an_interrupted_training_resumes_bit_for_bit(clip: FrozenClip, bars: DataSet, tmp_path: Path) -> None:
    averaged = replace(RECIPE, epochs=2, ema_decay=0.9)
    trained = train_whole_and_resumed(lambda: job(clip, bars, averaged), tmp_path, interrupted_after=6)
    assert not torch.equal(trained["text_prompts"], state(tmp_path / "whole", "average")["text_prompts"])
    best = [load_file(tmp_path / name / BEST_NAME)["text_prompts"] for name in ("whole", "resumed")]
    assert torch.equal(best[0], best[1])


def test_another_clip_or_other_values_cannot_be_resumed(clip: FrozenClip, bars: DataSet, tmp_path: Path) -> None:
    train_job(job(clip, bars, replace(RECIPE, epochs=1)), tmp_path)
    with pytest.raises(InputError, match=r"its prompts\.cross_layer was 2, now it is 1"):
        train_job(job(clip, bars, replace(RECIPE, epochs=1), replace(CONFIG, cross_layer=1)), tmp_path, resume=True)
    other = random_clip(clip.config, seed=2)
    with pytest.raises(InputError, match="its clip_sha256 was"):
        train_job(job(other, bars, replace(RECIPE, epochs=1)), tmp_path, resume=True)


def test_presets_shrink_to_a_smaller_clip(clip: FrozenClip) -> None:
    few = shortened(PRESETS["few-shot"], clip.config)
    assert (few.n_ctx, few.depth, few.cross_layer) == (16, 3, 2)
    transfer = shortened(PRESETS["cross-dataset"], replace(clip.config, vision=Tower(64, 12, 1), text=Tower(64, 12, 1)))
    assert transfer == PRESETS["cross-dataset"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_options_that_do_not_fit_each_other_are_refused() -> None:
    for given in ({"task": "domain"}, {"eval_data": ["x"]}, {"min_area": 2}, {"shots": 0}):
        with pytest.raises(InputError):
            PromptOptions(data=Path("x"), output=Path("y"), clip="z", **given)  # type: ignore[arg-type]
