"""A classifier for ncnn in one file: a zip archive, nothing compressed, of a contract, a graph and weights.

`contract.json` is the contract of every model file, `graph.param` and `weights.bin` are what ncnn reads; `unzip` gives
them back. The same three give the same bytes. Weights are float32.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edgekit.contract import Contract, channel_count
from edgekit.device.engines.ncnn_graph import INPUT, OUTPUT, Layer, read_graph
from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.text import one_line

_CONTRACT, _GRAPH, _WEIGHTS = MEMBERS = ("contract.json", "graph.param", "weights.bin")
_MAX_BYTES = {_CONTRACT: 4 << 20, _GRAPH: 4 << 20, _WEIGHTS: 1 << 30}
_DATE = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16
_FLOAT_BYTES = 4
# What zipfile raises for archives that are none: RuntimeError where one wants a password, NotImplementedError where a
# part is compressed in a way that zipfile has no code for.
_DAMAGES = (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError, struct.error)
# Stands before the weights of a convolution that are plain float32.
_PLAIN_MARK = b"\0\0\0\0"


@dataclass(frozen=True)
class NcnnFile:
    """What a file holds, checked: the graph fits the contract and the weights the graph."""

    contract: Contract
    graph: str
    weights: bytes
    layers: tuple[Layer, ...]

    @property
    def structure_sha256(self) -> str:
        """Hash of all but contract and weights: the same for one net with other weights."""
        return hashlib.sha256(self.graph.encode()).hexdigest()


def pack_ncnn(contract: Contract, graph: str, weights: bytes) -> bytes:
    """Return the file of a contract, a graph and its weights.

    Raises:
        InputError: They do not fit together.
    """
    _checked(contract, graph, weights)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in zip(MEMBERS, (contract.to_json().encode(), graph.encode(), weights), strict=True):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system, entry.external_attr = 3, _MODE
            archive.writestr(entry, content)
    return buffer.getvalue()


def read_ncnn(path: Path) -> NcnnFile:
    """Return what is in a file; no more is read than the file is long.

    Raises:
        InputError: It is missing, damaged, or none of ours.
    """
    require_file(path, "model")
    try:
        contract, graph, weights = _members(path)
        document = Contract.from_json(contract.decode())
        text = graph.decode("ascii")
        return NcnnFile(document, text, weights, _checked(document, text, weights))
    except InputError as error:
        raise InputError(f"model '{path}': {one_line(str(error))}") from error
    except _DAMAGES as error:
        reason = one_line(str(error) or type(error).__name__)
        raise InputError(f"model '{path}' is damaged, or no ncnn file of 'edgekit export' ({reason})") from error


def _members(path: Path) -> tuple[bytes, bytes, bytes]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if names != list(MEMBERS):
            raise InputError(
                f"it holds {', '.join(names[:5]) or 'nothing'}: expected {', '.join(MEMBERS)}: make it with "
                "'edgekit export --engine ncnn'"
            )
        size = path.stat().st_size
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise InputError(f"its '{entry.filename}' is compressed: expected it as it is")
            if entry.file_size > min(size, _MAX_BYTES[entry.filename]):
                raise InputError(f"its '{entry.filename}' claims {entry.file_size} bytes, too many for {size} in all")
        contract, graph, weights = (archive.read(entry) for entry in entries)
    return contract, graph, weights


def _checked(contract: Contract, graph: str, weights: bytes) -> tuple[Layer, ...]:
    spec = contract.input
    names = (spec.name, contract.output.name)
    if names != (INPUT, OUTPUT):
        raise InputError(f"its contract names the tensors '{names[0]}' and '{names[1]}', ncnn '{INPUT}' and '{OUTPUT}'")
    if spec.element_type != "float32" or contract.precision != "float32":
        raise InputError(
            f"its contract says {spec.element_type} pixels and {contract.precision} weights: ncnn's are float32"
        )
    layers = read_graph(graph, (channel_count(spec.channels), *spec.size_hw))
    if layers[-1].shape != (len(contract.labels),) or OUTPUT not in layers[-1].outputs:
        ending = f"its graph ends with {list(layers[-1].shape)}"
        raise InputError(f"{ending}, its contract has {len(contract.labels)} labels")
    position = 0
    for layer in layers:
        if not layer.weights:
            continue
        if weights[position : position + len(_PLAIN_MARK)] != _PLAIN_MARK:
            raise InputError(f"the weights of its layer '{layer.name}' are missing or not float32")
        position += len(_PLAIN_MARK) + _FLOAT_BYTES * layer.parameters
    if position != len(weights):
        raise InputError(f"it has {len(weights)} bytes of weights, its graph asks for {position}")
    return layers
