"""A CLIP's weights from a file of any of the forms they are published in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.models.checkpoints.tensorfile import read_tensors
from edgekit.models.checkpoints.torch_file import load_tensors
from edgekit.models.clip.architecture import Activation, ClipConfig
from edgekit.models.clip.documents import from_document
from edgekit.models.clip.torchscript import is_torchscript, read_torchscript

METADATA_KEY = "edgekit-clip"
SCHEMA_MAJOR = 1
SCHEMA_VERSION = f"{SCHEMA_MAJOR}.0"
# Numbers that OpenAI's files carry beside the weights, and masks that are made anew.
_NO_WEIGHTS = {"input_resolution", "context_length", "vocab_size", "attn_mask"}
_OPENAI_MARK = "input_resolution"


@dataclass(frozen=True)
class ClipFile:
    """Weights in float32 under OpenAI's names; `config` only if the file says its architecture itself."""

    state: Mapping[str, Tensor]
    activation: Activation
    config: ClipConfig | None = None


def read_clip_file(path: Path) -> ClipFile:
    """Read OpenAI's TorchScript archive, a state dict (alone or in a training's checkpoint) or safetensors.

    Nothing in the file is run. OpenAI's files mean QuickGELU; of others, an `open_clip_config.json` beside the file
    says which activation they were trained with, and without one it is taken to be GELU.

    Raises:
        InputError: The file is damaged or of another form.
    """
    require_file(path, "CLIP file")
    if is_torchscript(path):
        return ClipFile(_cleaned(read_torchscript(path), path), "quick-gelu")
    if _looks_like_safetensors(path):
        return _read_safetensors(path)
    document = load_tensors(path)
    state = document.get("state_dict", document)
    if not isinstance(state, dict) or not state:
        raise InputError(f"'{path}' holds no state dict: give a CLIP's weights")
    openai = any(str(name).rpartition(".")[2] == _OPENAI_MARK for name in state)
    return ClipFile(_cleaned(state, path), "quick-gelu" if openai else _activation_beside(path))


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 over names and float32 values: equal for equal weights in files of any form."""
    digest = sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _looks_like_safetensors(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(9)[8:] == b"{" or path.suffix == ".safetensors"


def _read_safetensors(path: Path) -> ClipFile:
    try:
        tensors, metadata = read_tensors(path)
    except InputError as error:
        raise InputError(f"CLIP file '{path}' is no whole safetensors file ({error}): download it again") from error
    state = _cleaned(tensors, path)
    if METADATA_KEY not in metadata:
        return ClipFile(state, _activation_beside(path))
    try:
        document = json.loads(metadata[METADATA_KEY])
        check_schema(document, SCHEMA_MAJOR)
        config = from_document(ClipConfig, document.get("config"), "config")
    except (InputError, ValueError, RecursionError) as error:
        raise InputError(f"CLIP file '{path}' does not say its architecture rightly: {error}") from error
    return ClipFile(state, config.activation, config)


def check_schema(document: object, major: int) -> None:
    """Raise an InputError unless the document is an object of that major version."""
    version = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(version, str) or version.partition(".")[0] != str(major):
        raise InputError(f"its schema is {version!r}, this edgekit reads {major}.x: update edgekit")


def _cleaned(state: Mapping[str, object], path: Path) -> dict[str, Tensor]:
    """Return OpenAI's names: without a wrapper's prefix, the text tower's tensors at the top."""
    cleaned = {}
    for name, value in state.items():
        short = str(name).removeprefix("module.").removeprefix("text.")
        if short.rpartition(".")[2] in _NO_WEIGHTS:
            continue
        if not isinstance(value, Tensor):
            raise InputError(f"CLIP file '{path}' holds a {type(value).__name__} under '{name}': expected tensors")
        # A view that repeats itself: a few bytes that would fill any memory.
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise InputError(f"CLIP file '{path}' stores less of tensor '{name}' than its shape says")
        cleaned[short] = value.float() if value.is_floating_point() else value
    if not all(bool(torch.isfinite(tensor).all()) for tensor in cleaned.values()):
        raise InputError(f"CLIP file '{path}' has weights that are no numbers: download it again")
    return cleaned


def _activation_beside(path: Path) -> Activation:
    document = path.with_name("open_clip_config.json")
    try:
        model = json.loads(document.read_text())["model_cfg"]
        return "quick-gelu" if model.get("quick_gelu") else "gelu"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "gelu"
