"""Several processes per cell, repeats after throttling, pauses, Ctrl-C, killed workers, and the report."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgekit.boards import Conditions, Throttling
from edgekit.device.benchmark import rounds
from edgekit.device.benchmark.jobs import Cell, Job
from edgekit.device.benchmark.measure import Run, board_state, latency_of
from edgekit.device.benchmark.rounds import MAX_REPEATS, Measured, cool_down, measure_all, run_worker
from edgekit.device.benchmark.run import cell_result
from edgekit.errors import EdgekitError, InputError
from edgekit.report.document import MachineReading, ProcessResult, WarmUp

UNKNOWN = Conditions(*[None] * 9)


def job_of(cell: Cell) -> Job:
    return Job(cell, seconds=0.01, min_iterations=5, batch=1)


def test_a_workers_error_and_what_killed_it_are_raised_here(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_text("text")
    with pytest.raises(InputError):
        run_worker(job_of(Cell("bad", bad, 1, "net")))
    # A module named onnxruntime that kills its process when it is imported.
    (tmp_path / "onnxruntime.py").write_text(f"import os\nos.kill(os.getpid(), {int(signal.SIGILL)})\n")
    monkeypatch.setattr(rounds.edgekit, "__file__", str(tmp_path / "edgekit" / "__init__.py"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[3]), *sys.path]))
    with pytest.raises(EdgekitError, match="instruction"):
        run_worker(job_of(Cell("tiny", tiny_model, 1, "net")))


def run_of(*bits: int, clocks_mhz: tuple[float, ...] = (1400, 1400), stable: bool = True, bits_after: int = 0) -> Run:
    readings = [
        MachineReading(at_s=1, images_per_s=1, temperature_c=50, clock_mhz=clock, throttle_flags=f"{bit:#x}")
        for bit, clock in zip(bits or (0, 0), clocks_mhz, strict=True)
    ]
    process = ProcessResult(
        started_s=0,
        elapsed_s=1,
        busy_s=1,
        load_ms=1,
        warm_up=WarmUp(iterations=1, seconds=1, stable=stable),
        latency=latency_of([1.0]),
        images_per_s=1,
        resident_mib=1,
        others_processors=0,
        before=board_state(replace(UNKNOWN, throttling=Throttling(0))),
        during=tuple(readings),
        after=board_state(replace(UNKNOWN, throttling=Throttling(bits_after))),
        quality_flags=(),
    )
    return Run(process=process, batch=1, intra_op_threads=1, samples_ms=(1.0,))


def measured_flags(runs: list[Run], allow_throttled: bool = False) -> tuple[list[Any], list[Any], bool]:
    """Measure one cell with two processes; return the flags of kept and of discarded runs, and whether all finished."""
    left = list(runs)

    def run(_: Job) -> Run:
        if not left:
            raise KeyboardInterrupt
        return left.pop(0)

    jobs = [job_of(Cell("a", Path("a"), 1, "net"))] * 2
    cells, ended_by = measure_all(jobs, 4, 0, allow_throttled, run=run)
    kept = [list(run.process.quality_flags) for one in cells for run in one.runs]
    return kept, [list(run.process.quality_flags) for one in cells for run in one.discarded], ended_by is None


COOL, HOT, COLD = run_of(), run_of(0, 0x80008), run_of(stable=False)
CHANGED, BLINKED = run_of(clocks_mhz=(1400, 1200)), run_of(bits_after=0x40000)


@pytest.mark.parametrize(
    ("runs", "kept", "discarded"),
    [
        ([COOL, HOT, COOL], [[], []], [["throttled"]]),
        ([COOL] + [HOT] * (MAX_REPEATS + 1), [[], ["throttled"]], [["throttled"]] * MAX_REPEATS),
        ([CHANGED, COOL, COLD], [[], ["not warm"]], [["clock changed"]]),
        ([BLINKED, COOL, COOL], [[], []], [["throttled"]]),
    ],
)
def test_a_process_that_throttled_or_changed_its_clock_is_measured_again(
    runs: list[Run], kept: list[list[str]], discarded: list[list[str]]
) -> None:
    assert measured_flags(runs) == (kept, discarded, True)


def test_throttled_processes_are_kept_when_allowed() -> None:
    assert measured_flags([HOT, COOL], allow_throttled=True) == ([["throttled"], []], [], True)


def test_a_cell_pools_its_processes() -> None:
    cell = Measured(Cell("tiny", Path("tiny.onnx"), 1, "net"))
    # The interval of processes with such different times begins near 0.
    for started_s, factor in ((20.0, 1), (30.0, 1), (40.0, 400)):
        process = msgspec.structs.replace(COOL.process, started_s=started_s)
        cell.runs.append(msgspec.structs.replace(COOL, process=process, samples_ms=(0.05 * factor,) * 40))
    made = cell_result(cell, 10.0)
    assert (made.latency.count, made.latency.p50_ms) == (120, 0.05)
    assert made.median_interval_ms[0] == 1e-5
    assert [process.started_s for process in made.processes] == [10.0, 20.0, 30.0]


def test_a_pause_lasts_until_the_board_is_as_cool_as_before_or_the_limit() -> None:
    start = replace(UNKNOWN, temperature_c=40.0)
    temperatures = iter([50.0, 45.0, 41.5])
    slept: list[float] = []
    assert cool_down(start, 60, 0.5, lambda: replace(UNKNOWN, temperature_c=next(temperatures)), slept.append) == 2.5
    assert sum(slept) == 2.5
    hot = replace(start, throttling=Throttling(0x8))
    assert cool_down(start, 3, 0.5, lambda: hot, lambda _: None) == 3.5
    assert cool_down(UNKNOWN, 60, 0.5, lambda: UNKNOWN, lambda _: None) == 0.5
    assert cool_down(start, 0, 0.5, lambda: hot, lambda _: None) == 0
