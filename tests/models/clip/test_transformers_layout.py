"""CLIPs in the layout of transformers have transformers' features."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgekit.errors import InputError
from edgekit.models.clip.load import load_clip
from tests.models.clip.transformers_files import GOLDEN, config, inputs, write_files


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_features_equal_those_of_transformers(tmp_path: Path, activation: str) -> None:
    write_files(tmp_path, activation)
    images, tokens = inputs()
    golden = json.loads(GOLDEN.read_text())[activation]
    clip = load_clip(tmp_path)
    assert torch.allclose(clip.encode_image(images), torch.tensor(golden["image"]), rtol=0, atol=1e-5)
    assert torch.allclose(clip.encode_text(tokens), torch.tensor(golden["text"]), rtol=0, atol=1e-5)


def test_every_form_of_the_weights_gives_the_same_clip(tmp_path: Path) -> None:
    write_files(tmp_path, "gelu")
    clip = load_clip(tmp_path / "model.safetensors")
    old = {name: tensor.half() for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    halves = tmp_path / "halves"
    halves.mkdir()
    (halves / "config.json").write_text(json.dumps(config("gelu")))
    (halves / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    torch.save(old | {"text_model.embeddings.position_ids": torch.arange(7)[None]}, halves / "pytorch_model.bin")
    other = load_clip(halves)
    assert (other.config.image_mean, other.config.image_std) == ((0.5,) * 3, (0.25,) * 3)
    images, _ = inputs()
    assert torch.allclose(other.encode_image(images), clip.encode_image(images), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("vision_config", "hidden_act", "relu", "relu"),
        ("vision_config", "layer_norm_eps", 1e-6, "layer_norm_eps"),
        ("vision_config", "num_hidden_layers", 2, "unexpected"),
    ],
)
def test_other_architectures_are_refused(tmp_path: Path, section: str, field: str, value: object, message: str) -> None:
    write_files(tmp_path, "gelu")
    document = config("gelu")
    document[section][field] = value
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=message):
        load_clip(tmp_path)


def test_incomplete_files_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path, "gelu")
    weights = load_file(tmp_path / "model.safetensors")
    del weights["text_model.encoder.layers.0.self_attn.k_proj.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="q_proj"):
        load_clip(tmp_path)
