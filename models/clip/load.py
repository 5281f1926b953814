"""Load, create and save CLIPs.

clip = load_clip("ViT-B-16/openai")
features = clip.encode_text(clip.tokenize(["a photo of a happy face."]))  # (1, 512)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.downloads import UnavailableError, is_offline
from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.checkpoints.tensorfile import write_tensors
from edgekit.models.clip.architecture import (
    ClipConfig,
    build_model,
    config_from_open_clip,
    config_from_weights,
    require_shapes,
)
from edgekit.models.clip.frozen import FrozenClip
from edgekit.models.clip.options import Activation
from edgekit.models.clip.weights import METADATA_KEY, SCHEMA_VERSION, read_clip_file
from edgekit.models.model_loading import load_weights

_FILE_SUFFIXES = {".pt", ".pth", ".bin", ".safetensors"}


def load_clip(source: str | Path, activation: Activation | None = None) -> FrozenClip:
    """Return a frozen CLIP.

    Args:
        source: A file (OpenAI's TorchScript archive, open_clip's state dict, safetensors), the folder of a training, or
            open_clip's names as MODEL/WEIGHTS, such as `ViT-B-16-quickgelu/openai`, which open_clip downloads into its
            cache.
        activation: The CLIP's activation function; default: as described in `read_clip_file`.

    Raises:
        InputError: The file is damaged or not a CLIP with a plain ViT, or open_clip has no such name.
        UnavailableError: The download failed, or EDGEKIT_OFFLINE forbids it.
    """
    path = Path(source)
    if path.is_dir():
        path = resolve_model(str(path), (CHECKPOINT_SUFFIX,))
    if path.exists() or path.suffix.lower() in _FILE_SUFFIXES:
        return _load_file(path, None, activation)
    config, path = _download(str(source), activation)
    return _load_file(path, config, activation, str(source))


def random_clip(config: ClipConfig, seed: int = 0) -> FrozenClip:
    """Return a frozen CLIP with open_clip's initial weights, drawn with `seed`."""
    return FrozenClip(seeded_model(config, seed), config, f"random:{seed}")


def seeded_model(config: ClipConfig, seed: int) -> nn.Module:
    """Return open_clip's model with trainable initial weights, drawn with `seed`.

    The state of torch's global random generator is left unchanged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(config)


def save_clip(path: Path, model: nn.Module, config: ClipConfig, training: Mapping[str, Any] | None = None) -> None:
    """Write a CLIP to a safetensors file for `load_clip`; the file contains the architecture.

    Args:
        path: The file.
        model: open_clip's model.
        config: Its architecture.
        training: Record of its training.

    Raises:
        StorageError: The file cannot be written.
    """
    document = {"schema": SCHEMA_VERSION, "config": asdict(config), "training": dict(training or {})}
    write_tensors(path, model.state_dict(), METADATA_KEY, document)


def _load_file(
    path: Path, named: ClipConfig | None, activation: Activation | None, source: str | None = None
) -> FrozenClip:
    file = read_clip_file(path)
    try:
        config = named or file.config or config_from_weights(file.state, activation or file.activation)
        if activation and config.activation != activation:
            raise InputError(f"its activation is {config.activation}, not {activation}: leave activation out")
        require_shapes(config, file.state)
        model = seeded_model(config, 0)
        load_weights(model, file.state, "CLIP")
    except InputError as error:
        raise InputError(f"CLIP file '{path}': {error}") from error
    return FrozenClip(model, config, source or path.name, sha256_of(path), file.texts, file.labels)


def _download(source: str, activation: Activation | None) -> tuple[ClipConfig, Path]:
    import open_clip
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

    name, _, tag = source.partition("/")
    document: dict[str, Any] | None = open_clip.get_model_config(name)
    if document is None:
        raise InputError(f"CLIP '{source}' is neither a file nor an open_clip name, such as ViT-B-16/openai")
    tags = list_pretrained_tags_by_model(name)
    entry = get_pretrained_cfg(name, tag)
    if not entry:
        raise InputError(f"open_clip has no weights '{tag}' of {name}: give {name}/ and one of {', '.join(tags)}")
    if entry.get("quick_gelu") and activation is None:
        activation = "quick-gelu"
    config = config_from_open_clip(document, activation)
    config = replace(config, image_mean=tuple(entry["mean"]), image_std=tuple(entry["std"]))
    # Hides one warning per retry; the error below reports the failure.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        if is_offline():
            raise ConnectionError("EDGEKIT_OFFLINE")
        return config, Path(download_pretrained(entry))
    except Exception as error:  # the network, the hub's client and the disk can raise almost every type
        places = [entry[key] for key in ("hf_hub", "url") if entry.get(key)]
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UnavailableError(
            f"the weights of '{source}' cannot be downloaded ({reason}): get the file on a machine with a network, "
            f"from {' or '.join(places) or 'their publisher'}, and give its path instead of the name"
        ) from error
