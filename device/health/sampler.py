"""Samples of board and process: temperature, clock, memory and disk, once per second during a run."""

from __future__ import annotations

import functools
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgekit.boards import Conditions, RunTool, Throttling, read_conditions, run_tool

if TYPE_CHECKING:
    from edgekit.device.frame import CameraState
    from edgekit.device.health.camera_watch import CameraWatch


PERIOD_S = 1.0
# vcgencmd is a process, which costs more than reading all files of a sample; it runs for every fifth sample.
FIRMWARE_EVERY = 5

# A disk or firmware that hangs must not delay the end of a run.
_JOIN_S = 2.0


@dataclass(frozen=True)
class Health:
    """One sample: the board's conditions, this process's resources, free disk space, and state of a live source.

    None where unknown; `camera_faults` counts how often the source was in each state other than "ok".
    """

    monotonic_s: float
    wall_s: float
    conditions: Conditions
    process: ProcessUse | None
    disk_free_mib: int | None
    camera: CameraState | None = None
    camera_faults: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_camera_usable(self) -> bool:
        """Whether the images of the source show something new; true for a recording."""
        return self.camera in (None, "ok")

    def as_document(self) -> dict[str, Any]:
        """Return the sample, ready for JSON: the fields of `Conditions` and those of this class."""
        own = self.process
        return {
            "monotonic_s": round(self.monotonic_s, 3),
            "wall_s": round(self.wall_s, 3),
            **self.conditions.as_document(),
            "memory_own_mib": None if own is None else round(own.resident_mib, 1),
            "threads": None if own is None else own.threads,
            "open_files": None if own is None else own.open_files,
            "disk_free_mib": self.disk_free_mib,
            "camera": self.camera,
            "camera_faults": dict(self.camera_faults),
        }

    def describe(self) -> str:
        """Return the sample as one line of text."""
        now = self.conditions
        parts = [
            None if now.temperature_c is None else f"{now.temperature_c:.1f} °C",
            None if now.clock_mhz is None else f"{now.clock_mhz:.0f} MHz",
            None if now.throttling is None else ", ".join(now.throttling.now) or "not throttled",
            None if self.process is None else f"{self.process.resident_mib:.0f} MiB",
        ]
        return ", ".join(part for part in parts if part)


class HealthSummary:
    """Minima and maxima of all samples of a run; its memory does not grow with the number of samples."""

    def __init__(self) -> None:
        self.samples = 0
        self.cost_ms = 0.0
        self._flags = 0
        self._peak: dict[str, float] = {}
        self._least: dict[str, float] = {}

    def add(self, sample: Health, cost_ms: float) -> None:
        """Update the extremes with a sample, which took `cost_ms` of CPU time; unknown values are left out."""
        self.samples += 1
        self.cost_ms += cost_ms
        now, own = sample.conditions, sample.process
        self._flags |= now.throttling.bits if now.throttling else 0
        _keep(max, self._peak, "temperature_c", now.temperature_c)
        _keep(max, self._peak, "memory_own_mib", own.peak_mib if own else None)
        _keep(max, self._peak, "threads", own.threads if own else None)
        _keep(max, self._peak, "open_files", own.open_files if own else None)
        _keep(min, self._least, "clock_mhz", now.clock_mhz)
        _keep(min, self._least, "memory_available_mib", now.memory_available_mib)
        _keep(min, self._least, "disk_free_mib", sample.disk_free_mib)

    @property
    def throttled(self) -> tuple[str, ...]:
        """Names of the throttle flags that were set in any sample."""
        return Throttling(self._flags).now

    def as_document(self) -> dict[str, Any]:
        """Return the known extremes (`max_…`, `min_…`) and the mean CPU time per sample, ready for JSON."""
        # Copies, because the sampler's thread may add keys meanwhile.
        extremes = {f"max_{name}": round(value, 1) for name, value in self._peak.copy().items()}
        extremes |= {f"min_{name}": round(value, 1) for name, value in self._least.copy().items()}
        mean_ms = round(self.cost_ms / self.samples, 3) if self.samples else None
        return {"samples": self.samples, "cost_ms": mean_ms, **extremes, "throttled": list(self.throttled)}

    def describe(self) -> str:
        """Return the extremes as one line of text; empty without samples."""
        if not self.samples:
            return ""
        peak, least = self._peak, self._least
        parts = [
            f"at most {peak['temperature_c']:.1f} °C" if "temperature_c" in peak else None,
            f"at least {least['clock_mhz']:.0f} MHz" if "clock_mhz" in least else None,
            f"throttled: {', '.join(self.throttled)}" if self.throttled else None,
            f"at most {peak['memory_own_mib']:.0f} MiB of memory" if "memory_own_mib" in peak else None,
        ]
        return ", ".join(part for part in parts if part)


