"""State of a training at the end of an epoch (`last.pt`), from which `--resume` continues bit for bit."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import torch
from torch import Tensor

from edgekit.errors import InputError
from edgekit.files import require_file, write_atomic
from edgekit.models.checkpoints.torch_file import load_tensors


@dataclass(frozen=True)
class TrainingState:
    """Weights, averaged weights, optimiser state and epoch reports; `fingerprint` identifies the training.

    `precision` is the state of fp16's loss scale, and empty for other precisions.
    """

    fingerprint: Mapping[str, Any]
    net: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    steps_taken: int
    history: list[dict[str, Any]]
    precision: dict[str, Any] = field(default_factory=dict)


def save_state(path: Path, state: TrainingState) -> None:
    """Write the state atomically.

    Raises:
        StorageError: The disk is full or read-only.
    """
    # To memory first, because torch reports a full disk as an unspecific RuntimeError.
    buffer = io.BytesIO()
    torch.save({each.name: getattr(state, each.name) for each in fields(state)}, buffer)
    write_atomic(path, buffer.getvalue())


def load_state(path: Path, fingerprint: Mapping[str, Any]) -> TrainingState:
    """Read a state and check that its fingerprint equals `fingerprint`.

    Raises:
        InputError: The file is damaged, or the settings differ; the message names the first difference.
    """
    require_file(path, "training state")
    try:
        state = TrainingState(**_fields(path))
        _check_types(state)
    except TypeError as error:
        raise damage(path) from error
    if difference := _first_difference("", state.fingerprint, fingerprint):
        raise InputError(f"cannot resume '{path}': {difference}: use the same settings or another -o")
    return state


def state_fingerprint(path: Path) -> Mapping[str, Any]:
    """Return the fingerprint in a state.

    Raises:
        InputError: The file is damaged.
    """
    fingerprint = _fields(path).get("fingerprint")
    return fingerprint if isinstance(fingerprint, dict) else {}


def _check_types(state: TrainingState) -> None:
    for name, kind in get_type_hints(TrainingState).items():
        if not isinstance(getattr(state, name), get_origin(kind) or kind):
            raise TypeError(f"{name} is not of the type {kind}")
    if not state.history or state.steps_taken < len(state.history):
        raise TypeError("no finished epoch")


def _first_difference(name: str, before: object, now: object) -> str | None:
    if isinstance(now, Mapping) and (isinstance(before, Mapping) or not name):
        before = before if isinstance(before, Mapping) else {}
        for key in sorted(before.keys() | now.keys()):
            inner = f"{name}.{key}" if name else key
            if difference := _first_difference(inner, before.get(key), now.get(key)):
                return difference
        return None
    # A setting that is missing from the state of an earlier version was off.
    is_equal = before == now or (before is None and not now)
    return None if is_equal else f"its {name} was {before!r}, now it is {now!r}"


def _fields(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            # torch does not compare the checksums of the archive's members.
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, zlib.error, struct.error) as error:
        raise damage(path) from error
    if damaged:
        raise damage(path)
    try:
        return load_tensors(path)
    except InputError as error:
        raise damage(path) from error


def damage(path: Path) -> InputError:
    """Return the error for a damaged state."""
    return InputError(
        f"training state '{path}' is damaged or of another version of edgekit: start again with another -o"
    )
