"""Runs programs of `edgekit.remote.board` on a board's Python: a loader and the modules they need are sent along.

A program, and `edgekit job`, print one JSON document: {"result": ...} or {"error": "..."}, or both if a part was done.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from typing import Any, TypeVar

import msgspec

from edgekit.errors import EXIT_USAGE, MESSAGE_PREFIX, HostError
from edgekit.remote.parallel import HostReporter
from edgekit.remote.ssh import CommandResult, Connection
from edgekit.text import one_line

_T = TypeVar("_T")

_LOADER = "edgekit.remote.board.loader"
# Imported by the loader.
_ERRORS = "edgekit.errors"


def run_program(
    connection: Connection,
    python: Sequence[str],
    name: str,
    argument: Mapping[str, Any],
    reporter: HostReporter,
    *,
    kind: type[_T],
    timeout_s: float,
    stdin: Iterable[bytes] = (),
) -> _T:
    """Run `edgekit.remote.board.NAME.main(argument)` on a board and return its result as an instance of `kind`.

    `python` is the command that calls Python there.

    Raises:
        HostError: The program failed.
        ConnectionLostError: The connection ended; the program may go on.
    """
    host = connection.host
    receive = receiver(partial(reporter.message, host), partial(reporter.progress, host))
    command = [*python, *program(name, argument)]
    done = connection.run(command, stdin=stdin, timeout_s=timeout_s, on_stderr_line=receive)
    return convert_result(host.label, read_job(host.label, done)["result"], kind)


def program(name: str, argument: Mapping[str, Any]) -> list[str]:
    """Return the arguments for `python3` that run `edgekit.remote.board.NAME.main(argument)` on a board.

    Linux limits one argument to 128 KiB; `tests/edgekit/remote/test_program.py` checks the size.
    """
    module = f"edgekit.remote.board.{name}"
    sent = {"modules": dict(needed(module)), "main": module, "argument": argument}
    packed = zlib.compress(json.dumps(sent).encode(), level=9)
    loader = _source(_LOADER) or ""  # never "": the module exists
    # -I: Python ignores the variables and the packages of the board's user.
    return ["-I", "-c", loader, base64.b64encode(packed).decode()]


@cache
def needed(module: str) -> Mapping[str, str]:
    """Return the sources of the modules of edgekit that a module imports, directly or indirectly, by module name."""
    sources: dict[str, str] = {}
    names = [module, _ERRORS]  # the loader imports the errors
    while names:
        name = names.pop()
        source = None if name in sources else _source(name)
        if source is not None:
            sources[name] = source
            names += _imported(source)
            names.append(name.rpartition(".")[0])  # Python imports the package of a module before the module
    return sources


def _imported(source: str) -> Iterator[str]:
    """Yield the names that a module imports at run time, without imports under `if TYPE_CHECKING`."""
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
        else:
            nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # Each name may be a module or an attribute; `_source` returns None for an attribute.
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def _source(name: str) -> str | None:
    """Return the source of a module or package of edgekit by its name; None for any other name."""
    top, *inner = name.split(".")
    if top != "edgekit":
        return None
    package = files("edgekit").joinpath(*inner, "__init__.py")
    if package.is_file():
        return package.read_text()
    module = files("edgekit").joinpath(*inner[:-1], f"{inner[-1]}.py")
    return module.read_text() if module.is_file() else None


def receiver(notify: Callable[[str], None], progress: Callable[[str, float, float], None]) -> Callable[[str], None]:
    """Return a function that reads the lines on a board's stderr, and calls `notify` and `progress` with its messages.

    A message is MESSAGE_PREFIX and a JSON list: [text], or [text, done, total] for progress. Other lines are ignored.
    """
    return partial(_receive, notify, progress)


def _receive(notify: Callable[[str], None], progress: Callable[[str, float, float], None], line: str) -> None:
    """Call `notify` or `progress` with the message in a line, if it has one; see `receiver`."""
    if not line.startswith(MESSAGE_PREFIX):
        return
    with contextlib.suppress(ValueError, TypeError):  # not such a list
        text, *amounts = json.loads(line.removeprefix(MESSAGE_PREFIX))
        if amounts:
            done, total = map(float, amounts)
            progress(one_line(text), done, total)
        else:
            notify(one_line(text))


def read_job(label: str, done: CommandResult) -> dict[str, Any]:
    """Return the document that a program on a board has printed: its `result`, and an `error` if it is not complete.

    The error is one printable line.

    Raises:
        HostError: The program has no result, or printed no such document; `label` is the board's name in the message.
    """
    try:
        document = json.loads(done.stdout)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not ("result" in document or "error" in document):
        raise HostError(f"{label}: {_no_answer(done)}")
    if "error" in document:
        document["error"] = one_line(str(document["error"]))
        if "result" not in document:
            raise HostError(f"{label}: {document['error']}")
    return document


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


def _no_answer(done: CommandResult) -> str:
    """Return why a command printed no document, with the cure."""
    if done.returncode:
        reason = f": {done.last_error_line}" if done.last_error_line else ""
        # An older edgekit has no such command.
        cure = ": update the board's edgekit" if done.returncode == EXIT_USAGE else ""
        return f"edgekit ended with exit code {done.returncode}{reason}{cure}"
    shown = one_line(done.stdout[:100].decode(errors="replace"))
    printed = f"'{shown}'" if shown else "nothing"
    return f"the board's response is not valid (it printed {printed}): remove what prints it, or update its edgekit"


def _harmless(value: Any) -> Any:
    """Return a JSON value in which each text and name is one printable line.

    Null fields are left out: the class that is made of the value then uses its defaults.
    """
    if isinstance(value, dict):
        return {one_line(name): _harmless(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_harmless(item) for item in value]
    return one_line(value) if isinstance(value, str) else value
