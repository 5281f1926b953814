"""Runs the processes of a benchmark round by round, with pauses in which the board cools down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

import edgekit
from edgekit.boards import Conditions, read_conditions
from edgekit.device.benchmark.jobs import Cell, Job
from edgekit.device.benchmark.measure import Failure, Run
from edgekit.errors import EdgekitError, InputError
from edgekit.report.document import INVALIDATING, BoardState, ProcessResult, QualityFlag

MAX_REPEATS = 2
_COOL_WITHIN_C = 2.0
_MIN_PAUSE_S = 0.5
_POLL_PERIOD_S = 1.0
_CLOCK_TOLERANCE = 0.03
# A board is busy if other programs use more than this number of processors, and this share of all processors.
_BUSY_PROCESSORS = 0.25
_BUSY_SHARE = 0.05
# The throttle flags of now; the higher bits are those since the board started.
_NOW_BITS = 0xF
# What the exit code of a worker means.
_CRASHES = {
    -signal.SIGILL: "used an instruction that this processor lacks: install another version of onnxruntime, see "
    "'edgekit doctor'",
    -signal.SIGKILL: "was killed: the memory probably ran out; close other programs or use fewer threads",
}


@dataclass
class Measured:
    """A cell with the runs of its processes; `discarded` are the invalid runs, which were repeated."""

    cell: Cell
    runs: list[Run] = field(default_factory=list)
    discarded: list[Run] = field(default_factory=list)


@dataclass(frozen=True)
class BenchmarkProgress:
    """Progress of a benchmark: `done` of `total` processes; `finished` is the result of a process that just ended."""

    cell: Cell
    done: int
    total: int
    finished: ProcessResult | None = None


def run_worker(job: Job) -> Run:
    """Measure one job in a new Python process.

    Raises:
        EdgekitError: The job cannot be measured, or the process ended without a result.
    """
    # The worker imports this edgekit, also if it is not installed.
    package_root = str(Path(edgekit.__file__).parents[1])
    python_path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    # The worker has its own session: Ctrl-C reaches this process only, which then ends the worker.
    done = subprocess.run(
        # -P: modules in the current folder do not hide others of the same name.
        [sys.executable, "-P", "-m", "edgekit.device.benchmark.measure"],
        input=job.to_json(),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": python_path},
        start_new_session=True,
        check=False,
    )
    try:
        answer = msgspec.json.decode(done.stdout, type=Run | Failure)
    except msgspec.DecodeError:
        raise EdgekitError(_why_it_died(job.cell, done.returncode, done.stderr.decode(errors="replace"))) from None
    if isinstance(answer, Failure):
        # The error of the same exit code: bad input, or any other failure.
        error_class = InputError if answer.exit_code == InputError.exit_code else EdgekitError
        raise error_class(answer.error)
    return answer


def measure_all(
    jobs: Sequence[Job],
    processors: int | None,
    cool_down_s: float,
    allow_throttled: bool,
    *,
    progress: Callable[[BenchmarkProgress], None] = lambda _: None,
    run: Callable[[Job], Run] = run_worker,
) -> tuple[list[Measured], KeyboardInterrupt | EdgekitError | None]:
    """Measure each job in its own process, in order; return the runs per cell, and the error that ended it early.

    A run that is invalid, such as on a throttled board, is repeated. Ctrl-C and a cell that cannot be measured end the
    measurement early: the finished runs are returned, and the current one is lost. Without a finished run, the error is
    raised.

    Args:
        jobs: What to measure, each cell once per round.
        processors: Number of the board's processors, to decide whether other programs kept the board busy.
        cool_down_s: Longest pause between processes.
        allow_throttled: Keep invalid runs instead of repeating them.
        progress: Called before and after each process.
        run: Measures one job.
    """
    cells: dict[Cell, Measured] = {}
    cool_state = read_conditions()  # to which the board cools down before each other process
    try:
        for index, job in enumerate(jobs):
            if index > 0:
                cool_down(cool_state, cool_down_s)
            progress(BenchmarkProgress(job.cell, index, len(jobs)))
            discarded: list[Run] = []
            while True:
                done = run(job)
                flags = find_quality_flags(done.process, processors)
                process = msgspec.structs.replace(done.process, quality_flags=flags)
                done = msgspec.structs.replace(done, process=process)
                is_valid = allow_throttled or INVALIDATING.isdisjoint(flags)
                if is_valid or len(discarded) == MAX_REPEATS:
                    break
                discarded.append(done)
                # A longer pause than before a first run: the board was throttled, or has changed its clock.
                cool_down(cool_state, cool_down_s, min_s=cool_down_s / 2)
            measured = cells.setdefault(job.cell, Measured(job.cell))
            measured.runs.append(done)
            measured.discarded += discarded
            progress(BenchmarkProgress(job.cell, index + 1, len(jobs), done.process))
    except (KeyboardInterrupt, EdgekitError) as error:
        if not cells:
            raise
        return list(cells.values()), error
    return list(cells.values()), None


def cool_down(
    start: Conditions,
    max_s: float,
    min_s: float = _MIN_PAUSE_S,
    read: Callable[[], Conditions] = read_conditions,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Wait until the board is about as cool as in the state `start`, and not throttled; return the seconds waited.

    The pause is at least `min_s`, but never longer than `max_s`. An unknown temperature counts as cool. `read` and
    `sleep` replace the board and the time in tests.
    """
    waited_s = min(min_s, max_s)
    sleep(waited_s)
    while waited_s < max_s:
        now = read()
        is_throttled = now.throttling is not None and now.throttling.now
        start_c = start.temperature_c or now.temperature_c or 0  # without a known start, the board is cool enough
        is_cool = (now.temperature_c or 0) <= start_c + _COOL_WITHIN_C
        if is_cool and not is_throttled:
            break
        sleep(_POLL_PERIOD_S)
        waited_s += _POLL_PERIOD_S
    return waited_s


