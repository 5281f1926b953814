"""`--power-file`: a power meter's readings, from a file at the end or from a stream as they come."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from edgekit.cli.output import Output


def open_meter(where: str | None) -> Callable[[float, Output], Any]:
    """Return what gives a power meter's readings at the end; a stream is read from now on, as it comes."""
    from edgekit.errors import InputError
    from edgekit.files import require_file
    from edgekit.report.power import parse_readings

    if where is None:
        return lambda _, __: ()
    lines: list[str] = []
    path = Path(where)
    if where == "-" or (path.exists() and not path.is_file() and not path.is_dir()):

        def follow() -> None:
            with nullcontext(sys.stdin) if where == "-" else path.open(errors="replace") as opened:
                for line in opened:
                    lines.append(line)  # one by one: the benchmark may end first

        threading.Thread(target=follow, daemon=True).start()
    else:
        require_file(path, "power file")

    def readings(start_unix_s: float, out: Output) -> Any:
        if not lines and path.is_file():
            try:
                lines.extend(path.read_text(errors="replace").splitlines())
            except OSError as error:
                raise InputError(f"power file '{path}' cannot be read: {error.strerror}") from error
        found, strange = parse_readings(list(lines), start_unix_s)
        if strange:
            out.warn(f"power file '{where}': {strange} lines are not `seconds watts`")
        if not found:
            out.warn(f"power file '{where}' has no reading")
        return found

    return readings
