"""The document that a job on a board prints: {"result": ...} or {"error": "..."}, or both if a part was done."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from edgekit.errors import HostError
from edgekit.remote.ssh import CommandResult
from edgekit.text import one_line

_T = TypeVar("_T")


def read_job(label: str, done: CommandResult) -> dict[str, Any]:
    """Return the document of a job that has a `result`, and an `error` in one printable line if it is not complete.

    Raises:
        HostError: The job has failed, or printed no such document; `label` is the board's name in the message.
    """
    document = _parsed(done)
    if not isinstance(document, dict) or not {"result", "error"} & set(document):
        raise HostError(f"{label}: {_no_answer(done)}")
    if "error" in document:
        document["error"] = one_line(str(document["error"]))
        if "result" not in document:
            raise HostError(f"{label}: {document['error']}")
    return document


def read_result(label: str, done: CommandResult, kind: type[_T]) -> _T:
    """Return the result of a job as an instance of the data class `kind`; see `convert_result`.

    Raises:
        HostError: The job failed, or its result does not fit the class.
    """
    return convert_result(label, read_job(label, done)["result"], kind)


def convert_result(label: str, value: Any, kind: type[_T]) -> _T:
    """Return a JSON value of a board as an instance of a data class, in which each text is one printable line.

    A field that is null has its default. Unknown fields are ignored.

    Raises:
        HostError: The value does not fit the class.
    """
    try:
        return msgspec.convert(_harmless(value), kind)
    except msgspec.ValidationError as error:
        raise HostError(f"{label}: the board's response is not valid: {one_line(str(error))}") from error


def read_document(label: str, done: CommandResult, kind: type[_T]) -> _T:
    """Return the JSON document that a command with --json printed; see `convert_result`.

    Raises:
        HostError: The output is not JSON, or does not fit the class.
    """
    document = _parsed(done)
    if not isinstance(document, dict):
        raise HostError(f"{label}: {_no_answer(done)}")
    return convert_result(label, document, kind)


def _parsed(done: CommandResult) -> Any:
    try:
        return json.loads(done.stdout)
    except (ValueError, RecursionError):
        return None


def _no_answer(done: CommandResult) -> str:
    if done.returncode:
        reason = f": {done.last_error_line}" if done.last_error_line else ""
        return f"edgekit ended with exit code {done.returncode}{reason}"
    shown = one_line(done.stdout[:100].decode(errors="replace"))
    printed = f"'{shown}'" if shown else "nothing"
    return f"the board's response is not valid (it printed {printed}): remove what prints it, or update its edgekit"


def _harmless(value: Any) -> Any:
    if isinstance(value, dict):
        return {one_line(name): _harmless(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [*map(_harmless, value)]
    return one_line(value) if isinstance(value, str) else value
