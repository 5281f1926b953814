"""Small CLIPs in the layout of transformers, and transformers' features of them.

In an environment with torch, safetensors and transformers 5, `python -m tests.models.clip.transformers_files` writes
GOLDEN again.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

GOLDEN = Path(__file__).parents[2] / "fixtures/golden/clip-transformers.json"
# The heads have 8 and 12 channels; the last token of the vocabulary ends a text.
_TEXT = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
_VISION = {"hidden_size": 36, "intermediate_size": 60, "num_hidden_layers": 3, "num_attention_heads": 3}
_TOKENS = [[38, 1, 2, 39, 0, 0, 0], [38, 5, 39, 0, 0, 0, 0]]


def config(activation: str) -> dict[str, Any]:
    return {
        "model_type": "clip",
        "projection_dim": 24,
        "text_config": _TEXT
        | {"vocab_size": 40, "max_position_embeddings": 7, "eos_token_id": 39, "hidden_act": activation},
        "vision_config": _VISION | {"image_size": 24, "patch_size": 8, "hidden_act": activation},
    }


def tensors() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "text_projection.weight": (24, 32),
        "visual_projection.weight": (24, 36),
        "text_model.embeddings.token_embedding.weight": (40, 32),
        "text_model.embeddings.position_embedding.weight": (7, 32),
        "vision_model.embeddings.class_embedding": (36,),
        "vision_model.embeddings.patch_embedding.weight": (36, 3, 8, 8),
        "vision_model.embeddings.position_embedding.weight": (10, 36),
        **_linear("text_model.final_layer_norm", 32),
        **_linear("vision_model.pre_layrnorm", 36),
        **_linear("vision_model.post_layernorm", 36),
    }
    for prefix, tower in (("text_model", _TEXT), ("vision_model", _VISION)):
        width, hidden = tower["hidden_size"], tower["intermediate_size"]
        for number in range(tower["num_hidden_layers"]):
            layer = f"{prefix}.encoder.layers.{number}"
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                shapes |= _linear(f"{layer}.self_attn.{part}", width, width)
            shapes |= _linear(f"{layer}.layer_norm1", width) | _linear(f"{layer}.layer_norm2", width)
            shapes |= _linear(f"{layer}.mlp.fc1", hidden, width) | _linear(f"{layer}.mlp.fc2", width, hidden)
    random = np.random.RandomState(7)
    return {name: torch.tensor(random.normal(0, 0.3, shape), dtype=torch.float32) for name, shape in shapes.items()}


def write_files(folder: Path, activation: str) -> None:
    """Write `config.json` and `model.safetensors`."""
    (folder / "config.json").write_text(json.dumps(config(activation)))
    save_file(tensors(), folder / "model.safetensors")


def inputs() -> tuple[Tensor, Tensor]:
    """Return two images and the tokens of two texts."""
    return torch.tensor(np.random.RandomState(8).normal(0, 1, (2, 3, 24, 24)), dtype=torch.float32), torch.tensor(
        _TOKENS
    )


def _linear(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def main() -> None:
    from transformers import CLIPModel  # type: ignore[import-not-found]

    golden = {}
    images, tokens = inputs()
    for activation in ("gelu", "quick_gelu"):
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), activation)
            model = CLIPModel.from_pretrained(folder).eval()
        with torch.no_grad():
            image = model.visual_projection(model.vision_model(pixel_values=images).pooler_output)
            text = model.text_projection(model.text_model(input_ids=tokens).pooler_output)
        golden[activation] = {"image": image.double().tolist(), "text": text.double().tolist()}
    GOLDEN.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
