"""One thread instead of several if other programs use the processor's cores, decided once per training."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch

from edgekit.device.benchmark.measure import OtherLoad
from edgekit.models.callbacks import Notify

_MEASURE_S = 5.0
# Share of all cores that other programs may use without a warning.
_TOLERATED = 0.25


def with_thread_choice(
    on_step: Callable[[Any], None] | None,
    notify: Notify,
    threads: int | None,
    make_load: Callable[[], OtherLoad] = OtherLoad,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[Any], None]:
    """Return `on_step` with a measurement of the other programs' load over the first five seconds of steps.

    On busy cores, torch continues with one thread: several threads wait for each other. `threads` is the user's number
    of threads, which stays.
    """
    load: OtherLoad | None = None
    started_s: float | None = None

    def call(report: Any) -> None:
        nonlocal load, started_s
        if started_s is None:
            load, started_s = make_load(), clock()
        elif load is not None and clock() - started_s >= _MEASURE_S:
            others, cores = load.processors() or 0.0, os.cpu_count() or 1
            load = None
            if others > _TOLERATED * cores:
                chosen = "" if threads or torch.get_num_threads() == 1 else " and continues with one thread"
                if chosen:
                    torch.set_num_threads(1)
                notify(
                    f"other programs use {others:.1f} of {cores} cores: the training is slower than it could be{chosen}"
                )
        if on_step:
            on_step(report)

    return call