@dataclass(eq=False)
class HealthSampler:
    """Thread that samples once per second in a `with` block; any thread may read the attributes.

    Attributes:
        folder: Folder whose disk is sampled.
        notify: Receives one line for each series of samples that fail.
        watch: Called with every sample, in the sampler's thread.
        camera: Watches the images of a live source.
        root: Folder of /proc and /sys.
        run: Executes the firmware tool.
        period_s: Time between two samples.
        latest: The newest sample; None before the first.
        summary: The summary of all samples; it changes while the sampler runs.
    """

    folder: Path
    notify: Callable[[str], None]
    watch: Callable[[Health], None] = lambda _: None
    camera: CameraWatch | None = None
    root: Path = Path("/")
    run: RunTool = run_tool
    period_s: float = PERIOD_S
    latest: Health | None = None
    summary: HealthSummary = field(default_factory=HealthSummary)

    def __post_init__(self) -> None:
        self._cached_run = self.run
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="health", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(_JOIN_S)

    def _sample(self) -> None:
        """Take a sample every `period_s` until the end of the block; this is the work of the thread.

        A sample may fail, such as with too many open files. Then the next ones are tried, because load shedding must go
        on; only the first failure of a series is reported.
        """
        next_s, is_failing = time.monotonic(), False
        while True:
            try:
                self._take_sample()
                is_failing = False
            except Exception as error:
                if not is_failing:
                    self.notify(f"health sampling failed, the run continues: {type(error).__name__}: {error}")
                is_failing = True
            # Relative to the previous planned time, so that a sample's duration does not lengthen the period. Samples
            # that are missed are not made up for.
            next_s = max(next_s + self.period_s, time.monotonic())
            if self._stop.wait(next_s - time.monotonic()):
                return

    def _take_sample(self) -> None:
        """Take one sample, add it to the summary, and pass it to `watch`.

        The firmware tool is a slow process, so it runs for one of `FIRMWARE_EVERY` samples only. In between, a cache
        returns its output.
        """
        started_s = time.thread_time()
        if self.summary.samples % FIRMWARE_EVERY == 0:
            self._cached_run = functools.cache(self.run)  # an empty cache
        # Arguments as a tuple, because those of a cached function must be hashable.
        sample = read_health(self.folder, self.root, lambda arguments: self._cached_run(tuple(arguments)))
        if self.camera is not None:
            sample = replace(sample, camera=self.camera.check(), camera_faults=dict(self.camera.faults))
        cpu_ms = (time.thread_time() - started_s) * 1e3
        self.summary.add(sample, cpu_ms)
        self.latest = sample
        self.watch(sample)  # sheds load in a run


def read_health(folder: Path, root: Path = Path("/"), run: RunTool = run_tool) -> Health:
    """Return one sample of the board, this process and the disk of `folder`, without the state of a camera.

    `root` is the folder of /proc and /sys, `run` executes the firmware tool.
    """
    try:
        disk_free_mib = shutil.disk_usage(folder).free // 2**20
    except OSError:
        disk_free_mib = None
    return Health(time.monotonic(), time.time(), read_conditions(root, run), read_process(), disk_free_mib)


def _keep(choose: Callable[[float, float], float], kept: dict[str, float], name: str, value: float | None) -> None:
    """Replace `kept[name]` by the choice, `max` or `min`, of it and a value; ignore an unknown value."""
    if value is not None:
        kept[name] = choose(value, kept.get(name, value))


@dataclass(frozen=True)
class ProcessUse:
    """Resources of a process: current and peak memory, threads and open files."""

    resident_mib: float
    peak_mib: float
    threads: int
    open_files: int


def read_process(pid: int | None = None) -> ProcessUse | None:
    """Return the resources of process `pid` (default: this one); None if it has ended or may not be read."""
    folder = Path("/proc", "self" if pid is None else str(pid))
    try:
        status = (folder / "status").read_text()
        open_files = len(os.listdir(folder / "fd"))  # noqa: PTH208 - no Path is made of each
    except OSError:
        return None
    # Lines such as "VmRSS:     1234 kB".
    found = dict(re.findall(r"^(VmRSS|VmHWM|Threads):\s*(\d+)", status, re.MULTILINE))
    if len(found) < 3:  # a zombie has no memory
        return None
    resident_kib, peak_kib, threads = int(found["VmRSS"]), int(found["VmHWM"]), int(found["Threads"])
    return ProcessUse(resident_kib / 1024, peak_kib / 1024, threads, open_files)
