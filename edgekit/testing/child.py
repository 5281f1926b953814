"""Program of the checks in `processes`: `python -m edgekit.testing.child ENGINE MODEL damaged|release|loop [FILE...]`.

It prints one line of JSON for each damaged file, for "release" one with the resources before and after, for "loop" one
line after the first inference.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.device.procfs import read_process
from edgekit.errors import EXIT_INTERRUPTED, EXIT_OK
from edgekit.testing.subject import Subject

_OPENINGS = 20
# Libraries fill their caches in the first ones.
_FIRST_OPENINGS = 5
# Threads of a library end a moment after the engine that they belong to.
_SETTLE_S = 5.0


def main(engine: str, model: Path, mode: str, files: list[str]) -> int:
    """Run one check and return the exit code."""
    subject = Subject(engine, model, model)
    if mode == "damaged":
        for file in files:
            print(json.dumps(_load(subject, Path(file))), flush=True)
    elif mode == "release":
        _use(subject, _FIRST_OPENINGS)
        before = _resources()
        _use(subject, _OPENINGS)
        after = _settled(before)
        print(json.dumps({"openings": _OPENINGS, **{name: (before[name], after[name]) for name in before}}))
    else:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            loaded, images = subject.open(), subject.images
            loaded.infer(images)
            print("ready", flush=True)
            while True:
                loaded.infer(images)
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
    return EXIT_OK


def _load(subject: Subject, path: Path) -> dict[str, Any]:
    try:
        subject.open(path=path)
    except Exception as error:  # which exception it is, is what is tested
        return {"raised": type(error).__name__, "text": str(error)}
    return {"raised": None, "text": ""}


def _use(subject: Subject, times: int) -> None:
    images = subject.images[:2]
    for _ in range(times):
        np.asarray(subject.open(2).infer(images))
    gc.collect()


def _settled(before: dict[str, int]) -> dict[str, int]:
    """Return the resources when no more files and threads are open than before, or after some seconds."""
    end_s = time.monotonic() + _SETTLE_S
    while True:
        after = _resources()
        if all(after[what] <= before[what] for what in ("files", "threads")) or time.monotonic() >= end_s:
            return after
        time.sleep(0.05)


def _resources() -> dict[str, int]:
    use = read_process()
    assert use is not None
    return {"files": use.open_files, "threads": use.threads, "memory_kib": round(use.resident_mib * 1024)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4:]))
