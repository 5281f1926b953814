"""Measures one cell in its own process: `python -m edgekit.device.benchmark.worker`.

The program reads a `Job` from stdin and writes a `Run` or a `Failure` as JSON to stdout.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import msgspec

from edgekit.device.benchmark.jobs import Job
from edgekit.device.benchmark.measure import Run, measure
from edgekit.errors import EdgekitError

_PR_SET_PDEATHSIG = 1


class Failure(msgspec.Struct, frozen=True, tag=True):
    """Why a job cannot be measured, with the exit code of the error."""

    error: str
    exit_code: int = 1


def main() -> int:
    """Measure the job on stdin and write the result to stdout; the exit code is 0 unless the process crashes."""
    # The kernel ends this process when the one that started it is killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Libraries may print on stdout; the result has its own descriptor.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job = Job.from_json(sys.stdin.buffer.read())
    result: Run | Failure
    try:
        result = measure(job)
    except EdgekitError as error:
        result = Failure(str(error), error.exit_code)
    except MemoryError:
        result = Failure(f"not enough memory to measure '{job.cell.model}': close other programs")
    channel.write(msgspec.json.encode(result))
    channel.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
