"""Prompt files contain only the trained prompts, and are valid only for the CLIP of their training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from edgekit.errors import InputError
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.checkpoint import (
    METADATA_KEY,
    build_prompted,
    is_prompts_file,
    load_prompts,
    prompt_checkpoint,
    save_prompts,
)
from edgekit.models.clip.hicropl import PromptConfig, PromptedClip
from edgekit.models.clip.load import FrozenClip, load_clip, save_clip
from tests.clips import random_clip

CLASSES = {"sad": ["Tears on the cheeks."], "happy": ["A smiling face.", "Joy."], "calm": []}


@pytest.fixture
def net(small_clip: FrozenClip) -> PromptedClip:
    torch.manual_seed(4)
    return PromptedClip(small_clip, PromptConfig(n_ctx=2, depth=3, cross_layer=1), CLASSES).eval()


@pytest.fixture
def file(net: PromptedClip, tmp_path: Path) -> Path:
    save_prompts(tmp_path / "prompts.safetensors", prompt_checkpoint(net, {"seed": 4}))
    return tmp_path / "prompts.safetensors"


@torch.no_grad()
def test_prompts_come_back_as_they_were_saved(net: PromptedClip, file: Path, small_clip: FrozenClip) -> None:
    loaded = load_prompts(file)
    assert loaded.config == net.config
    assert loaded.classes == net.classes == ("sad", "happy", "calm")
    assert loaded.training == {"seed": 4}
    assert loaded.clip.source == "random:1"
    images = torch.randn(2, 3, 32, 32)
    built = build_prompted(loaded, small_clip)
    assert torch.equal(built(images), net(images))
    assert not built.training


def test_the_clip_is_not_in_the_file(net: PromptedClip, file: Path) -> None:
    assert set(load_file(file)) == set(net.learner.state_dict())
    values = sum(parameter.numel() for parameter in net.learner.parameters())
    assert file.stat().st_size < values * 4 + 20_000


def test_equal_checkpoints_are_equal_bytes(net: PromptedClip, tmp_path: Path) -> None:
    for index in range(4):
        save_prompts(tmp_path / str(index), prompt_checkpoint(net, {"b": 1, "a": 2}))
    assert len({(tmp_path / str(index)).read_bytes() for index in range(4)}) == 1


def test_the_checksum_of_the_outputs_stays_the_same_in_later_versions(net: PromptedClip) -> None:
    checkpoint = prompt_checkpoint(net, {"seed": 4})
    clip = replace(checkpoint.clip, weights_sha256="ab")
    fixed = replace(checkpoint, clip=clip, state={"text_prompts": torch.zeros(2)})
    assert fixed.outputs_sha256() == "ba74cafb383796489e0acb2e33a9392645200a23312995b1570136d3b2e60974"
    assert fixed.outputs_sha256() == replace(fixed, training={"seconds": 3}).outputs_sha256()
    assert fixed.outputs_sha256() != replace(fixed, training={"gray": True}).outputs_sha256()


def test_the_same_weights_in_another_file_are_accepted(file: Path, small_clip: FrozenClip, tmp_path: Path) -> None:
    save_clip(tmp_path / "clip.safetensors", small_clip.model, small_clip.config)
    other = load_clip(tmp_path / "clip.safetensors")
    assert other.sha256 != small_clip.sha256
    build_prompted(load_prompts(file), other)


def test_another_clip_is_refused(file: Path, small_config: ClipConfig) -> None:
    with pytest.raises(InputError, match=r"trained for 'random:1' \(sha256 \w{64}\), not for .* 'random:2'"):
        build_prompted(load_prompts(file), random_clip(small_config, seed=2))
    wide = random_clip(replace(small_config, vision=Tower(192, 3, 3)))
    with pytest.raises(InputError, match=r"a CLIP whose vision is \{'width': 128.*'width': 192"):
        build_prompted(load_prompts(file), wide)


def rewrite(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    with safe_open(path, framework="pt") as opened:
        document = json.loads(opened.metadata()[METADATA_KEY])
    changed = edit(document)
    save_file(load_file(path), path, metadata={METADATA_KEY: json.dumps(changed)})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d | {"schema": "2.0"}, "schema is '2.0'"),
        (lambda d: d | {"config": {**d["config"], "depth": "3"}}, r"'config\.depth' is wrong: expected `int`"),
        (lambda d: d | {"config": {**d["config"], "flow": "one-way"}}, "flow 'one-way' is a variant of the method"),
        (lambda d: d | {"classes": ["sad"]}, "classes are not those"),
    ],
)
def test_a_wrong_description_is_refused(file: Path, edit: Callable[[dict[str, Any]], Any], message: str) -> None:
    rewrite(file, edit)
    with pytest.raises(InputError, match=message):
        load_prompts(file)


def test_a_later_minor_version_may_have_more_fields(file: Path) -> None:
    rewrite(file, lambda d: d | {"schema": "1.7", "news": 1, "config": {**d["config"], "new": 2}})
    assert load_prompts(file).config.depth == 3


def test_a_file_of_version_0_2_is_read(file: Path) -> None:
    more = {"flow": "hicropl", "ensemble": True, "upstream_compat": False, "proxy": "attention", "mapper": "attention"}
    rewrite(file, lambda d: d | {"config": {**d["config"], **more, "consistency_on": "ensembled"}})
    assert load_prompts(file).config.depth == 3


def test_other_files_are_distinguished(file: Path, small_clip: FrozenClip, tmp_path: Path) -> None:
    assert is_prompts_file(file)
    save_clip(tmp_path / "clip.safetensors", small_clip.model, small_clip.config)
    (tmp_path / "text").write_text("this is no tensor")
    assert not any(is_prompts_file(tmp_path / name) for name in ("clip.safetensors", "text", "none"))
    with pytest.raises(InputError, match="contains no trained prompts"):
        load_prompts(tmp_path / "clip.safetensors")
    with pytest.raises(InputError, match="are not a safetensors file"):
        load_prompts(tmp_path / "text")
    with pytest.raises(InputError, match="contains trained prompts: give also the CLIP"):
        load_checkpoint(file)
