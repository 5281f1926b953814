"""Typed JSON documents: parses JSON and converts it to dataclasses or structs, with errors that name the field."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, TypeVar

import msgspec

from edgekit.errors import InputError

_T = TypeVar("_T")

_SHOWN_CHARS = 60


def parse_json(content: str | bytes, name: str, cure: str = "") -> Any:
    """Return the value of a JSON text; NaN and infinity are refused.

    Args:
        content: The text.
        name: The document in error messages, such as "the contract".
        cure: The end of the error message for a text that is not JSON.

    Raises:
        InputError: The text is not JSON.
    """
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        why = "it is not text" if isinstance(error, UnicodeDecodeError) else str(error)[:_SHOWN_CHARS]
        raise InputError(f"{name} is not JSON: {why}{cure}") from error


def convert(value: Any, to: type[_T], field: str) -> _T:
    """Return a JSON value as an instance of a dataclass or struct; unknown fields are ignored.

    Args:
        value: What `parse_json` returned.
        to: The dataclass or struct.
        field: What an error message calls a field, such as "contract field".

    Raises:
        InputError: A field is missing, of a wrong type or out of its range; the message names it and what was expected.
    """
    try:
        return msgspec.convert(value, to)
    except UnicodeEncodeError as error:
        raise InputError(f"{field} has half a character (a lone surrogate): expected whole characters") from error
    except msgspec.ValidationError as error:
        raise InputError(_explain(str(error), field)) from error


def shown(value: object) -> str:
    """Return a JSON value in at most about 60 characters, for an error message."""
    # In parts, because the whole text can be very long.
    text = ""
    for part in json.JSONEncoder().iterencode(value):
        text += part[: _SHOWN_CHARS + 1]
        if len(text) > _SHOWN_CHARS:
            return f"{text[:_SHOWN_CHARS]}…"
    return text


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"it contains {text}")


def _explain(message: str, field: str) -> str:
    """Return a message of msgspec in our words; `field` is what the message calls a field, such as "contract field".

    "Expected `int`, got `str` - at `$.input.size_hw[0]`" becomes
    "contract field 'input.size_hw[0]' is wrong: expected `int`, got `str`".
    """
    fault, _, place = message.partition(" - at ")
    path = place.rpartition("$")[2].strip("`.")
    if missing := re.match(r"Object missing required field `(.+)`", fault):
        name = f"{path}.{missing[1]}" if path else missing[1]
        return f"{field} '{name}' is missing"
    return f"{field} '{path or 'document'}' is wrong: {fault[0].lower()}{fault[1:]}"
