"""OpenAI's CLIP files are TorchScript archives. Their tensors are read here without running anything of them.

Such an archive is a zip of plain storages, a pickle that says which tensor lies where, and the program's text.
torch.jit.load would compile the program and run what it says of unpickling; this reader looks only at the pickle, with
an unpickler that knows tensors and turns everything else into empty holders.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
import zlib
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
# Whatever a damaged pickle or zip may cause; code of the archive never runs, so no other error can be its doing.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    OverflowError,
    MemoryError,
    struct.error,
    OSError,
)


def is_torchscript(path: Path) -> bool:
    """Return whether the file is a zip with a TorchScript program in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a TorchScript archive by their dotted names.

    Raises:
        InputError: The archive is damaged or asks for something no tensor needs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].partition("/")[0]
            listing = _stored(archive, f"{root}/data.pkl")
            module = _TensorsOnly(io.BytesIO(listing), archive, root).load()
            return dict(_tensors(module, "", 0))
    except _DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"'{path}' is a damaged TorchScript archive ({reason}): download it again") from error


class _Holder:
    """Stands for any object of the program: keeps what the pickle gives it."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("an object's state is no dictionary")
        self.__dict__.update(state)


class _TensorsOnly(pickle.Unpickler):
    def __init__(self, stream: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(stream)
        self._archive = archive
        self._root = root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Holder
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch.jit._pickle":
            return _first
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _device, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError("a storage is described in an unknown way")
        if key not in self._storages:
            content = bytearray(_stored(self._archive, f"{self._root}/data/{key}"))
            if len(content) != count * dtype.itemsize:
                raise pickle.UnpicklingError(f"storage {key} has {len(content)} bytes")
            self._storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member; torch packs none that hold tensors, and a packed one might fill the memory."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError(f"its member '{name}' is compressed")
    return archive.read(name)


def _view(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    # torch checks the bounds; a step of zero would let a few bytes stand for any number of values.
    if not isinstance(storage, Tensor) or math.prod(size) > len(storage):
        raise pickle.UnpicklingError("a tensor is larger than its storage")
    return storage.as_strided(size, stride, offset)


def _first(value: object = None, *_: object) -> object:
    """Lists of numbers and values with a type tag: nothing a weight depends on."""
    return value


def _tensors(value: object, name: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > _MAX_DEPTH:
        raise pickle.UnpicklingError("its modules are nested without end")
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, _Holder):
        for key, inner in vars(value).items():
            yield from _tensors(inner, f"{name}.{key}" if name else key, depth + 1)
