"""Files of named tensors: safetensors with one JSON document in the header, torch's files and TorchScript archives.

No code in a file is executed. A TorchScript archive (the format of OpenAI's CLIP files) is a zip of uncompressed
storages, a pickle that maps tensors to storages, and source code. `torch.jit.load` compiles the code; the reader here
reads the pickle only, with an unpickler that creates only tensors and empty objects.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgekit.errors import InputError
from edgekit.files import require_file, write_atomic

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


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 of names and float32 values, which is equal for equal weights in files of any format."""
    digest = hashlib.sha256()
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
    """Open a safetensors file; its errors are raised as `InputError`."""
    try:
        with path.open("rb"):  # raises with the reason; safetensors would report every unreadable file as missing
            pass
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(str(error)) from error


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


def is_torchscript(path: Path) -> bool:
    """Return whether the file is a TorchScript archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            # Files of `torch.save` are zip files, too, but without this member.
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
            root = archive.namelist()[0].partition("/")[0]  # the folder that contains all members
            content = _stored(archive, f"{root}/data.pkl")
            module = _TensorUnpickler(io.BytesIO(content), archive, root).load()
            return dict(_tensors(module, name="", depth=0))
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
    """Unpickler of the modules in a TorchScript archive; it creates `_Module`s, tensors and plain values only."""

    def __init__(self, stream: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(stream)
        self._archive = archive
        self._root = root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands in for a class or function that the pickle refers to; pickle calls this.

        So no code that the file chooses is executed.
        """
        if module.split(".")[0] == "__torch__":  # a class of the archive
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view  # a tensor of a storage
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch.jit._pickle":
            return _first  # a list or a typed value
        raise pickle.UnpicklingError(f"its pickle refers to {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        """Return the values of a storage, (count,), that the pickle refers to; pickle calls this."""
        kind, dtype, key, _device, count = pid  # as torch.save writes them; the number of values comes last
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
    """Return a tensor of values of a storage, in place of `torch._utils._rebuild_tensor_v2`."""
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
    """Yield dotted name and values of each tensor in a module and its submodules; `name` is that of `value` itself.

    The unpickler has set the tensors and submodules of a TorchScript module as attributes of a `_Module`.
    """
    if depth > _MAX_DEPTH:
        raise pickle.UnpicklingError(f"its modules are nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, _Module):
        for key, inner in vars(value).items():
            yield from _tensors(inner, f"{name}.{key}" if name else key, depth + 1)
