"""Reports from elsewhere: read without believing them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from edgekit.errors import HostError
from edgekit.text import printable

SCHEMA_PREFIX = "edgekit.bench/"
_MAX_TEXT = 2000
_MAX_DEPTH = 12


def read_report(content: bytes, names: Mapping[str, str], label: str) -> dict[str, Any]:
    """Return a benchmark report that a board printed, its texts safe to show.

    Args:
        content: The JSON document.
        names: Texts that mean something only on the board (paths in its store), and what stands for them here.
        label: The board, for messages.

    Raises:
        HostError: It is no benchmark report.
    """

    def refuse(number: str) -> float:
        raise ValueError(f"{number} is no number")

    try:
        document = json.loads(content, parse_constant=refuse)
        cleaned = _cleaned(document, names, 0)
    except (ValueError, RecursionError) as error:
        raise HostError(f"{label}: what it printed is no report: {printable(str(error))[:200]}") from error
    if not isinstance(cleaned, dict) or not str(cleaned.get("schema")).startswith(SCHEMA_PREFIX):
        raise HostError(f"{label}: what it printed is no benchmark report of edgekit")
    return cleaned


def _cleaned(value: Any, names: Mapping[str, str], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(value, str):
        return _text(value, names)
    if isinstance(value, list):
        return [_cleaned(item, names, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_text(key, names): _cleaned(item, names, depth + 1) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number in it is infinite")
    return value


def _text(text: str, names: Mapping[str, str]) -> str:
    return names.get(text) or printable(text)[:_MAX_TEXT]
