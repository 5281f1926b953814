"""Reader of the tensors in a TorchScript archive (the format of OpenAI's CLIP files); it executes no code of the file.

An archive is a zip of uncompressed storages, a pickle that maps tensors to storages, and source code. `torch.jit.load`
compiles the code; this reader reads the pickle only, with an unpickler that creates only tensors and empty objects.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit.errors import InputError

_DTYPES = {
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}
_MAX_DEPTH = 50


def is_torchscript(path: Path) -> bool:
    """Return whether the file is a TorchScript archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a TorchScript archive by their dotted names.

    Raises:
        InputError: The archive is damaged, or its pickle refers to anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].partition("/")[0]
            content = _stored(archive, f"{root}/data.pkl")
            module = _TensorUnpickler(io.BytesIO(content), archive, root).load()
            return dict(_tensors(module, "", 0))
    except Exception as error:  # a damaged zip or pickle can raise almost every type
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"'{path}' is a damaged TorchScript archive ({reason}): download it again") from error


class _Module:
    """Stand-in for a module in the archive; its attributes are those that the pickle sets."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("the state of an object in its pickle is not a dictionary")
        self.__dict__.update(state)


class _TensorUnpickler(pickle.Unpickler):
    def __init__(self, stream: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(stream)
        self._archive = archive
        self._root = root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch.jit._pickle":
            return _first
        raise pickle.UnpicklingError(f"its pickle refers to {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _device, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError("a storage has an unknown description")
        if key not in self._storages:
            content = bytearray(_stored(self._archive, f"{self._root}/data/{key}"))
            if len(content) != count * dtype.itemsize:
                raise pickle.UnpicklingError(
                    f"storage {key} has {len(content)} bytes instead of {count * dtype.itemsize}"
                )
            self._storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return the bytes of an uncompressed file in the archive.

    A compressed file is refused: torch writes none, and it could expand to any size.
    """
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError(f"its member '{name}' is compressed")
    return archive.read(name)


def _view(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    # torch checks the bounds, but with a stride of 0 a few bytes would expand to any number of values.
    if not isinstance(storage, Tensor) or math.prod(size) > len(storage):
        raise pickle.UnpicklingError("a tensor is larger than its storage")
    return storage.as_strided(size, stride, offset)


def _first(value: object = None, *_: object) -> object:
    """Return the first argument.

    The unpickler calls it instead of torch.jit's helpers for lists and typed values, which contain no weights.
    """
    return value


def _tensors(value: object, name: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > _MAX_DEPTH:
        raise pickle.UnpicklingError(f"its modules are nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, _Module):
        for key, inner in vars(value).items():
            yield from _tensors(inner, f"{name}.{key}" if name else key, depth + 1)
