"""Several processes a cell, repeats after throttling, pauses, Ctrl-C, and workers that die."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.boards import Conditions, Throttling, read_board
from edgekit.device.benchmark import rounds as benchmark_runs
from edgekit.device.benchmark.cells import Cell
from edgekit.device.benchmark.document import describe_model, report_document
from edgekit.device.benchmark.rounds import MAX_REPEATS, Plan, cool_down, measure_all, run_worker
from edgekit.device.benchmark.worker import DetectorChoice, Job
from edgekit.errors import EdgekitError, InputError
from edgekit.report.power import PowerReading, mean_watts, parse_readings
from edgekit.report.schema import check

NOTHING = Conditions(*[None] * 9)


def job_of(cell: Cell, **changes: Any) -> Job:
    fields: dict[str, Any] = {"seconds": 0.01, "min_iterations": 5, "batch": 1, "clip_path": None, "detector": None}
    return Job(cell.model, cell.path, cell.intra_op_threads, cell.kind, **{**fields, **changes})


def test_a_job_survives_its_journey(tmp_path: Path) -> None:
    job = job_of(
        Cell("odd\n'name", tmp_path / "m.onnx", 2, "pipeline"),
        clip_path=tmp_path,
        detector=DetectorChoice("yunet", tmp_path / "y.onnx", 320),
    )
    assert Job.from_json(job.to_json()) == job


def test_a_worker_measures_in_a_process_of_its_own(tiny_model: Path) -> None:
    shares: list[float] = []
    message = run_worker(job_of(Cell("tiny", tiny_model, 1, "inference")), shares.append)
    assert message["process"]["latency"]["count"] == len(message["samples_ms"]) >= 5
    assert shares[-1] == 1.0


def test_a_workers_error_is_told_as_ours(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_text("text")
    with pytest.raises(InputError, match=r"bad\.onnx"):
        run_worker(job_of(Cell("bad", bad, 1, "inference")), lambda _: None)


@pytest.mark.parametrize(
    ("number", "message"),
    [(signal.SIGILL, "an instruction that this processor lacks"), (signal.SIGKILL, "memory ran out")],
)
def test_a_worker_that_dies_is_told_by_what_killed_it(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, message: str
) -> None:
    # A module of onnxruntime's name that dies as one built for another processor does.
    (tmp_path / "onnxruntime.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    monkeypatch.setattr(benchmark_runs.edgekit, "__file__", str(tmp_path / "edgekit" / "__init__.py"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[3]), *sys.path]))
    with pytest.raises(EdgekitError, match=message):
        run_worker(job_of(Cell("tiny", tiny_model, 1, "inference")), lambda _: None)


def conditions(since_boot: list[str] | None = None) -> dict[str, Any]:
    return {"throttling": {"flags": "0x0", "now": [], "since_boot": since_boot or []}}


def message_of(*flags: str, clocks_mhz: tuple[float, ...] = (1400, 1400), stable: bool = True) -> dict[str, Any]:
    during = [
        {"throttle_flags": flag, "clock_mhz": clock}
        for flag, clock in zip(flags or ("0x0", "0x0"), clocks_mhz, strict=True)
    ]
    process = {
        "before": conditions(),
        "during": during,
        "after": conditions(),
        "warm_up": {"stable": stable},
        "others_processors": 0.0,
    }
    return {"process": process}


COOL, HOT = message_of(), message_of("0x0", "0x80008")


def measured_marks(
    messages: list[dict[str, Any]], allow_throttled: bool = False
) -> tuple[list[list[str]], list[list[str]], bool]:
    """Run a plan of one cell whose workers say `messages`; return the marks kept, those thrown away, and if done."""
    left = list(messages)

    def run(job: Job, progress: Callable[[float], None]) -> dict[str, Any]:
        del job, progress
        if not left:
            raise KeyboardInterrupt
        said = left.pop(0)
        return {"process": dict(said["process"])}

    cell = Cell("a", Path("a"), 1, "inference")
    plan = Plan([cell] * 2, job_of, 0, allow_throttled)
    cells, complete = measure_all(plan, processors=4, progress=lambda *_: None, run=run)
    kept = [message["process"]["marks"] for one in cells for message in one.messages]
    return kept, [message["process"]["marks"] for one in cells for message in one.spoilt], complete


def test_a_throttled_process_is_measured_again() -> None:
    assert measured_marks([COOL, HOT, COOL]) == ([[], []], [["throttled"]], True)


def test_what_throttles_again_and_again_is_kept_and_marked() -> None:
    assert measured_marks([COOL] + [HOT] * (MAX_REPEATS + 1)) == (
        [[], ["throttled"]],
        [["throttled"]] * MAX_REPEATS,
        True,
    )


def test_throttled_ones_are_kept_when_allowed() -> None:
    assert measured_marks([HOT, COOL], allow_throttled=True) == ([["throttled"], []], [], True)


def test_a_changed_clock_is_measured_again_and_a_cold_start_is_not() -> None:
    changed, cold = message_of(clocks_mhz=(1400, 1200)), message_of(stable=False)
    assert measured_marks([changed, COOL, cold]) == ([[], ["not warm"]], [["clock changed"]], True)


def test_a_flag_set_since_the_start_counts_even_if_no_reading_saw_it() -> None:
    blinked = message_of()
    blinked["process"]["after"] = conditions(["throttled"])
    assert measured_marks([blinked, COOL, COOL])[1] == [["throttled"]]


def test_ctrl_c_keeps_the_processes_that_are_finished() -> None:
    assert measured_marks([COOL]) == ([[]], [], False)
    assert measured_marks([]) == ([], [], False)


def test_a_pause_lasts_until_the_board_is_as_cool_as_before_or_patience_ends() -> None:
    start = Conditions(**{**vars(NOTHING), "temperature_c": 40.0})
    temperatures = iter([50.0, 45.0, 41.5])
    slept: list[float] = []

    def look() -> Conditions:
        return Conditions(**{**vars(NOTHING), "temperature_c": next(temperatures)})

    assert cool_down(start, 60, 0.5, look, slept.append) == sum(slept) == 2.5
    hot = Conditions(**{**vars(start), "throttling": Throttling(0x8)})
    assert cool_down(start, 3, 0.5, lambda: hot, lambda _: None) == 3.5
    assert cool_down(NOTHING, 60, 0.5, lambda: NOTHING, lambda _: None) == 0.5
    assert cool_down(start, 0, 0.5, lambda: hot, lambda _: None) == 0


def test_the_report_follows_the_schema_and_pools_the_processes(tiny_model: Path) -> None:
    cell = Cell("tiny", tiny_model, 1, "inference")
    plan = Plan([cell] * 3, job_of, 0, False)
    started_s = time.monotonic()
    measured, complete = measure_all(plan, processors=None, progress=lambda *_: None)
    power = [PowerReading(index / 1000, 2.0) for index in range(100_000)]
    settings = {
        "seconds": 0.03, "min_iterations": 15, "processes": 3, "batch": 1, "seed": 0, "cool_down_s": 0,
        "allow_throttled": False, "intra_op_threads": [1],
    }  # fmt: skip
    document = report_document(
        board=read_board(),
        models=[describe_model("tiny", tiny_model)],
        measured=measured,
        started_s=started_s,
        complete=complete,
        clip=None,
        settings=settings,
        notes={"fan": "none"},
        power=power,
    )
    check(document, "it")
    (made,) = document["boards"][0]["cells"]
    assert made["latency"]["count"] == sum(process["latency"]["count"] for process in made["processes"])
    low, high = made["median_interval_ms"]
    assert low <= made["latency"]["p50_ms"] <= high
    starts = [process["started_s"] for process in made["processes"]]
    assert starts == sorted(starts)
    assert starts[0] > 0
    assert made["energy"]["mean_w"] == 2.0
    assert made["energy"]["joules_per_image"] == pytest.approx(2.0 / made["images_per_s"], rel=1e-3)


def test_power_readings_are_read_whatever_their_clock() -> None:
    lines = ["# meter", "", "1000000010.5 3.5", "0.5, 2.5", "x 1", "1 2 3", "nan 1", "2 -1"]
    readings, strange = parse_readings(lines, start_unix_s=1_000_000_000.0)
    assert readings == [PowerReading(0.5, 2.5), PowerReading(10.5, 3.5)]
    assert strange == 4


def test_mean_power_weighs_by_time_and_wants_readings_all_along() -> None:
    readings = [PowerReading(0, 1.0), PowerReading(1, 1.0), PowerReading(2, 3.0), PowerReading(4, 3.0)]
    assert mean_watts(readings, 0, 4) == pytest.approx((1 + 2 + 6) / 4)
    assert mean_watts(readings, 1, 2) == pytest.approx(2.0)
    assert mean_watts(readings, 0, 20) is None
    assert mean_watts(readings, 2.5, 3) is None
    assert mean_watts([], 0, 1) is None
