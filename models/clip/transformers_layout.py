"""CLIPs in the layout of the transformers library: `config.json`, weights, and the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from edgekit.errors import InputError
from edgekit.models.clip.architecture import IMAGE_MEAN, IMAGE_STD, ClipConfig, Tower
from edgekit.models.clip.options import Activation
from edgekit.typed_json import convert, parse_json

_T = TypeVar("_T")

_CONFIG_NAME = "config.json"
_WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
_PREPROCESSING_NAME = "preprocessor_config.json"
_ACTIVATIONS: Mapping[str, Activation] = {"gelu": "gelu", "quick_gelu": "quick-gelu"}
_EPSILON = 1e-5
_TOWERS = {"text_model": "", "vision_model": "visual."}
# Names outside of the layers, then inside a layer; the values are OpenAI's names.
_RENAMED = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "final_layer_norm": "ln_final",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "encoder.layers.": "transformer.resblocks.",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_PROJECTIONS = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}
_KEY_OR_VALUE = re.compile(r"\.self_attn\.[kv]_proj\.")
# Numbers of the positions, which old versions of transformers saved.
_NO_WEIGHTS = ".position_ids"
_QUERY = re.compile(r"(.+)\.self_attn\.q_proj\.(weight|bias)")


# transformers leaves out what has its default value: these are its defaults.
@dataclass(frozen=True)
class _Text:
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    vocab_size: int = 49408
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = _EPSILON


@dataclass(frozen=True)
class _Vision:
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = _EPSILON


@dataclass(frozen=True)
class _Document:
    model_type: str
    projection_dim: int = 512
    text_config: _Text = _Text()
    vision_config: _Vision = _Vision()


@dataclass(frozen=True)
class _Preprocessing:
    image_mean: tuple[float, ...] = IMAGE_MEAN
    image_std: tuple[float, ...] = IMAGE_STD


def is_transformers_state(state: Mapping[str, object]) -> bool:
    """Return whether the tensors have the names of transformers' CLIPs."""
    return any(name.startswith("vision_model.") for name in state)


def weights_file(folder: Path) -> Path | None:
    """Return the weights in a folder with a `config.json`; None for other folders."""
    paths = [folder / name for name in _WEIGHTS_NAMES]
    return next((path for path in paths if path.exists() and path.with_name(_CONFIG_NAME).exists()), None)


def read_config(path: Path) -> ClipConfig:
    """Return the architecture that `config.json` and `preprocessor_config.json` beside a file of weights state.

    Raises:
        InputError: `config.json` is missing or damaged, or the architecture is not that of a CLIP with a plain ViT.
    """
    document = _read(path.with_name(_CONFIG_NAME), _Document)
    preprocessing = path.with_name(_PREPROCESSING_NAME)
    # Without the file: the mean and standard deviation of CLIP's authors.
    normalisation = _read(preprocessing, _Preprocessing) if preprocessing.exists() else _Preprocessing()
    text, vision = document.text_config, document.vision_config
    for name, value, allowed in (
        ("model_type", document.model_type, ["clip"]),
        ("num_channels", vision.num_channels, [3]),
        ("layer_norm_eps", vision.layer_norm_eps, [_EPSILON]),
        ("layer_norm_eps of the text tower", text.layer_norm_eps, [_EPSILON]),
        ("hidden_act", vision.hidden_act, list(_ACTIVATIONS)),
        ("hidden_act of the text tower", text.hidden_act, [vision.hidden_act]),
    ):
        if value not in allowed:
            expected = " or ".join(map(str, allowed))
            raise InputError(f"{_CONFIG_NAME} beside CLIP file '{path}' has {name} {value}: expected {expected}")
    return ClipConfig(
        image_size_px=vision.image_size,
        patch_size_px=vision.patch_size,
        vision=_tower(vision),
        text=_tower(text),
        embed_dim=document.projection_dim,
        activation=_ACTIVATIONS[vision.hidden_act],
        context_length=text.max_position_embeddings,
        vocabulary=text.vocab_size,
        image_mean=normalisation.image_mean,
        image_std=normalisation.image_std,
    )


def renamed(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors of `path` with OpenAI's names and shapes.

    The projections of queries, keys and values become one tensor (3 x width, width); the projections to features are
    transposed, because transformers stores them as (embed_dim, width).

    Raises:
        InputError: Projections of queries, keys and values do not fit each other.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        query = _QUERY.fullmatch(name)
        if name in _PROJECTIONS:
            result[_PROJECTIONS[name]] = tensor.T.contiguous()
        elif query is not None:
            layer, kind = query.groups()  # `kind`: "weight" or "bias"
            try:
                parts = [state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
                result[_openai_name(f"{layer}.attn.in_proj_{kind}")] = torch.cat(parts)
            except (KeyError, RuntimeError) as error:
                raise InputError(f"CLIP file '{path}' has no keys and values that fit '{name}'") from error
        elif not name.endswith(_NO_WEIGHTS) and not _KEY_OR_VALUE.search(name):  # those are joined with the query
            result[_openai_name(name)] = tensor
    return result


def _openai_name(name: str) -> str:
    """Return OpenAI's name of a tensor that transformers calls `name`."""
    tower, _, rest = name.partition(".")
    if tower not in _TOWERS:
        return name
    for theirs, ours in _RENAMED.items():
        rest = rest.replace(theirs, ours)
    return _TOWERS[tower] + rest


def _tower(tower: _Text | _Vision) -> Tower:
    """Return the architecture of a tower in edgekit's terms."""
    ratio = tower.intermediate_size / max(tower.hidden_size, 1)  # `Tower` refuses a width of 0
    return Tower(tower.hidden_size, tower.num_hidden_layers, tower.num_attention_heads, ratio)


def _read(path: Path, kind: type[_T]) -> _T:
    """Return a JSON file as an object of the data class `kind`; fields that the file lacks have their defaults."""
    try:
        return convert(parse_json(path.read_text(), "it"), kind, "field")
    except (OSError, UnicodeError, InputError) as error:
        raise InputError(f"'{path}' does not describe a CLIP ({error}): get it with the weights") from error
