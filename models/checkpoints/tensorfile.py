"""Safetensors files: named tensors, and one JSON document in the header that describes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgekit.errors import InputError
from edgekit.files import write_atomic


def write_tensors(path: Path, state: Mapping[str, Tensor], key: str, document: Mapping[str, Any]) -> None:
    """Write a state dict atomically, with `document` under `key` in the header; equal content gives equal bytes.

    Raises:
        StorageError: The file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}
    # One header entry only, because safetensors writes several in random order.
    write_atomic(path, save(tensors, metadata={key: json.dumps(document, sort_keys=True)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors, and the text entries of the header.

    Raises:
        InputError: The file is not a complete safetensors file; the message has the reason, but not the path.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - not a dict


def read_header(path: Path) -> dict[str, str]:
    """Return the text entries of the header without reading the tensors.

    Raises:
        InputError: As for `read_tensors`.
    """
    with _opened(path) as file:
        return file.metadata() or {}


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Return a checksum over the names and values of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(save({"": tensor.detach().cpu().contiguous()}))
    return digest.hexdigest()


def check_values(state: Mapping[str, Tensor], subject: str, cure: str) -> None:
    """Check that tensors contain finite numbers.

    Args:
        state: The tensors.
        subject: Their file, in messages, such as "checkpoint 'a.safetensors'".
        cure: What to do with another file, in messages.

    Raises:
        InputError: A tensor contains NaN or infinity, or has a type that torch only stores, such as F4 of safetensors.
    """
    for name, tensor in state.items():
        try:
            finite = torch.isfinite(tensor.float() if tensor.is_floating_point() else tensor)
        except NotImplementedError as error:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(f"{subject} has {kind} values in tensor '{name}': save it as float32") from error
        if not finite.all():
            raise InputError(f"{subject} contains NaN or infinity in tensor '{name}': {cure}")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb"):  # safetensors reports every reason as a missing file
            pass
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(str(error)) from error
