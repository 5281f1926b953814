"""The .ncnn file format: an uncompressed zip archive of contract, graph and weights of a classifier.

`contract.json` is the contract of every model file; `graph.param` and `weights.bin` are ncnn's own files. The same
contents always result in the same bytes. Weights are float32, also if the contract's precision is float16.
"""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edgekit.contract import Contract
from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.text import one_line

# Names of the tensors, as pnnx gives them.
INPUT, OUTPUT = "in0", "out0"

_MAGIC = "7767517"
MEMBERS = ("contract.json", "graph.param", "weights.bin")
_DATE = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16
# Exceptions of zipfile for damaged archives: RuntimeError for an encrypted member, NotImplementedError for an unknown
# compression.
_DAMAGES = (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError, struct.error)


@dataclass(frozen=True)
class NcnnFile:
    """The content of a .ncnn file; whether graph and weights fit together is checked by ncnn when it loads them."""

    contract: Contract
    graph: str
    weights: bytes

    def layers(self) -> list[tuple[str, str]]:
        """Return the name and the kind of each layer."""
        rows = [line.split() for line in self.graph.splitlines()[2:]]
        return [(row[1], row[0]) for row in rows if len(row) > 1]


def pack_ncnn(contract: Contract, graph: str, weights: bytes) -> bytes:
    """Return the file of a contract, a graph and its weights.

    Raises:
        InputError: The contract does not describe a net for ncnn, or the graph is not a .param file.
    """
    _check(contract, graph)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in zip(MEMBERS, (contract.to_json().encode(), graph.encode(), weights), strict=True):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system, entry.external_attr = 3, _MODE
            archive.writestr(entry, content)
    return buffer.getvalue()


def read_ncnn(path: Path) -> NcnnFile:
    """Return the content of a file.

    Raises:
        InputError: The file is missing, damaged, or not a .ncnn file.
    """
    require_file(path, "model")
    try:
        contract, graph, weights = _members(path)
        document = Contract.from_json(contract.decode())
        text = graph.decode("ascii")
        _check(document, text)
        return NcnnFile(document, text, weights)
    except InputError as error:
        raise InputError(f"model '{path}': {one_line(str(error))}") from error
    except _DAMAGES as error:
        reason = one_line(str(error) or type(error).__name__)
        raise InputError(f"model '{path}' is damaged, or not a .ncnn file of 'edgekit export' ({reason})") from error


def _members(path: Path) -> tuple[bytes, bytes, bytes]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if names != list(MEMBERS):
            found = ", ".join(name[:40] for name in names[:5]) or "nothing"
            raise InputError(
                f"it holds {found}: expected {', '.join(MEMBERS)}: make it with 'edgekit export --engine ncnn'"
            )
        contract, graph, weights = (archive.read(entry) for entry in entries)
    return contract, graph, weights


def _check(contract: Contract, graph: str) -> None:
    """Check the contract's tensor names and types, and the beginning of the graph."""
    spec = contract.input
    names = (spec.name, contract.output.name)
    if names != (INPUT, OUTPUT):
        raise InputError(f"its contract names the tensors '{names[0]}' and '{names[1]}', ncnn '{INPUT}' and '{OUTPUT}'")
    if spec.element_type != "float32" or contract.precision == "int8":
        raise InputError(
            f"its contract has {spec.element_type} pixels and precision {contract.precision}: ncnn needs float32 "
            "pixels and precision float32 or float16"
        )
    if not graph.startswith(f"{_MAGIC}\n"):
        raise InputError("its graph is not a .param file of ncnn")
