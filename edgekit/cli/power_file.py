"""`--power-file`: readings of a power meter, from a file after the measurement or from a stream as they arrive."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.report.power import PowerReading


def open_power_meter(where: str | None, warn: Callable[[str], None]) -> Callable[[float], list[PowerReading]]:
    """Return a function that takes the Unix time of the start and returns the readings until now.

    Args:
        where: A file, a named pipe or device, or "-" for stdin; None: no power meter. A thread reads a stream from now
            on, so that the meter never blocks.
        warn: Receives warnings about lines that cannot be read.

    Raises:
        InputError: The file does not exist.
    """
    from edgekit.files import require_file
    from edgekit.report.power import parse_readings

    if where is None:
        return lambda _: []
    lines: list[str] = []
    path = Path(where)
    is_stream = where == "-" or (path.exists() and not path.is_file() and not path.is_dir())
    if is_stream:

        def follow() -> None:
            # Not `click.open_file`: Python aborts if another reader than `sys.stdin` waits on stdin at the exit.
            with nullcontext(sys.stdin) if where == "-" else path.open(errors="replace") as opened:
                for line in opened:
                    lines.append(line)  # line by line: the benchmark may end before the stream

        threading.Thread(target=follow, daemon=True).start()
    else:
        require_file(path, "power file")

    def readings(start_unix_s: float) -> list[PowerReading]:
        if not is_stream:
            try:
                lines.extend(path.read_text(errors="replace").splitlines())
            except OSError as error:
                # The measurements are kept.
                warn(f"power file '{path}' cannot be read: {error.strerror}")
        found, unreadable = parse_readings(list(lines), start_unix_s)
        if unreadable:
            warn(f"power file '{where}': {unreadable} lines are not `seconds watts`")
        if not found:
            warn(f"power file '{where}' has no reading")
        return found

    return readings
