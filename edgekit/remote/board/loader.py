"""Runs on a board with `python3 -c`: imports the sent modules and calls `main` of one of them.

The loader's argument is a JSON object, compressed by zlib and encoded by base64. It has `modules` (sources by module
name), `main` (the name of the module to run) and `argument` (the argument of that module's `main`). The result of
`main` or its error is printed as one JSON document, which `edgekit.remote.program` reads. Lines of stderr that begin
with `MESSAGE_PREFIX` are progress and messages for the workstation; `report` and `report_progress` print them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any


class _SentModules(MetaPathFinder, InspectLoader):
    """Imports the sent modules; they take precedence over an installed edgekit."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to import a sent module; None for another one, which Python then finds as usual."""
        del path, target
        return spec_from_loader(fullname, self) if fullname in self._sources else None

    def is_package(self, fullname: str) -> bool:
        return any(name.startswith(f"{fullname}.") for name in self._sources)

    def get_source(self, fullname: str) -> str:
        return self._sources[fullname]


def main(argument: str) -> int:
    """Run the sent program, print its result or its error, and return the exit code."""
    sent: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(argument)))
    sys.meta_path.insert(0, _SentModules(sent["modules"]))
    try:
        answer = {"result": import_module(sent["main"]).main(sent["argument"])}
    except Exception as error:
        from edgekit.errors import EdgekitError  # one of the modules that were sent

        text = str(error) if isinstance(error, EdgekitError) else f"{type(error).__name__}: {error}"
        if isinstance(error, OSError) and error.strerror:
            text = f"{error.strerror}: '{error.filename}'" if error.filename else error.strerror
        answer = {"error": text}
    with contextlib.suppress(OSError):  # the connection may be closed
        print(json.dumps(answer), flush=True)
    return 1 if "error" in answer else 0


def report(text: str) -> None:
    """Send a line of text to the workstation."""
    _send(text)


def report_progress(what: str, done: float, total: float | None) -> None:
    """Send the progress of a step; `total` is None if it is unknown."""
    _send(what, round(done, 3), total or 0)


def _send(*values: object) -> None:
    """Print a line that `receiver` (remote/program.py) reads: one text, or a text, the amount done and the total."""
    from edgekit.errors import MESSAGE_PREFIX

    with contextlib.suppress(OSError):  # the connection may be closed
        print(f"{MESSAGE_PREFIX}{json.dumps(values)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
