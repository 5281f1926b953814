"""Files written by `torch.save`, read without executing code from them."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from edgekit.errors import InputError
from edgekit.files import require_file


def load_tensors(path: Path) -> dict[str, Any]:
    """Return the dictionary in a torch file; only tensors and plain values are accepted.

    Raises:
        InputError: The file is missing, damaged, compressed, not a dictionary, or contains code.
    """
    require_file(path, "checkpoint")
    _refuse_compressed(path)
    try:
        with warnings.catch_warnings():
            # torch warns developers about pickle protocols.
            warnings.simplefilter("ignore", UserWarning)
            document = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, LookupError, TypeError) as error:
        raise InputError(
            f"'{path}' is not a plain file of tensors: it is damaged or contains code, which edgekit does not execute"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError, struct.error) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"'{path}' cannot be read as a torch checkpoint: {reason}") from error
    if not isinstance(document, dict):
        raise InputError(f"'{path}' contains a {type(document).__name__}: expected a dictionary of tensors")
    return document


def is_dense(value: object) -> bool:
    """Return whether `value` is a tensor that stores its values: not sparse, quantised, or without data."""
    return (
        isinstance(value, torch.Tensor) and value.layout == torch.strided and not (value.is_quantized or value.is_meta)
    )


def _refuse_compressed(path: Path) -> None:
    """Raise InputError for an archive with compressed files: torch writes none, and they could fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [member.filename for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(f"'{path}' is a damaged torch checkpoint: {error}") from error
    if packed:
        raise InputError(f"'{path}' is not a torch checkpoint: its member '{packed[0]}' is compressed")
