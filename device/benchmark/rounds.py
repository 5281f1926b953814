"""Runs the processes of a benchmark round by round, with pauses in which the board cools down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

import edgekit
from edgekit.boards import Conditions, read_conditions
from edgekit.device.benchmark.cells import Cell
from edgekit.device.benchmark.sampling import Run
from edgekit.device.benchmark.worker import Job, Message
from edgekit.errors import EdgekitError, InputError, SourceError, StorageError
from edgekit.report.quality_flags import INVALIDATING, find_quality_flags

MAX_REPEATS = 2
_COOL_WITHIN_C = 2.0
_MIN_PAUSE_S = 0.5
_POLL_PERIOD_S = 1.0


@dataclass
class Measured:
    """A cell with the runs of its processes; `discarded` are the invalid runs, which were repeated."""

    cell: Cell
    runs: list[Run] = field(default_factory=list)
    discarded: list[Run] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """How cells are measured; see `Job`. `order` contains each cell once per round."""

    order: Sequence[Cell]
    make_job: Callable[[Cell], Job]
    cool_down_s: float
    allow_throttled: bool


def run_worker(job: Job, progress: Callable[[float], None]) -> Run:
    """Measure one job in a new Python process.

    Raises:
        EdgekitError: The job cannot be measured, or the process ended without a result.
    """
    package_root = str(Path(edgekit.__file__).parents[1])
    python_path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    # The worker has its own session: Ctrl-C reaches this process only, which then ends the worker.
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "edgekit.device.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": python_path},
            start_new_session=True,
        ) as worker,
    ):
        assert worker.stdin is not None
        assert worker.stdout is not None
        message = Message()
        try:
            with suppress(BrokenPipeError), worker.stdin:  # a process that is killed may not have read
                worker.stdin.write(job.to_json())
            for line in worker.stdout:
                if not line.endswith(b"\n"):  # the rest of a process that was killed
                    break
                message = msgspec.json.decode(line, type=Message)
                if message.progress is not None:
                    progress(message.progress)
            worker.wait()
        except BaseException:
            worker.kill()
            raise
        if message.error is not None:
            kinds: tuple[type[EdgekitError], ...] = (InputError, SourceError, StorageError)
            kind = next((kind for kind in kinds if kind.exit_code == message.exit_code), EdgekitError)
            raise kind(message.error)
        if message.run is None:
            stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - 2000))
            raise EdgekitError(_why_it_died(job.cell, worker.returncode, stderr.read().decode(errors="replace")))
    return message.run


def measure_all(
    plan: Plan,
    *,
    processors: int | None,
    progress: Callable[[Cell, float, Run | None], None] = lambda _, __, ___: None,
    run: Callable[[Job, Callable[[float], None]], Run] = run_worker,
) -> tuple[list[Measured], KeyboardInterrupt | EdgekitError | None]:
    """Measure the plan; return its cells with their runs, in the order of first measurement, and what ended it early.

    Ctrl-C and a cell that cannot be measured end the measurement early: the runs of finished processes are returned,
    that of the current one is lost.

    Args:
        plan: What to measure.
        processors: Number of the board's processors, to decide whether other programs kept the board busy.
        progress: Receives the current cell, the number of processes done (the current one in part), and the run of a
            process that just ended.
        run: Measures one job.
    """
    cells: dict[Cell, Measured] = {}
    start = read_conditions()
    try:
        for index, cell in enumerate(plan.order):
            if index:
                cool_down(start, plan.cool_down_s)
            done, discarded = _measure_valid(plan, cell, start, processors, run, _share_of(progress, cell, index))
            measured = cells.setdefault(cell, Measured(cell))
            measured.runs.append(done)
            measured.discarded += discarded
            progress(cell, index + 1, done)
    except (KeyboardInterrupt, EdgekitError) as error:
        return list(cells.values()), error
    return list(cells.values()), None


def cool_down(
    start: Conditions,
    max_s: float,
    min_s: float = _MIN_PAUSE_S,
    read: Callable[[], Conditions] = read_conditions,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Wait until the board is as cool as at the `start` and not throttled, at most `max_s`; return the seconds waited.

    If the temperature is unknown, the pause is `min_s`.
    """
    waited_s = min(min_s, max_s)
    sleep(waited_s)
    while waited_s < max_s and not _is_cool(read(), start):
        sleep(_POLL_PERIOD_S)
        waited_s += _POLL_PERIOD_S
    return waited_s


def _measure_valid(
    plan: Plan,
    cell: Cell,
    start: Conditions,
    processors: int | None,
    run: Callable[[Job, Callable[[float], None]], Run],
    progress: Callable[[float], None],
) -> tuple[Run, list[Run]]:
    """Measure a cell in one process, and repeat an invalid run; return the last run and the discarded ones."""
    discarded: list[Run] = []
    while True:
        done = run(plan.make_job(cell), progress)
        flags = find_quality_flags(done.process, processors)
        done = msgspec.structs.replace(done, process=msgspec.structs.replace(done.process, quality_flags=flags))
        if plan.allow_throttled or INVALIDATING.isdisjoint(flags) or len(discarded) == MAX_REPEATS:
            return done, discarded
        discarded.append(done)
        cool_down(start, plan.cool_down_s, min_s=plan.cool_down_s / 2)


def _share_of(progress: Callable[[Cell, float, Run | None], None], cell: Cell, index: int) -> Callable[[float], None]:
    return lambda share: progress(cell, index + share, None)


def _is_cool(now: Conditions, start: Conditions) -> bool:
    throttled = bool(now.throttling and now.throttling.now)
    if now.temperature_c is None or start.temperature_c is None:
        return not throttled
    return not throttled and now.temperature_c <= start.temperature_c + _COOL_WITHIN_C


def _why_it_died(cell: Cell, return_code: int, stderr: str) -> str:
    what = f"the process that measured {cell.name}"
    if return_code == -signal.SIGILL:
        return (
            f"{what} used an instruction that this processor lacks: install another version of onnxruntime, "
            "see 'edgekit doctor'"
        )
    if return_code == -signal.SIGKILL:
        return f"{what} was killed: the memory probably ran out; close other programs or use fewer threads"
    last = (stderr.strip().splitlines() or ["no message"])[-1]
    return f"{what} ended with code {return_code}: {last}"
