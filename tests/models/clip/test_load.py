"""Loading a CLIP from each published file format, by name, and at random; other files raise a one-line error."""

from __future__ import annotations

import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip.factory
import open_clip.pretrained
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgekit.downloads import UnavailableError
from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.models.clip.architecture import ClipConfig, Tower, build_model
from edgekit.models.clip.load import FrozenClip, load_clip, save_clip, seeded_model
from tests.clips import random_clip


def as_openai(model: Any) -> dict[str, Tensor]:
    """Return the state dict in the form of OpenAI's files: half precision, plus three integers."""
    numbers = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    halves = {name: tensor.half() for name, tensor in model.state_dict().items()}
    return halves | {name: torch.tensor(number) for name, number in numbers.items()}


class _Jit(nn.Module):
    """A scriptable module with the parameters of another module under the same names, in half precision."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        for name, parameter in source.named_parameters(recurse=False):
            self.register_parameter(name, nn.Parameter(parameter.half(), requires_grad=False))
        for name, child in source.named_children():
            if name != "gelu":
                self.add_module(name, _Jit(child))

    def forward(self, x: Tensor) -> Tensor:
        return x


def save_torchscript(model: nn.Module, path: Path) -> None:
    wrapped = _Jit(model)
    for name, number in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
        wrapped.register_buffer(name, torch.tensor(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(wrapped), str(path))


def save_state_dict(model: nn.Module, path: Path) -> None:
    torch.save(model.state_dict(), path)


def save_training(model: nn.Module, path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state}, path)


def save_split(model: nn.Module, path: Path) -> None:
    """Save in the form of open_clip's models with a separate text tower."""
    top = ("visual.", "logit_scale")
    state = {name if name.startswith(top) else f"text.{name}": t for name, t in model.state_dict().items()}
    save_file(state, path)


FORMS: dict[str, tuple[Callable[[nn.Module, Path], None], str]] = {
    "openai.pt": (save_torchscript, "quick-gelu"),
    "openai_state.pt": (lambda model, path: torch.save(as_openai(model), path), "quick-gelu"),
    "open_clip.bin": (save_state_dict, "gelu"),
    "training.pt": (save_training, "gelu"),
    "plain.safetensors": (lambda model, path: save_file(model.state_dict(), path), "gelu"),
    "split.safetensors": (save_split, "gelu"),
}


