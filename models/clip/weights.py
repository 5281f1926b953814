"""Reader of a CLIP's weights in every file format in which they are published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.models.checkpoints.tensorfile import check_values, read_tensors
from edgekit.models.checkpoints.torch_file import is_dense, load_tensors
from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.options import Activation
from edgekit.models.clip.torchscript import is_torchscript, read_torchscript
from edgekit.typed_json import convert, parse_json

METADATA_KEY = "edgekit-clip"
SCHEMA_MAJOR = 1
SCHEMA_VERSION = f"{SCHEMA_MAJOR}.0"
# Tensors that are not weights: numbers in OpenAI's files, and a mask that the model creates itself.
_NO_WEIGHTS = {"input_resolution", "context_length", "vocab_size", "attn_mask"}
_OPENAI_ONLY = "input_resolution"


@dataclass(frozen=True)
class ClipFile:
    """Weights in float32 with OpenAI's names; `config` is None for files that do not state their architecture.

    `texts` have every word that the CLIP was trained on. `labels` are the classes of its training images, and
    `left_out` the classes of the data that it was trained without. All are empty for files that do not state them.
    """

    state: Mapping[str, Tensor]
    activation: Activation
    config: ClipConfig | None = None
    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Training:
    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Document:
    """Header of a safetensors file of a CLIP that edgekit saved."""

    schema: str
    config: ClipConfig
    training: _Training = _Training()


def read_clip_file(path: Path) -> ClipFile:
    """Return the weights in OpenAI's TorchScript archive, a state dict (also in a training checkpoint) or safetensors.

    No code in the file is executed. The activation of OpenAI's files is QuickGELU. The activation of other files is
    read from `open_clip_config.json` in the same folder; without that file it is GELU.

    Raises:
        InputError: The file is damaged or has another format.
    """
    require_file(path, "CLIP file")
    if is_torchscript(path):
        return ClipFile(_cleaned(read_torchscript(path), path), "quick-gelu")
    if _looks_like_safetensors(path):
        return _read_safetensors(path)
    document = load_tensors(path)
    state = document.get("state_dict", document)
    if not isinstance(state, dict) or not state:
        raise InputError(f"'{path}' contains no state dict: give a CLIP's weights")
    openai = any(str(name).rpartition(".")[2] == _OPENAI_ONLY for name in state)
    return ClipFile(_cleaned(state, path), "quick-gelu" if openai else _activation_beside(path))


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 of names and float32 values, which is equal for equal weights in files of any format."""
    digest = sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_schema(document: object, major: int) -> None:
    """Check that a document is a JSON object with the given major version of the schema.

    Raises:
        InputError: The document is not an object, or has another major version.
    """
    version = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(version, str) or version.partition(".")[0] != str(major):
        raise InputError(f"its schema is {version!r}, this edgekit reads {major}.x: update edgekit")


def _looks_like_safetensors(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(9)[8:] == b"{" or path.suffix == ".safetensors"


def _read_safetensors(path: Path) -> ClipFile:
    try:
        tensors, metadata = read_tensors(path)
    except InputError as error:
        raise InputError(
            f"CLIP file '{path}' is not a complete safetensors file ({error}): download it again"
        ) from error
    state = _cleaned(tensors, path)
    if METADATA_KEY not in metadata:
        return ClipFile(state, _activation_beside(path))
    try:
        document = parse_json(metadata[METADATA_KEY], "it")
        check_schema(document, SCHEMA_MAJOR)
        header = convert(document, _Document, "field")
    except InputError as error:
        raise InputError(f"CLIP file '{path}' has no valid metadata: {error}") from error
    config, training = header.config, header.training
    return ClipFile(state, config.activation, config, training.texts, training.labels, training.left_out)


def _cleaned(state: Mapping[str, object], path: Path) -> dict[str, Tensor]:
    """Return the weights with OpenAI's names: without the prefixes of wrappers and of open_clip's text tower."""
    cleaned: dict[str, Tensor] = {}
    for name, value in state.items():
        short = str(name).removeprefix("module.").removeprefix("text.")
        if short.rpartition(".")[2] in _NO_WEIGHTS:
            continue
        if not isinstance(value, Tensor) or not is_dense(value):
            kind = type(value).__name__
            raise InputError(f"CLIP file '{path}' contains a {kind} under '{name}': expected dense tensors")
        # An expanded view has few bytes in the file, but a copy of it could fill the memory.
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise InputError(f"CLIP file '{path}' contains fewer values of tensor '{name}' than its shape has")
        cleaned[short] = value
    check_values(cleaned, f"CLIP file '{path}'", "download it again")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in cleaned.items()}


def _activation_beside(path: Path) -> Activation:
    document = path.with_name("open_clip_config.json")
    try:
        model = json.loads(document.read_text())["model_cfg"]
        return "quick-gelu" if model.get("quick_gelu") else "gelu"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "gelu"
