"""Data classes as JSON objects, with every field's type checked when they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from edgekit.errors import InputError

T = TypeVar("T")


def from_document(kind: type[T], document: object, name: str) -> T:
    """Return the data class that `asdict` made `document` of.

    Fields the class does not know are ignored: a later minor version may add some.

    Raises:
        InputError: A field is missing or of another type; `name` is what the message calls the document.
    """
    if not isinstance(document, Mapping):
        raise InputError(f"'{name}' is {_kind(document)}: expected an object")
    hints = get_type_hints(kind)
    values = {}
    assert is_dataclass(kind)
    for field in fields(kind):
        path = f"{name}.{field.name}"
        if field.name not in document:
            raise InputError(f"'{path}' is missing")
        values[field.name] = _value(hints[field.name], document[field.name], path)
    return cast(T, kind(**values))


def _value(hint: Any, value: object, path: str) -> Any:
    origin = get_origin(hint)
    if is_dataclass(hint):
        return from_document(cast(type[Any], hint), value, path)
    if origin is Literal:
        if value not in get_args(hint):
            raise InputError(f"'{path}' is {_kind(value)}: expected one of {', '.join(get_args(hint))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"'{path}' is {_kind(value)}: expected a list")
        return tuple(_value(get_args(hint)[0], item, path) for item in value)
    if hint is float and type(value) is int and abs(value) < 1e15:
        value = float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(cast(float, value))):
        raise InputError(f"'{path}' is {_kind(value)}: expected {hint.__name__}")
    return value


def _kind(value: object) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
