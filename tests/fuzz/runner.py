"""Runs seeded inputs through the targets, in a child process with limited memory, and reports wrong results.

    python -m tests.fuzz.runner [--seconds S | --count N] [--first SEED] [--target NAME]...

After S seconds, no further block of 50 seeds starts. A result is wrong if the target raises an exception that is not
edgekit's, raises an error of several lines, exceeds its time limit, or ends the child process. The output names target
and seed of each such input: `--target NAME --first SEED --count 1` repeats it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from edgekit.errors import EdgekitError
from tests.fuzz.targets import ROOT, TARGETS

# Maximum time without output of the child process: its imports, or an input that no signal ends.
_SILENCE_S = 240
_MEMORY_BYTES = 4 << 30
# The limit of elapsed time, as a multiple of that of processor time: other processes share the machine.
_WAITING_FACTOR = 4


@dataclass
class Outcome:
    """The number of inputs for each `TARGET RESULT`, and the error of each wrong input by `TARGET SEED`."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)


class _TooLongError(BaseException):
    """An input took longer than its target allows."""


def content_of(name: str, seed: int) -> bytes:
    """Return the input of a seed for a target."""
    return TARGETS[name].make(random.Random(f"{name} {seed}"))  # noqa: S311 (no secret)


def fuzz(names: list[str], first: int, count: int | None, seconds: float | None = None) -> Outcome:
    """Run `count` seeds per target, or as many as `seconds` allow, and restart the child process after a crash."""
    outcome, ends_s = Outcome(), None if seconds is None else time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="edgekit-fuzz-") as folder:
        position, last = first, None if count is None else first + count
        while (last is None or position < last) and (ends_s is None or time.monotonic() < ends_s):
            step = 50 if last is None else last - position
            inputs = [f"{name} {seed}" for seed in range(position, position + step) for name in names]
            while inputs:
                inputs = _run_child(Path(folder), inputs, outcome)
            position += step
    return outcome


def _run_child(folder: Path, inputs: list[str], outcome: Outcome) -> list[str]:
    """Run inputs in a child process; if an input ends the process, return the inputs after it."""
    done = 0
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.runner", "--child", str(folder), *inputs],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "XDG_CACHE_HOME": str(folder)},
        ) as child,
    ):
        # A timer kills the child process if no signal inside it ends an input.
        timer = threading.Timer(_SILENCE_S, child.kill)
        timer.start()
        for line in child.stdout:
            if not line.startswith("{"):
                continue  # a library printed it
            timer.cancel()
            timer = threading.Timer(_SILENCE_S, child.kill)
            timer.start()
            result = json.loads(line)
            outcome.counts[f"{inputs[done].split()[0]} {result['result']}"] += 1
            if result["result"] == "wrong":
                outcome.wrong[inputs[done]] = result["text"]
            done += 1
        timer.cancel()
        code = child.wait()
        errors.seek(0)
        last = errors.read()[-300:].strip()
    if done == len(inputs):
        return []
    outcome.counts[f"{inputs[done].split()[0]} wrong"] += 1
    outcome.wrong[inputs[done]] = f"the process ended with {code}: {last}"
    return inputs[done + 1 :]


def _child(folder: Path, inputs: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _stop)
    signal.signal(signal.SIGPROF, _stop)
    limited = False
    for line in inputs:
        name, seed = line.split()
        content = content_of(name, int(seed))
        if not limited:  # after the first imports
            used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used_bytes + _MEMORY_BYTES,) * 2)
            limited = True
        result, text = "read", ""
        signal.setitimer(signal.ITIMER_PROF, TARGETS[name].limit_s)
        signal.alarm(_WAITING_FACTOR * TARGETS[name].limit_s)
        try:
            _read(name, content, folder)
        except EdgekitError as error:
            result, text = "refused", str(error)
            if "\n" in text:
                result = "wrong"
        except MemoryError:
            result = "refused"
        except BaseException as error:
            result, text = "wrong", f"{type(error).__name__}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
        print(json.dumps({"result": result, "text": text[:500]}), flush=True)
    os._exit(0)


def _read(name: str, content: bytes, folder: Path) -> None:
    target = TARGETS[name]
    path = folder / f"input{target.suffix}"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    target.read(path)


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _TooLongError("too long")


def _lines(outcome: Outcome, names: list[str]) -> Iterator[str]:
    for name in names:
        counts = {result: outcome.counts[f"{name} {result}"] for result in ("read", "refused", "wrong")}
        yield f"{name:15} {sum(counts.values()):7} inputs: " + ", ".join(f"{n} {what}" for what, n in counts.items())
    for at, text in outcome.wrong.items():
        yield f"WRONG {at}: {text}"


def main() -> int:
    """Run the program and return its exit code: 1 if a result was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("inputs", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--count", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    given = parser.parse_args()
    if given.child is not None:
        _child(given.child, given.inputs)
    names = given.target or list(TARGETS)
    outcome = fuzz(names, given.first, given.count if given.count or given.seconds else 100, given.seconds)
    print("\n".join(_lines(outcome, names)))
    return int(bool(outcome.wrong))


if __name__ == "__main__":
    sys.exit(main())
