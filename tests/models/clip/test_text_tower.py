"""The text tower in a file of its own returns the vectors of the CLIP, and a damaged file is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgekit.errors import InputError
from edgekit.models.clip.hicropl import PromptConfig, PromptedClip
from edgekit.models.clip.load import FrozenClip
from edgekit.models.clip.text_tower import TextTower, read_text_tower, text_tower_beside, write_text_tower
from edgekit.models.tensor_files import read_tensors, write_tensors

KEY = "edgekit-text-tower"
TEXTS = ("a smiling face", "a sad face", "somebody is calm", "a photo of a person")
LABELS = {"smiling": ("a smiling face", "a photo of a smiling person"), "calm": ("somebody is calm",), "sad": ()}


@pytest.fixture
def clip(small_clip: FrozenClip) -> FrozenClip:
    return FrozenClip(small_clip.model, small_clip.config, "small", texts=TEXTS)


def prompted(clip: FrozenClip) -> PromptedClip:
    torch.manual_seed(0)
    return PromptedClip(clip, PromptConfig(n_ctx=2, depth=2, cross_layer=1), {"smiling": (), "sad": ()})


@pytest.mark.parametrize("has_prompts", [False, True])
def test_the_vectors_are_those_of_the_clip(clip: FrozenClip, has_prompts: bool, tmp_path: Path) -> None:
    path = text_tower_beside(tmp_path / "student.safetensors")
    assert path.name == "student.text.safetensors"
    tower = TextTower(clip, prompted(clip) if has_prompts else None, "ab" * 32)
    write_text_tower(path, tower)
    read = read_text_tower(path)
    assert (read.teacher_sha256, read.clip.texts) == (tower.teacher_sha256, TEXTS)
    expected = tower.vectors(LABELS)
    assert expected.shape == (2, 3, clip.config.embed_dim)
    torch.testing.assert_close(read.vectors(LABELS), expected, atol=3e-3, rtol=0)
    first = path.read_bytes()
    write_text_tower(path, tower)
    assert path.read_bytes() == first
    whole = sum(value.numel() for value in clip.model.state_dict().values()) * 4
    assert len(first) < whole / 10, "neither the image tower nor unknown tokens are in the file"


def _without(name: str) -> Callable[[dict[str, Tensor], dict[str, Any]], object]:
    return lambda state, _: state.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("ln_final.weight"), "tensor 'ln_final.weight' is missing"),
        (_without("text_prompts"), "its prompts are missing"),
        (lambda state, _: state.update(tokens=state["tokens"] + 60_000), "out of bounds|out of range"),
        (lambda state, _: state.update(text_prompts=state["text_prompts"][:1]), "its prompts have shape"),
        (lambda _, document: document.update(schema="2.0"), "this edgekit reads 1.x"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(
    clip: FrozenClip, tmp_path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], object], message: str
) -> None:
    path = tmp_path / "a.text.safetensors"
    write_text_tower(path, TextTower(clip, prompted(clip), "ab" * 32))
    state, metadata = read_tensors(path)
    document = json.loads(metadata[KEY])
    change(state, document)
    write_tensors(path, state, KEY, document)
    with pytest.raises(InputError, match=message) as caught:
        read_text_tower(path)
    assert str(caught.value).startswith(f"text tower '{path}' cannot be used: ")
    assert "\n" not in str(caught.value)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.text.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match="cannot be used"):
        read_text_tower(path)
    write_tensors(path, {"a": torch.zeros(1)}, "other", {})
    with pytest.raises(InputError, match="it contains no text tower"):
        read_text_tower(path)
