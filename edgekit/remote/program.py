"""Runs programs of `edgekit.remote.board` on a board's Python: a loader and the modules they need are sent along."""

from __future__ import annotations

import ast
import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, TypeVar

from edgekit.remote.job import read_result
from edgekit.remote.messages import Notify, Progress, receiver
from edgekit.remote.ssh import Connection

_T = TypeVar("_T")

_LOADER = "edgekit.remote.board.loader"
# Imported by the loader.
_ERRORS = "edgekit.errors"


def run_program(
    connection: Connection,
    python: str,
    name: str,
    argument: Mapping[str, Any],
    notify: Notify,
    progress: Progress,
    *,
    kind: type[_T],
    timeout_s: float,
) -> _T:
    """Run `edgekit.remote.board.NAME.main(argument)` on a board and return its result as an instance of `kind`.

    Raises:
        HostError: The program failed.
        ConnectionLostError: The connection ended; the program may go on.
    """
    done = connection.run(
        [python, *program(name, argument)], timeout_s=timeout_s, on_stderr_line=receiver(notify, progress)
    )
    return read_result(connection.host.label, done, kind)


def program(name: str, argument: Mapping[str, Any]) -> list[str]:
    """Return the arguments for `python3` that run `edgekit.remote.board.NAME.main(argument)` on a board.

    Linux limits one argument to 128 KiB; `tests/edgekit/remote/test_program.py` checks the size.
    """
    module = f"edgekit.remote.board.{name}"
    sent = {"modules": dict(needed(module)), "main": module, "argument": argument}
    packed = zlib.compress(json.dumps(sent).encode(), 9)
    return ["-I", "-c", _source(_LOADER) or "", base64.b64encode(packed).decode()]


@cache
def needed(module: str) -> Mapping[str, str]:
    """Return the sources of the modules of edgekit that a module imports, directly or indirectly, by module name."""
    sources: dict[str, str] = {}
    left = [module, _ERRORS]
    while left:
        name = left.pop()
        source = None if name in sources else _source(name)
        if source is not None:
            sources[name] = source
            left += _imported(source)
            left += [name.rpartition(".")[0]] if "." in name else []
    return sources


def _imported(source: str) -> Iterator[str]:
    """Yield the names that a module imports at run time, without imports under `if TYPE_CHECKING`."""
    left: list[ast.AST] = [ast.parse(source)]
    while left:
        node = left.pop()
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        left += node.orelse if isinstance(node, ast.If) and is_for_types else ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # Each name may be a module or an attribute; `_source` returns None for an attribute.
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def _source(name: str) -> str | None:
    top, *inner = name.split(".")
    if top != "edgekit":
        return None
    place: Traversable = files("edgekit").joinpath(*inner)
    candidates = [place.joinpath("__init__.py")]
    if inner:
        candidates.append(files("edgekit").joinpath(*inner[:-1], f"{inner[-1]}.py"))
    return next((path.read_text() for path in candidates if path.is_file()), None)
