"""What lies in the folder of a service that edgekit's own supervisor keeps, and the processes it names."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.device.procfs import start_ticks
from edgekit.device.service.spec import RestartPolicy, ServiceSpec, State
from edgekit.errors import InputError
from edgekit.files import write_atomic

_SAME_BEGINNING_TICKS = os.sysconf("SC_CLK_TCK")
SPEC_FILE = "service.json"
STATE_FILE = "state.json"
LOCK_FILE = "lock"
LOG_FILE = "log"


@dataclass(frozen=True)
class Progress:
    """What the supervisor last wrote down of itself and of its child; pids with when those processes began."""

    state: State
    supervisor: tuple[int, int]
    child: tuple[int, int] | None
    restarts: int
    text: str | None
    last_exit: str | None


def write_spec(folder: Path, spec: ServiceSpec) -> None:
    """Write `spec` where `read_spec` finds it."""
    document = asdict(spec) | {"folder": str(spec.folder), "writable": [str(path) for path in spec.writable]}
    write_atomic(folder / SPEC_FILE, json.dumps(document, indent=2) + "\n")
    # The environment may hold what others should not read.
    (folder / SPEC_FILE).chmod(0o600)


def read_spec(folder: Path) -> ServiceSpec:
    """Return the service that `folder` describes.

    Raises:
        InputError: It describes none.
    """
    try:
        document = json.loads((folder / SPEC_FILE).read_text())
        return ServiceSpec(
            name=document["name"],
            command=tuple(document["command"]),
            folder=Path(document["folder"]),
            writable=tuple(map(Path, document["writable"])),
            environment=document["environment"],
            run_as=document["run_as"],
            restart=RestartPolicy(**document["restart"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{folder / SPEC_FILE}' describes no service: install it again") from error


def read_progress(folder: Path) -> Progress | None:
    """Return what a supervisor wrote last, None where none ever ran."""
    try:
        document: dict[str, Any] = json.loads((folder / STATE_FILE).read_text())
        child = document.pop("child")
        return Progress(
            **document | {"supervisor": tuple(document["supervisor"]), "child": tuple(child) if child else None}
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def runs(process: tuple[int, int] | None) -> bool:
    """Return whether a process, known by number and beginning, still runs.

    A second's difference is none: an emulator (qemu-user) tells a process of a later beginning than it tells others,
    and a number is not given out again within a second.
    """
    began = None if process is None else start_ticks(process[0])
    return process is not None and began is not None and abs(began - process[1]) <= _SAME_BEGINNING_TICKS


def end_process(process: tuple[int, int], patience_s: float) -> None:
    """End a process known by number and beginning: SIGTERM, and SIGKILL if it still runs after `patience_s`."""
    for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, patience_s)):
        if not runs(process):
            return
        with suppress(ProcessLookupError):
            os.kill(process[0], number)
        ends_s = time.monotonic() + wait_s
        while runs(process) and time.monotonic() < ends_s:
            time.sleep(0.02)