@pytest.fixture(scope="module")
def archive(small_config: ClipConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openai") / "ViT-tiny.pt"
    save_torchscript(seeded_model(small_config, 5), path)
    return path


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_clip(small_config: ClipConfig, tmp_path: Path, name: str) -> None:
    save, activation = FORMS[name]
    model: Any = seeded_model(small_config, 5)
    for parameter in model.parameters():  # values that half precision represents exactly
        parameter.data = parameter.data.half().float()
    save(model, tmp_path / name)
    clip = load_clip(tmp_path / name)
    assert clip.config == replace(small_config, activation=activation)
    assert clip.sha256 == sha256_of(tmp_path / name)
    assert clip.source == name
    expected = FrozenClip(build_like(model, clip.config), clip.config, "")
    assert clip.weights_sha256 == expected.weights_sha256
    images, tokens = torch.randn(2, 3, 32, 32), clip.tokenize(["a face", "a photo of a happy face."])
    assert torch.equal(clip.encode_image(images), expected.encode_image(images))
    assert torch.equal(clip.encode_text(tokens), expected.encode_text(tokens))
    assert clip.encode_image(images).shape == (2, clip.config.embed_dim)


def build_like(model: nn.Module, config: ClipConfig) -> nn.Module:
    other = build_model(config)
    other.load_state_dict(model.state_dict())
    return other


def test_the_activation_can_be_given(small_config: ClipConfig, tmp_path: Path) -> None:
    save_state_dict(seeded_model(small_config, 5), tmp_path / "a.pt")
    assert load_clip(tmp_path / "a.pt", activation="quick-gelu").config.activation == "quick-gelu"
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": True}}))
    assert load_clip(tmp_path / "a.pt").config.activation == "quick-gelu"


def test_a_saved_clip_states_its_architecture(tmp_path: Path) -> None:
    # A head width of 16 cannot be derived from the weights.
    config = ClipConfig(
        image_size_px=48,
        patch_size_px=8,
        vision=Tower(96, 2, 6),
        text=Tower(48, 2, 3),
        embed_dim=16,
        activation="quick-gelu",
        context_length=30,
        image_mean=(0.5, 0.5, 0.5),
    )
    model = seeded_model(config, 2)
    save_clip(tmp_path / "mini.safetensors", model, config)
    clip = load_clip(tmp_path / "mini.safetensors")
    assert clip.config == config
    assert clip.weights_sha256 == random_clip(config, 2).weights_sha256
    assert clip.image_size_px == 48
    with pytest.raises(InputError, match="its activation is quick-gelu, not gelu"):
        load_clip(tmp_path / "mini.safetensors", activation="gelu")


def test_a_random_clip_is_its_seeds(small_config: ClipConfig) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    digests = [random_clip(small_config, seed).weights_sha256 for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_frozen_clip_stays_frozen(small_clip: FrozenClip) -> None:
    module = nn.Sequential(small_clip).train()
    assert module.training
    assert not small_clip.training
    assert not any(child.training for child in small_clip.modules())
    assert not small_clip.encode_image(torch.randn(1, 3, 32, 32, requires_grad=True)).requires_grad


def test_a_name_of_open_clips(small_config: ClipConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state_dict(seeded_model(small_config, 5), tmp_path / "weights.bin")
    document = {
        "embed_dim": small_config.embed_dim,
        "vision_cfg": {"image_size": 32, "layers": 3, "width": 128, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 3},
    }
    entry = {"file": str(tmp_path / "weights.bin"), "quick_gelu": True, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", document)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-tiny", {"ours": entry})
    monkeypatch.delenv("EDGEKIT_OFFLINE", raising=False)
    clip = load_clip("ViT-tiny/ours")
    assert clip.config == replace(small_config, activation="quick-gelu", image_mean=(0.5,) * 3, image_std=(0.25,) * 3)
    assert clip.source == "ViT-tiny/ours"
    with pytest.raises(InputError, match=r"no weights 'theirs' of ViT-tiny: give ViT-tiny/ and one of ours"):
        load_clip("ViT-tiny/theirs")
    monkeypatch.setitem(document["vision_cfg"], "width", 192)
    with pytest.raises(InputError, match=r"weights\.bin': the weights do not fit .*: tensor '\S+' has shape"):
        load_clip("ViT-tiny/ours")
    monkeypatch.setenv("EDGEKIT_OFFLINE", "1")
    with pytest.raises(
        UnavailableError, match=r"'ViT-B-16/openai' cannot be downloaded \(EDGEKIT_OFFLINE\): .*ViT-B-16\.pt"
    ):
        load_clip("ViT-B-16/openai")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-Z-99/openai", "neither a file nor an open_clip name"),
        ("RN50/openai", "two plain transformers"),
        ("ViT-B-16-SigLIP/webli", "two plain transformers"),
        ("nowhere.pt", "does not exist"),
    ],
)
def test_other_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_clip(name)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: {n: t for n, t in s.items() if n != "ln_final.bias"}, r"'ln_final\.bias' is missing"),
        (lambda s: {**s, "visual.proj": torch.zeros(192, 24)}, r"'visual\.proj' has shape \[192, 24\]"),
        (lambda _: {"visual.layer1.0.conv1.weight": torch.zeros(1)}, "is a ResNet"),
        (lambda _: {"fc.weight": torch.zeros(1)}, r"'visual\.conv1\.weight' is missing"),
        (lambda s: {**s, "ln_final.bias": torch.full((64,), torch.nan)}, "NaN or infinity"),
        (lambda _: {"state_dict": []}, "no state dict"),
    ],
)
def test_other_weights_are_refused(
    small_clip: FrozenClip, tmp_path: Path, edit: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    torch.save(edit(small_clip.model.state_dict()), tmp_path / "a.pt")
    with pytest.raises(InputError, match=message) as caught:
        load_clip(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)


def test_damaged_files_are_refused(small_config: ClipConfig, archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    save_clip(tmp_path / "a.safetensors", seeded_model(small_config, 5), small_config)
    tensors = (tmp_path / "a.safetensors").read_bytes()
    damaged = {
        "half.pt": whole[: len(whole) // 2],
        "text.pt": b"this is no archive",
        "half.safetensors": tensors[: len(tensors) // 2],
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"'{tmp_path / name}'") as caught:
            load_clip(tmp_path / name)
        assert "\n" not in str(caught.value), name


class _RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {os.environ['EDGEKIT_TEST_MARK']}",)


def test_no_code_of_an_archive_is_executed(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_TEST_MARK", str(tmp_path / "ran"))
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(tmp_path / "evil.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, pickle.dumps(_RunsCode()) if name.endswith("/data.pkl") else old.read(name))
    with pytest.raises(InputError, match=r"its pickle refers to posix\.system"):
        load_clip(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "no valid metadata"),
        ('{"schema": "2.0"}', "reads 1.x: update edgekit"),
        ('{"schema": "1.0"}', "field 'config' is missing"),
    ],
)
def test_invalid_metadata_are_refused(small_clip: FrozenClip, tmp_path: Path, metadata: str, message: str) -> None:
    save_file(small_clip.model.state_dict(), tmp_path / "a.safetensors", metadata={"edgekit-clip": metadata})
    with pytest.raises(InputError, match=message):
        load_clip(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("word " * 76, "78 tokens long, the CLIP's context 77"),
        ("a <end_of_text> b", "contains a start or end token"),
    ],
)
def test_texts_that_cannot_be_tokenized_are_refused(small_clip: FrozenClip, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_clip.tokenize([text])
