"""The effect of the exchange between the towers: the ablation, and the command on synthetic data."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edgekit.models.clip.architecture import Tower
from edgekit.models.clip.config import PromptConfig
from edgekit.models.clip.load import random_clip, save_clip
from edgekit.models.clip.mini import CLIP_MINI
from edgekit.models.clip.prompts import PromptLearner
from edgekit.models.data import ImageSet
from tests.ferplus import save_votes

SMALL = replace(CLIP_MINI, vision=Tower(64, 3, 1), text=Tower(32, 3, 1), embed_dim=32)
CONFIG = PromptConfig(n_ctx=2, depth=3, cross_layer=2, context_words="")


def learner(seed: int) -> PromptLearner:
    torch.manual_seed(seed)
    return PromptLearner(CONFIG, SMALL)


@torch.no_grad()
def test_only_layers_whose_proxies_are_untrained_change(load: Callable[[str], ModuleType]) -> None:
    flow = load("prompt_flow")
    trained, start = learner(0), learner(1)
    whole = trained()
    same = flow.exchanged(trained, start, ())
    assert torch.equal(same.text, whole.text)
    assert torch.equal(same.vision, whole.vision)
    without = flow.exchanged(trained, start, {2})  # the layer whose text prompts come from the vision prompts
    assert torch.equal(without.vision, whole.vision)
    assert torch.equal(without.text[:2], whole.text[:2])
    assert not torch.allclose(without.text[2], whole.text[2])
    # The mapper of a group attends to the proxies of all its layers.
    without = flow.exchanged(trained, start, {0})
    assert torch.equal(without.text, whole.text)
    assert not torch.allclose(without.vision[1], whole.vision[1])


@torch.no_grad()
def test_entropy_and_cosine_of_equal_prompts_are_one(load: Callable[[str], ModuleType]) -> None:
    flow = load("prompt_flow")
    equal = torch.ones(2, 32)
    assert flow.attention_entropy(learner(0).text_proxies[0], equal) == pytest.approx(1)
    assert flow.mean_cosine(equal) == pytest.approx(1)
    assert flow.mean_cosine(torch.eye(3)) == pytest.approx(0)


def test_the_start_is_that_of_a_training(load: Callable[[str], ModuleType]) -> None:
    flow = load("prompt_flow")
    images = np.random.default_rng(0).integers(0, 255, (4, 48, 48, 1), np.uint8)
    pool = ImageSet(images, np.array([0, 1, 0, 1]))
    content = sys.modules["prompt_task_data"].Content("x", {"a": ("an a",), "b": ("a b",)}, pool, {"x": pool})
    settings = flow.Settings("PublicTest", 1, 2, 0.5, 1e-12, None, "fp32")
    net = flow.Bench(random_clip(SMALL), content, settings).prompted({}, pool, seed=3)
    trained = net.learner.state_dict()
    for seed, is_start in ((3, True), (4, False)):
        start = flow.first_prompts(net, seed).state_dict()
        # The learning rate of the first epoch is small.
        assert all(torch.allclose(start[name], trained[name], atol=1e-3) for name in start) is is_start


def test_the_command_prints_both_tables(
    load: Callable[[str], ModuleType], draw_faces: Callable[..., Path], tmp_path: Path
) -> None:
    data = draw_faces(tmp_path / "faces", {"Training": 14, "PublicTest": 14})
    save_votes(data, tmp_path / "votes.csv")
    save_clip(tmp_path / "clip.safetensors", random_clip(SMALL).model, SMALL)
    arguments = ["--clip", tmp_path / "clip.safetensors", "--data", data, "--ferplus", tmp_path / "votes.csv"]
    command = [str(each) for each in (*arguments, "--seeds", 2, "--epochs", 1, "--n-ctx", 2)]
    done = CliRunner().invoke(load("prompt_flow").main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines] == [
        *("layer, tower", "---", "1, vision", "2, vision", "3, text"),
        *("prompts", "---", "with the exchange", "without text to vision", "without vision to text", "without both"),
    ]
