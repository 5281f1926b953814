"""Typed JSON documents: parses JSON and converts it to dataclasses or structs, with errors that name the field."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, TypeVar

import msgspec

from edgekit.errors import InputError

_T = TypeVar("_T")

_SHOWN_CHARS = 60
# msgspec's names of types, in words.
_TYPES = {
    "int": "a whole number",
    "float": "a finite number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def parse_json(content: str | bytes, name: str) -> Any:
    """Return the value of a JSON text; NaN and infinity are refused.

    Args:
        content: The text.
        name: The document in error messages, such as "the contract".

    Raises:
        InputError: The text is not JSON.
    """
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        why = "it is not text" if isinstance(error, UnicodeDecodeError) else str(error)[:_SHOWN_CHARS]
        raise InputError(f"{name} is not JSON: {why}") from error


def convert(value: Any, to: type[_T], field: str) -> _T:
    """Return a JSON value as an instance of a dataclass or struct; unknown fields are ignored.

    Args:
        value: What `parse_json` returned.
        to: The dataclass or struct.
        field: What an error message calls a field, such as "contract field".

    Raises:
        InputError: A field is missing, of a wrong type or out of its range; the message names it, its value and what
            was expected.
    """
    try:
        return msgspec.convert(value, to)
    except UnicodeEncodeError as error:
        raise InputError(f"{field} has half a character (a lone surrogate): expected whole characters") from error
    except msgspec.ValidationError as error:
        raise InputError(_explain(str(error), value, to, field)) from error


def shown(value: object) -> str:
    """Return a JSON value in at most about 60 characters, for an error message."""
    text = ""
    for part in json.JSONEncoder().iterencode(value):
        text += part[: _SHOWN_CHARS + 1]
        if len(text) > _SHOWN_CHARS:
            return f"{text[:_SHOWN_CHARS]}…"
    return text


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"it contains {text}")


def _explain(message: str, value: Any, to: type, field: str) -> str:
    """Translate msgspec's message, such as "Expected `int`, got `str` - at `$.input.size_hw[0]`"."""
    fault, at, place = message.rpartition(" - at `")
    if not at:  # the document itself
        fault, place = message, ""
    path = place.rpartition("$")[2].rstrip("`").lstrip(".")
    if missing := re.match(r"Object missing required field `(.+)`", fault):
        return f"{field} '{path + '.' if path else ''}{missing[1]}' is missing"
    keys: list[str | int | None] = [
        name or (int(index) if index else None)
        for name, index in re.findall(r"(\w+)(?!\w*\])|\[(?:(\d+)|\.\.\.)\]", path)
    ]
    expected = _expected(fault, to, keys)
    if place.startswith("key`"):
        return f"{field} '{path}' has a key that is not {expected}"
    if None in keys:  # [...]: msgspec does not name the key of a free-form object
        return f"{field} '{path}' is wrong: expected {expected}"
    for key in keys:
        value = value[key]
    return f"{field} '{path or 'document'}' is {_printed(value)}: expected {expected}"


def _printed(value: Any) -> str:
    try:
        return shown(value)
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"


def _expected(fault: str, to: type, keys: list[str | int | None]) -> str:
    if fault.startswith("Invalid enum value"):
        return f"one of {', '.join(_choices(to, keys))}"
    expected = re.match(r"Expected `([^`]+)`(.*?)(, got .*)?$", fault)
    if expected is None:  # "Number out of range"
        return _TYPES["float"]
    return " or ".join(_TYPES.get(name, name) for name in expected[1].split(" | ")) + expected[2]


def _choices(to: type, keys: list[str | int | None]) -> list[str]:
    """Return the allowed values of the field at the path `keys`, which msgspec's message does not list."""
    schema = msgspec.json.schema(to)

    def resolved(node: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in node:
            return resolved(schema["$defs"][node["$ref"].rpartition("/")[2]])
        options = [option for option in node.get("anyOf", ()) if option != {"type": "null"}]
        return resolved(options[0]) if options else node

    node = resolved(schema)
    for key in keys:
        if isinstance(key, str):
            node = resolved(node["properties"][key])
        else:
            node = resolved(node["additionalProperties" if key is None else "items"])
    return [str(choice) for choice in node["enum"]]