def _why_it_died(cell: Cell, return_code: int, stderr: str) -> str:
    """Return the message for a worker that ended without a result.

    A negative `return_code` is the signal that ended it. `stderr` is what it has printed.
    """
    lines = stderr.strip().splitlines() or ["no message"]
    reason = _CRASHES.get(return_code, f"ended with code {return_code}: {lines[-1]}")
    return f"the process that measured {cell.name} {reason}"


def find_quality_flags(process: ProcessResult, processors: int | None) -> tuple[QualityFlag, ...]:
    """Return the reasons to doubt the measurement of one process: throttled, clock changed, not warm, busy.

    It counts as throttled if a throttle flag was set at any reading or at the end, or if the firmware has recorded a
    flag since the process started.

    Args:
        process: The measurement.
        processors: Number of the board's processors.
    """
    found: list[QualityFlag] = []
    throttle_bits = [int(reading.throttle_flags, 16) for reading in process.during if reading.throttle_flags]
    new_flags = _throttled_since_boot(process.after) - _throttled_since_boot(process.before)
    throttled_at_end = process.after.throttling is not None and process.after.throttling.now
    if any(bits & _NOW_BITS for bits in throttle_bits) or throttled_at_end or new_flags:
        found.append("throttled")
    clocks_mhz = [reading.clock_mhz for reading in process.during if reading.clock_mhz]
    if clocks_mhz and max(clocks_mhz) > min(clocks_mhz) * (1 + _CLOCK_TOLERANCE):
        found.append("clock changed")
    if not process.warm_up.stable:
        found.append("not warm")
    others = process.others_processors
    if others is not None and others > max(_BUSY_PROCESSORS, _BUSY_SHARE * (processors or 0)):
        found.append("busy")
    return tuple(found)


def _throttled_since_boot(state: BoardState) -> set[str]:
    """Return the names of the throttle flags that were set since the board started."""
    return set(state.throttling.since_boot) if state.throttling else set()
