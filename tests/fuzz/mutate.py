"""Seeded mutations of a document: of its bytes, of the values of a JSON text, and of numbers and words in any text."""

from __future__ import annotations

import json
import random
import re
from typing import Any

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1 << 31, 1 << 63, -(1 << 63), 10**400, 0.5, 1e308, -1e308, "", " ", "x" * 5000, "\0",
    "\x1b[2J\n", "\ud800", "é中", "-1", "../../etc/passwd", "/dev/zero", "$(touch planted)", [], {}, [[]], {"": None},
)  # fmt: skip
_WORDS = (
    b"-1", b"0", b"1e999", b"NaN", b"inf", b"true", b"null", b"[", b"{", b"}", b"]", b'"', b"'", b"\\", b"=", b"#",
    b"\n", b"\r", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"[" * 3000, b"9" * 5000, b"%s%n",
    b"\x1b[2J", b",",
)  # fmt: skip


def mutated(content: bytes, choice: random.Random) -> bytes:
    """Return a mutated document; equal arguments give equal results."""
    for _ in range(choice.choice((1, 1, 1, 2, 4))):
        content = choice.choice((_json_value, _json_value, _number, _bytes, _words, _part))(content, choice)
    return content


def _json_value(content: bytes, choice: random.Random) -> bytes:
    """Replace, delete, rename or nest one value of a JSON text."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return _bytes(content, choice)
    places: list[tuple[Any, Any]] = []
    _collect(document, places)
    if not places:
        return json.dumps(choice.choice(_VALUES)).encode()
    parent, key = choice.choice(places)
    kind = choice.randrange(5)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[choice.choice(("", "x", "schema", "\x1b[2J"))] = parent.pop(key)
    elif kind == 2:
        parent[key] = choice.choice((list, lambda value: {"x": value}, lambda value: [value] * 3))([parent[key]])
    else:
        parent[key] = choice.choice(_VALUES)
    return json.dumps(document).encode()


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        places.append((value, key))
        _collect(inner, places)


def _number(content: bytes, choice: random.Random) -> bytes:
    found = list(re.finditer(rb"-?[0-9]+(\.[0-9]+)?", content))
    if not found:
        return _words(content, choice)
    match = choice.choice(found)
    numbers = (b"0", b"-1", b"1", b"65536", b"4294967296", b"9223372036854775808", b"1e400", b"0.5", b"9" * 400)
    return content[: match.start()] + choice.choice(numbers) + content[match.end() :]


def _bytes(content: bytes, choice: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(choice.choice((1, 2, 8, 32))):
        at = choice.randrange(len(changed))
        changed[at] = choice.choice((0, 0xFF, changed[at] ^ (1 << choice.randrange(8)), choice.randrange(256)))
    return bytes(changed)


def _words(content: bytes, choice: random.Random) -> bytes:
    at = choice.randrange(len(content) + 1)
    return content[:at] + choice.choice(_WORDS) + content[at:]


def _part(content: bytes, choice: random.Random) -> bytes:
    """Cut the content, or delete or repeat a part of it."""
    first, last = sorted(choice.randrange(len(content) + 1) for _ in range(2))
    part = content[first:last]
    return choice.choice(
        (content[:first], content[last:], content[:first] + content[last:], content[:last] + part + content[last:])
    )
