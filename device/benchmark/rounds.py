"""Runs a benchmark: every cell in several processes, round by round, with pauses in which the board cools down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import edgekit
from edgekit.boards import Conditions, read_conditions
from edgekit.device.benchmark.cells import Cell
from edgekit.device.benchmark.worker import Job
from edgekit.errors import EdgekitError, InputError, SourceError, StorageError
from edgekit.report.quality_flags import INVALIDATING, marks_of

MAX_REPEATS = 2
_COOLED_WITHIN_C = 2.0
_LEAST_PAUSE_S = 0.5
_LOOK_EVERY_S = 1.0


@dataclass
class Measured:
    """A cell and what its processes said, as `Run.as_message` has it; `spoilt` are those measured again."""

    cell: Cell
    messages: list[dict[str, Any]] = field(default_factory=list)
    spoilt: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """How cells are measured; see `Job`. `order` has each cell once a round."""

    order: Sequence[Cell]
    make_job: Callable[[Cell], Job]
    cool_down_s: float
    allow_throttled: bool


def measure_all(
    plan: Plan,
    *,
    processors: int | None,
    progress: Callable[[Cell, float], None],
    finished: Callable[[Cell, dict[str, Any]], None] = lambda _, __: None,
    run: Callable[[Job, Callable[[float], None]], dict[str, Any]] | None = None,
) -> tuple[list[Measured], bool]:
    """Measure the plan and return its cells in the order they first came, and whether it was done to the end.

    Ctrl-C ends it early: what is finished is returned, and only the process at work is lost.

    Args:
        plan: What to measure.
        processors: Processors of the board, for what counts as busy.
        progress: Told the cell and the share done of the whole plan.
        finished: Told each process's cell and its message, `marks` included.
        run: Measures one job; default: `run_worker`.

    Raises:
        EdgekitError: A cell cannot be measured at all.
    """
    run = run or run_worker
    cells: dict[Cell, Measured] = {}
    start = read_conditions()
    try:
        for index, cell in enumerate(plan.order):
            if index:
                cool_down(start, plan.cool_down_s)
            show = _shares(progress, cell, index, len(plan.order))
            spoilt: list[dict[str, Any]] = []
            while True:
                message = run(plan.make_job(cell), show)
                marks = marks_of(message["process"], processors)
                message["process"]["marks"] = marks
                if plan.allow_throttled or not set(marks) & set(INVALIDATING) or len(spoilt) == MAX_REPEATS:
                    break
                spoilt.append(message)
                cool_down(start, plan.cool_down_s, least_s=plan.cool_down_s / 2)
            measured = cells.setdefault(cell, Measured(cell))
            measured.messages.append(message)
            measured.spoilt += spoilt
            finished(cell, message)
    except KeyboardInterrupt:
        return list(cells.values()), False
    return list(cells.values()), True


def cool_down(
    start: Conditions,
    longest_s: float,
    least_s: float = _LEAST_PAUSE_S,
    look: Callable[[], Conditions] = read_conditions,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Wait until the board is as cool as at the `start` and not throttled, at most `longest_s`; return the seconds.

    A board that does not tell its temperature waits `least_s`.
    """
    waited_s = min(least_s, longest_s)
    sleep(waited_s)
    while waited_s < longest_s and not _is_cool(look(), start):
        sleep(_LOOK_EVERY_S)
        waited_s += _LOOK_EVERY_S
    return waited_s


def run_worker(job: Job, progress: Callable[[float], None]) -> dict[str, Any]:
    """Measure one job in a new Python process and return its message.

    Raises:
        EdgekitError: The job cannot be measured, or the process died.
    """
    home = str(Path(edgekit.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))}
    # Its own session: Ctrl-C reaches this process only, which then ends the worker.
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "edgekit.device.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment,
            text=True,
            start_new_session=True,
        ) as worker,
    ):
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            worker.stdin.write(job.to_json())
            worker.stdin.close()
            message: dict[str, Any] = {}
            for line in worker.stdout:
                message = json.loads(line)
                if "progress" in message:
                    progress(message["progress"])
            worker.wait()
        except BaseException:
            worker.kill()
            raise
        if "error" in message:
            kinds: tuple[type[EdgekitError], ...] = (InputError, SourceError, StorageError)
            kind = next((kind for kind in kinds if kind.exit_code == message["exit_code"]), EdgekitError)
            raise kind(message["error"])
        if "run" not in message:
            complaints.seek(max(0, complaints.seek(0, os.SEEK_END) - 2000))
            raise EdgekitError(_obituary(job, worker.returncode, complaints.read().decode(errors="replace")))
    run = message["run"]
    assert isinstance(run, dict)
    return run


def _obituary(job: Job, return_code: int, complaints: str) -> str:
    what = f"the process that measured '{job.model}' ({job.kind}, {job.intra_op_threads} threads)"
    if return_code == -signal.SIGILL:
        return f"{what} used an instruction that this processor lacks: take another onnxruntime, see 'edgekit doctor'"
    if return_code == -signal.SIGKILL:
        return f"{what} was killed: most likely the memory ran out; close other programs or take fewer threads"
    last = (complaints.strip().splitlines() or ["it said nothing"])[-1]
    return f"{what} ended with code {return_code}: {last}"


def _is_cool(now: Conditions, start: Conditions) -> bool:
    throttled = bool(now.throttling and now.throttling.now)
    if now.temperature_c is None or start.temperature_c is None:
        return not throttled
    return not throttled and now.temperature_c <= start.temperature_c + _COOLED_WITHIN_C


def _shares(progress: Callable[[Cell, float], None], cell: Cell, index: int, total: int) -> Callable[[float], None]:
    return lambda share: progress(cell, (index + share) / total)
