"""What an interrupted training needs to go on, in one file that is loaded without running code from it."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit.errors import InputError
from edgekit.files import require_file, write_atomic


@dataclass(frozen=True)
class TrainingState:
    """A training at the end of an epoch; `fingerprint` says which training it is."""

    fingerprint: Mapping[str, Any]
    net: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    steps_taken: int
    history: list[dict[str, Any]]


def save_state(path: Path, state: TrainingState) -> None:
    """Write the state atomically.

    Raises:
        StorageError: The disk is full or read-only.
    """
    # In memory first: torch reports a full disk as an error of its own kind.
    buffer = io.BytesIO()
    torch.save({field.name: getattr(state, field.name) for field in fields(state)}, buffer)
    write_atomic(path, buffer.getvalue())


def load_state(path: Path, fingerprint: Mapping[str, Any]) -> TrainingState:
    """Read a state and check that it is of the training `fingerprint` describes.

    Raises:
        InputError: The file is damaged, or the training is another; the first difference is named.
    """
    require_file(path, "training state")
    _refuse_changed(path)
    document = load_tensors(path)
    try:
        state = TrainingState(**document)
        _check_types(state)
    except TypeError as error:
        raise InputError(f"training state '{path}' is damaged or of another edgekit: start anew with another -o") from (
            error
        )
    if difference := _first_difference("", state.fingerprint, fingerprint):
        raise InputError(f"cannot resume '{path}': its {difference}: give the same settings or another -o")
    return state


def _check_types(state: TrainingState) -> None:
    expected = {
        "fingerprint": dict,
        "net": dict,
        "average": dict,
        "optimizer": dict,
        "steps_taken": int,
        "history": list,
    }
    for name, kind in expected.items():
        if not isinstance(getattr(state, name), kind):
            raise TypeError(f"{name} is no {kind.__name__}")
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
    return None if before == now else f"{name} was {before!r}, now it is {now!r}"


def _refuse_changed(path: Path) -> None:
    """Refuse an archive whose members are not what was written: torch leaves their checksums unread."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, zlib.error):
        # What is no archive at all, or has a part compressed in a way that zipfile has no code for (it raises
        # NotImplementedError then), `load_tensors` refuses.
        return
    if damaged:
        raise InputError(f"training state '{path}' is damaged: start anew with another -o")


def _refuse_compressed(path: Path) -> None:
    """Refuse an archive whose members are packed: torch writes none, and unpacked they may fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [member.filename for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(f"'{path}' is a damaged torch checkpoint: {error}") from error
    if packed:
        raise InputError(f"'{path}' is no torch checkpoint: its member '{packed[0]}' is compressed")


def load_tensors(path: Path) -> dict[str, Any]:
    """Return a file of torch.save's, refusing everything but tensors and plain values.

    Raises:
        InputError: The file is damaged, no such file, or asks for code to be run.
    """
    require_file(path, "checkpoint")
    _refuse_compressed(path)
    try:
        with warnings.catch_warnings():
            # Hints to developers about pickle protocols; the user gets one line below.
            warnings.simplefilter("ignore", UserWarning)
            document = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, LookupError, TypeError) as error:
        raise InputError(
            f"'{path}' is not a plain file of tensors (it is damaged or asks to run code, which edgekit refuses)"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError, struct.error) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"'{path}' cannot be read as a torch checkpoint: {reason}") from error
    if not isinstance(document, dict):
        raise InputError(f"'{path}' holds a {type(document).__name__}, not a dictionary of tensors")
    return document
