"""JSON documents that a board printed, as typed data whose texts are safe to print."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from edgekit.errors import HostError
from edgekit.text import one_line

_T = TypeVar("_T")

_MAX_TEXT_CHARS = 500


def read_response(label: str, content: bytes, kind: type[_T]) -> _T:
    """Return the JSON object that a board printed, as an instance of the data class `kind`.

    Each text is one printable line of at most 500 characters. A field that is null has its default. Unknown fields are
    ignored.

    Raises:
        HostError: The output is not JSON or does not fit the class; `label` is the board's name in the message.
    """
    try:
        return msgspec.convert(json.loads(content, object_hook=_harmless), kind)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        reason = one_line(str(error))[:100]
        raise HostError(f"{label}: the board's response is not valid: {reason}{unexpected(content)}") from error


def unexpected(output: bytes) -> str:
    """Return the end of an error message about output that is not a JSON object: its beginning, and the cure."""
    text = output[:4096].decode(errors="replace").strip()
    if text.startswith("{"):
        return ""
    shown = f"'{one_line(text)[:100]}'" if text else "nothing"
    return f" (it printed {shown}: remove what prints it from the board's 'edgekit' command)"


def _harmless(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [*map(_shown, value)] if isinstance(value, list) else _shown(value)
        for name, value in fields.items()
        if value is not None
    }


def _shown(value: Any) -> Any:
    return one_line(value)[:_MAX_TEXT_CHARS] if isinstance(value, str) else value
