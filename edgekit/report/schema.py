"""Reads benchmark documents safely, and generates their JSON Schema.

A document may come from a board or from another person. `parse_document` bounds its size and depth, checks its types
and ranges (see `edgekit.report.document`), and removes characters that could move a terminal's cursor or reverse text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.report.document import MAX_BOARDS, MAX_NAME_CHARS, OLD_KINDS, SCHEMA, BenchmarkReport, BoardResult
from edgekit.text import printable
from edgekit.typed_json import convert, parse_json

MAX_BYTES = 64 << 20

_READABLE = "edgekit.bench/2."
_MAX_DEPTH = 20
_SHOWN_CHARS = 60
# The clock's resolution is coarser; ratios and logarithms of smaller medians could overflow.
_MIN_MEDIAN_MS = 1e-6


def read_document(path: Path) -> BenchmarkReport:
    """Return the benchmark report in a file.

    Raises:
        InputError: The file is missing, too large, or not a document that this version reads.
    """
    require_file(path, "report")
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    return parse_document(content, f"report '{path}'")


def parse_document(content: bytes, name: str) -> BenchmarkReport:
    """Return a benchmark report, validated and without control characters; `name` is its name in error messages.

    Documents of any schema 2.x are read as the current one.

    Raises:
        InputError: The document is too large, not JSON, of another major version, or does not match the schema.
    """
    if len(content) > MAX_BYTES:
        raise InputError(f"{name} is larger than {MAX_BYTES >> 20} MiB: not a benchmark document")
    return from_document(parse_json(content, name), name)


def from_document(document: Any, name: str) -> BenchmarkReport:
    """Return the report of a parsed JSON document; see `parse_document`."""
    cleaned = _cleaned(document, name)
    version = cleaned.get("schema") if isinstance(cleaned, dict) else None
    if isinstance(version, str) and not version.startswith(_READABLE):
        raise InputError(
            f"{name} has schema {version[:_SHOWN_CHARS]}, this edgekit reads {_READABLE}x: "
            "update edgekit or measure again"
        )
    report = convert(cleaned, BenchmarkReport, f"{name}: field")
    check(report, name)
    return msgspec.structs.replace(report, schema=SCHEMA)


def check(report: BenchmarkReport, name: str) -> None:
    """Check the relations between the values of a report, which the field types do not express.

    Raises:
        InputError: Values contradict each other; the message names the board or the cell.
    """
    for index, board in enumerate(report.boards):
        _check_board(board, f"{name}: boards[{index}]")


def check_fits(*, names: Iterable[str] = (), boards: int = 1) -> None:
    """Check before a measurement that a document can hold its results.

    Args:
        names: Names of models and sources.
        boards: Number of boards.

    Raises:
        InputError: A name is too long, or there are too many boards.
    """
    for name in map(printable, names):
        if len(name) > MAX_NAME_CHARS:
            short = f"{name[:_SHOWN_CHARS]}…{name[-_SHOWN_CHARS:]}"
            raise InputError(
                f"path '{short}' is longer than {MAX_NAME_CHARS} characters: run edgekit in the file's folder, or move "
                "the file"
            )
    if boards > MAX_BOARDS:
        raise InputError(f"{boards} boards are more than the {MAX_BOARDS} of one report: split the inventory")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of benchmark documents."""
    schema = msgspec.json.schema(BenchmarkReport)
    for definition in schema["$defs"].values():
        description = definition.get("description", "").partition("Example:")[0]
        definition["description"] = " ".join(description.split())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{SCHEMA}, written by edgekit bench",
        **schema,
    }


def _cleaned(value: Any, name: str, depth: int = 0) -> Any:
    """Return a JSON value without control, format, surrogate and private characters in its strings and keys."""
    if depth > _MAX_DEPTH:
        raise InputError(f"{name} is nested deeper than {_MAX_DEPTH} levels: not a benchmark document")
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, list):
        return [_cleaned(item, name, depth + 1) for item in value]
    if isinstance(value, dict):
        cleaned = {_plain(key): _cleaned(item, name, depth + 1) for key, item in value.items()}
        kind = cleaned.get("kind")
        return cleaned | {"kind": OLD_KINDS[kind]} if isinstance(kind, str) and kind in OLD_KINDS else cleaned
    return value


def _plain(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char for char in text if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))


def _check_board(board: BoardResult, name: str) -> None:
    models = [model.name for model in board.models]
    if len(set(models)) < len(models):
        raise InputError(f"{name} lists a model twice")
    seen = set()
    for index, cell in enumerate(board.cells):
        where = f"{name}.cells[{index}]"
        if cell.model not in models:
            raise InputError(f"{where}: model '{cell.model[:_SHOWN_CHARS]}' is not among the board's models")
        if cell.key in seen:
            raise InputError(f"{where} is a duplicate")
        seen.add(cell.key)
        if cell.latency.p50_ms < _MIN_MEDIAN_MS:
            raise InputError(f"{where}: the median {cell.latency.p50_ms} ms is below {_MIN_MEDIAN_MS:g}")
        limits = cell.median_interval_ms
        if limits is not None and not limits[0] <= limits[1]:
            raise InputError(f"{where}: the interval's lower limit is above its upper limit")
        if not cell.histogram.low_ms < cell.histogram.high_ms:
            raise InputError(f"{where}: the histogram has no width")
