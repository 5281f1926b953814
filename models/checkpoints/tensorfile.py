"""Safetensors files: named tensors, and one JSON document in the header that describes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(str(error)) from error
