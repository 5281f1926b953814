"""The form of a benchmark document: `bench.schema.json`, and the check of what comes from elsewhere.

The schema is a JSON Schema (2020-12) that ships with the package; the core has no library for those, so this module
reads the few keywords the schema uses and refuses any other. A document from a board or a stranger is hostile until it
has been through `parse_document`: its size is bounded, its types are checked, its strings lose what could move a
cursor or turn text around.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.text import printable

SCHEMA = "edgekit.bench/2.0"
MAX_BYTES = 64 << 20
# As many values, keys and their commas as a document of that size has that is a benchmark. Each takes memory, and a
# board could pack eight times as many into as many bytes.
_MAX_VALUES = 4_000_000

_SCHEMA_FILE = Path(__file__).with_name("bench.schema.json")
_MAX_DEPTH = 20
_SHOWN = 60
# What a ratio or a logarithm of two of them can stand; no clock here tells less.
_LEAST_MS = 1e-6
# Compared with, not converted to: an integer may be larger than any float.
_MOST = sys.float_info.max


def load_schema() -> dict[str, Any]:
    """Return the JSON Schema of benchmark documents."""
    return _schema()


def read_document(path: Path) -> dict[str, Any]:
    """Return the benchmark document in a file.

    Raises:
        InputError: It is missing, too large, or no document this version reads.
    """
    require_file(path, "report")
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    return parse_document(content, f"report '{path}'")


def parse_document(content: bytes, name: str) -> dict[str, Any]:
    """Return a benchmark document, checked and with harmless strings; `name` says in errors whose it is.

    Raises:
        InputError: It is too large, no JSON, of another version, or not as the schema says.
    """
    if len(content) > MAX_BYTES:
        raise InputError(f"{name} is larger than {MAX_BYTES >> 20} MiB: that is no benchmark")
    if sum(map(content.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise InputError(f"{name} has more than {_MAX_VALUES:,} values: that is no benchmark")
    try:
        document = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is no JSON: {str(error)[:_SHOWN]}") from error
    cleaned = clean(document, name)
    version = cleaned.get("schema") if isinstance(cleaned, dict) else None
    if isinstance(version, str) and version.startswith("edgekit.bench/1."):
        raise InputError(f"{name} is of schema {version[:_SHOWN]}, before edgekit kept intervals: measure again")
    check(cleaned, name)
    assert isinstance(cleaned, dict)
    return cleaned


def clean(value: Any, name: str, depth: int = 0) -> Any:
    """Return a JSON value whose strings, keys included, have no control, format, surrogate or private characters.

    Raises:
        InputError: It is nested too deeply.
    """
    if depth > _MAX_DEPTH:
        raise InputError(f"{name} is nested deeper than {_MAX_DEPTH} levels: that is no benchmark")
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, list):
        return [clean(item, name, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_plain(key): clean(item, name, depth + 1) for key, item in value.items()}
    return value


def check(document: Any, name: str) -> None:
    """Check a document against the schema, and what a schema cannot say.

    Raises:
        InputError: It is not as it should be; the message names the place.
    """
    _Checker(_schema(), name).check(document, _schema(), "")
    for index, entry in enumerate(document["boards"]):
        _check_entry(entry, f"{name}: boards[{index}]")


def check_fits(*, names: Iterable[str] = (), boards: int = 1) -> None:
    """Refuse what no document has room for before it is measured.

    Args:
        names: Of models and sources.
        boards: How many boards it is to hold.

    Raises:
        InputError: There is no room.
    """
    longest = _schema()["$defs"]["model"]["properties"]["name"]["maxLength"]
    for name in map(printable, names):
        if len(name) > longest:
            shown = f"{name[:_SHOWN]}…{name[-_SHOWN:]}"
            raise InputError(f"'{shown}' is longer than {longest} characters: change to its folder, or move it")
    most = _schema()["properties"]["boards"]["maxItems"]
    if boards > most:
        raise InputError(f"{boards} boards are more than the {most} that one report holds: take several inventories")


def cell_key(cell: Mapping[str, Any]) -> tuple[str, str, str, int, int]:
    """Return what tells a cell from the others of a board: kind, model, engine, threads, batch."""
    return cell["kind"], cell["model"], cell["engine"], cell["intra_op_threads"], cell["batch"]


def _check_entry(entry: Mapping[str, Any], name: str) -> None:
    models = [model["name"] for model in entry["models"]]
    if len(set(models)) < len(models):
        raise InputError(f"{name} names a model twice")
    seen = set()
    for index, cell in enumerate(entry["cells"]):
        where = f"{name}.cells[{index}]"
        if cell["model"] not in models:
            raise InputError(f"{where}: model '{cell['model'][:_SHOWN]}' is not among the board's models")
        if cell_key(cell) in seen:
            raise InputError(f"{where} is there twice")
        seen.add(cell_key(cell))
        if cell["latency"]["p50_ms"] < _LEAST_MS:
            raise InputError(f"{where}: a median of {cell['latency']['p50_ms']} ms is none")
        limits = cell["median_interval_ms"]
        if limits is not None and not limits[0] <= limits[1]:
            raise InputError(f"{where}: the interval's limits are the wrong way round")
        if not cell["histogram"]["low_ms"] < cell["histogram"]["high_ms"]:
            raise InputError(f"{where}: the histogram has no width")


@cache
def _schema() -> dict[str, Any]:
    schema = json.loads(_SCHEMA_FILE.read_text())
    assert isinstance(schema, dict)
    return schema


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _plain(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char for char in text if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))


class _Checker:
    """Checks values against a schema that uses only the keywords below."""

    def __init__(self, schema: Mapping[str, Any], name: str) -> None:
        self._definitions = schema["$defs"]
        self._name = name
        self._keywords: dict[str, Callable[[Any, Any, Mapping[str, Any], str], None]] = {
            "$ref": self._reference,
            "anyOf": self._any_of,
            "type": self._type,
            "enum": self._enum,
            "pattern": self._pattern,
            "minimum": self._minimum,
            "maximum": self._maximum,
            "maxLength": self._length,
            "minItems": self._least_items,
            "maxItems": self._most_items,
            "items": self._items,
            "required": self._required,
            "maxProperties": self._most_properties,
            "propertyNames": self._names,
            "properties": self._properties,
            "additionalProperties": self._additional,
        }

    def check(self, value: Any, schema: Mapping[str, Any], where: str) -> None:
        for keyword, argument in schema.items():
            if keyword not in ("$schema", "$defs", "title", "description"):
                self._keywords[keyword](value, argument, schema, where)

    def _fail(self, where: str, what: str) -> NoReturn:
        raise InputError(f"{self._name}: {where.lstrip('.') or 'the document'} {what}")

    def _reference(self, value: Any, argument: str, _: Mapping[str, Any], where: str) -> None:
        self.check(value, self._definitions[argument.removeprefix("#/$defs/")], where)

    def _any_of(self, value: Any, argument: list[Any], _: Mapping[str, Any], where: str) -> None:
        # Only ever null or one other form.
        null, other = argument
        assert null == {"type": "null"}
        if value is not None:
            self.check(value, other, where)

    def _type(self, value: Any, argument: str, _: Mapping[str, Any], where: str) -> None:
        if not _TYPES[argument](value):
            self._fail(where, f"is {_shown(value)}, no {argument}")

    def _enum(self, value: Any, argument: list[Any], _: Mapping[str, Any], where: str) -> None:
        if value not in argument:
            self._fail(where, f"is {_shown(value)}, not one of {', '.join(argument)}")

    def _pattern(self, value: Any, argument: str, _: Mapping[str, Any], where: str) -> None:
        if re.search(argument, value) is None:
            self._fail(where, f"is {_shown(value)}, not of the form {argument}")

    def _minimum(self, value: Any, argument: float, _: Mapping[str, Any], where: str) -> None:
        if value < argument:
            self._fail(where, f"is {_shown(value)}, below {argument:g}")

    def _maximum(self, value: Any, argument: float, _: Mapping[str, Any], where: str) -> None:
        if value > argument:
            self._fail(where, f"is {_shown(value)}, above {argument:g}")

    def _length(self, value: Any, argument: int, _: Mapping[str, Any], where: str) -> None:
        if len(value) > argument:
            self._fail(where, f"is longer than {argument} characters")

    def _least_items(self, value: Any, argument: int, _: Mapping[str, Any], where: str) -> None:
        if len(value) < argument:
            self._fail(where, f"has fewer than {argument} entries")

    def _most_items(self, value: Any, argument: int, _: Mapping[str, Any], where: str) -> None:
        if len(value) > argument:
            self._fail(where, f"has more than {argument} entries")

    def _items(self, value: Any, argument: Mapping[str, Any], _: Mapping[str, Any], where: str) -> None:
        for index, item in enumerate(value):
            self.check(item, argument, f"{where}[{index}]")

    def _required(self, value: Any, argument: list[str], _: Mapping[str, Any], where: str) -> None:
        for key in argument:
            if key not in value:
                self._fail(where, f"has no '{key}'")

    def _most_properties(self, value: Any, argument: int, _: Mapping[str, Any], where: str) -> None:
        if len(value) > argument:
            self._fail(where, f"has more than {argument} fields")

    def _names(self, value: Any, argument: Mapping[str, Any], _: Mapping[str, Any], where: str) -> None:
        for key in value:
            self.check(key, argument, f"{where}.{key[:_SHOWN]}")

    def _properties(self, value: Any, argument: Mapping[str, Any], _: Mapping[str, Any], where: str) -> None:
        for key, schema in argument.items():
            if key in value:
                self.check(value[key], schema, f"{where}.{key}")

    def _additional(self, value: Any, argument: Any, schema: Mapping[str, Any], where: str) -> None:
        if argument is not True:
            for key in value.keys() - schema.get("properties", {}).keys():
                self.check(value[key], argument, f"{where}.{key[:_SHOWN]}")


_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def _shown(value: Any) -> str:
    text = ""
    for part in json.JSONEncoder().iterencode(value):
        text += part[: _SHOWN + 1]
        if len(text) > _SHOWN:
            return f"{text[:_SHOWN]}…"
    return text
