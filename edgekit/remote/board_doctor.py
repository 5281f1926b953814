"""Runs on the board, sent as text: examines it with the doctor's own modules, which come along and are never written.

Standard library only, so that it works where nothing of edgekit is, on a 32-bit system or a full disk. Its argument is
the base64 form of a zlib-compressed JSON object: `modules` (module name → source) and `capture`. It prints one line of
JSON with the findings and one with what they were found in, as far as that is wanted.
"""

from __future__ import annotations

import base64
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any


class _Sent(MetaPathFinder, InspectLoader):
    """Finds the modules that were sent, before any edgekit that is installed."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        return spec_from_loader(fullname, self) if fullname in self._sources else None

    def is_package(self, fullname: str) -> bool:
        return any(name.startswith(f"{fullname}.") for name in self._sources)

    def get_source(self, fullname: str) -> str:
        return self._sources[fullname]


def main(argument: str) -> None:
    """Examine this machine."""
    sent: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(argument)))
    sys.meta_path.insert(0, _Sent(sent["modules"]))
    from edgekit.doctor.bundle import own_names
    from edgekit.doctor.examination import as_document, examine
    from edgekit.doctor.probe import Probe
    from edgekit.remote.progress import progress_line

    def show(done: int, total: int | None) -> None:
        print(progress_line("looking", done, total), file=sys.stderr, flush=True)

    probe = Probe()
    findings = examine(probe, show)
    print(json.dumps(as_document(findings)))
    captured = {"seen": probe.seen, "names": own_names()} if sent["capture"] else {}
    print(json.dumps({"python": sys.executable, **captured}))


if __name__ == "__main__":
    main(sys.argv[1])
