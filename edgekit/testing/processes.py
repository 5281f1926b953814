"""Checks of engines that need a process of their own: damaged files, release of resources, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.errors import EXIT_INTERRUPTED
from edgekit.testing.subject import Subject

# Long for a Raspberry Pi that loads a model; an engine that takes longer hangs.
_TIMEOUT_S = 300
_INTERRUPTION_S = 10


def check_damaged_files(subject: Subject) -> str:
    """A damaged, empty or missing file is an InputError of one line that names the file, and never a crash."""
    with tempfile.TemporaryDirectory(prefix="edgekit-testing-") as folder:
        files = _damaged(subject.model, Path(folder))
        with _child(subject, "damaged", *map(str, files)) as child:
            out, err = _output(child)
    results = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    for path, result in zip(files, results, strict=False):
        what = f"the file '{path.stem}'"
        if result["raised"] is None:
            raise AssertionError(f"{what} is loaded without an error")
        if result["raised"] != "InputError":
            raise AssertionError(f"{what} raises {result['raised']} ({result['text']}): expected InputError")
        if path.name not in result["text"] or "\n" in result["text"]:
            raise AssertionError(f"the error of {what} is not one line with its name: {result['text']!r}")
    if len(results) < len(files):
        last = (err.strip().splitlines() or ["no message"])[-1]
        raise AssertionError(f"the file '{files[len(results)].stem}' ends the process ({child.returncode}): {last}")
    return ", ".join(path.stem for path in files)


def check_release(subject: Subject) -> str:
    """An engine that is out of use leaves no file, thread or memory behind."""
    with _child(subject, "release") as child:
        out, err = _output(child)
    if child.returncode:
        raise AssertionError(f"the process ends with {child.returncode}: {(err.strip().splitlines() or [''])[-1]}")
    found = json.loads(out.splitlines()[-1])
    for what in ("files", "threads"):
        before, after = found[what]
        if after > before:
            raise AssertionError(f"{found['openings']} loaded engines leave {after - before} {what} open")
    before_kib, after_kib = found["memory_kib"]
    # Half of the file for each opening is a leak; allocators keep a few megabytes.
    allowed_kib = max(8 << 10, found["openings"] * subject.model.stat().st_size // 2 >> 10)
    if after_kib - before_kib > allowed_kib:
        raise AssertionError(f"{found['openings']} loaded engines leave {after_kib - before_kib} KiB of memory in use")
    return f"{found['openings']} loaded engines, {max(after_kib - before_kib, 0)} KiB more memory than before"


def check_interruption(subject: Subject) -> str:
    """Ctrl-C ends a program that runs inferences one after the other, by KeyboardInterrupt."""
    with _child(subject, "loop") as child:
        assert child.stdout is not None
        if child.stdout.readline().strip() != "ready":
            raise AssertionError(f"the first inference fails: {_output(child)[1][-300:]}")
        child.send_signal(signal.SIGINT)
        try:
            _, err = child.communicate(timeout=_INTERRUPTION_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the program still runs {_INTERRUPTION_S} s after Ctrl-C") from None
    if child.returncode != EXIT_INTERRUPTED:
        raise AssertionError(f"Ctrl-C ends the program with {child.returncode}: {err[-300:]}")
    return "Ctrl-C raises KeyboardInterrupt"


def _output(child: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return child.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"the engine does not return within {_TIMEOUT_S} s") from None


def _damaged(model: Path, folder: Path) -> list[Path]:
    """Write damaged copies of a model; return their paths and that of a missing file."""
    content = model.read_bytes()
    contents = {
        "empty": b"",
        "quarter": content[: len(content) // 4],
        "half": content[: len(content) // 2],
        "cut": content[:-1],
        "zeros": bytes(len(content)),
        "text": b"no model\n",
    }
    paths = []
    for name, damaged in contents.items():
        paths.append(folder / f"{name}{model.suffix}")
        paths[-1].write_bytes(damaged)
    return [*paths, folder / f"missing{model.suffix}"]


@contextmanager
def _child(subject: Subject, mode: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `edgekit.testing.child` with the modules that this process finds; the process is ended with the block."""
    command = [sys.executable, "-m", "edgekit.testing.child", subject.engine, str(subject.model), mode, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as child:
        try:
            yield child
        except BaseException:
            child.kill()
            raise
