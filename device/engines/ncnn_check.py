"""Runs each .ncnn file once in a child process before it is loaded here.

ncnn trusts its files: a damaged or hostile graph crashes it, allocates all memory or never ends. The child process
(`ncnn_trial`) has bounded memory and time, so that such a file only causes an error message. A file that passed is not
run again: its hash is kept in this process and in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import edgekit
from edgekit.device.engines.ncnn_file import NcnnFile, pack_ncnn
from edgekit.downloads import UnavailableError, default_cache_dir
from edgekit.errors import InputError
from edgekit.text import one_line

# Address space of the child beyond what Python and ncnn take: activations, and the weights, which ncnn's Winograd
# convolutions store up to seven times as large (64 values for 9).
_MEMORY_BYTES = 256 << 20
_MEMORY_PER_WEIGHT_BYTE = 8
# A Pi 3B+ needs a few seconds to start Python.
TIMEOUT_S = 60.0

_TRIAL = "edgekit.device.engines.ncnn_trial"

# Part of the key of a file that passed; changes with what the trial checks.
_CHECKS = 3

_passed: set[str] = set()


def check_once(path: Path, file: NcnnFile, library_version: str) -> None:
    """Run a file in a child process, unless a file of the same content has passed before.

    Args:
        path: The file.
        file: Its content.
        library_version: Version of ncnn; a file is checked again with another version.

    Raises:
        InputError: The file crashes ncnn, exceeds the limits of memory or time, its output is not one value per
            label, or half floats change its results on this processor.
    """
    key = hashlib.sha256(f"{_CHECKS} {library_version} {file.sha256}".encode()).hexdigest()
    if key in _passed:
        return
    stamp = _stamp(key)
    with suppress(OSError):  # without a cache every process checks again
        if stamp is not None and stamp.exists():
            _passed.add(key)
            return
    _run(path, file)
    _passed.add(key)
    with suppress(OSError):
        if stamp is not None:
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.touch()


def _stamp(key: str) -> Path | None:
    """Return the file whose existence records that the check has passed; None without a home folder."""
    try:
        return default_cache_dir() / "ncnn-checked" / key
    except UnavailableError:
        return None


def _run(path: Path, file: NcnnFile) -> None:
    memory_bytes = _MEMORY_BYTES + _MEMORY_PER_WEIGHT_BYTE * len(file.weights)
    # The child reads the bytes that were read here: the file at `path` may change meanwhile.
    content = os.memfd_create("model")
    try:
        with open(content, "wb", closefd=False) as stream:
            stream.write(pack_ncnn(file.contract, file.graph, file.weights))
        _run_child(path, content, memory_bytes)
    finally:
        os.close(content)


def _run_child(path: Path, content: int, memory_bytes: int) -> None:
    home = str(Path(edgekit.__file__).parents[1])
    search_path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", _TRIAL, f"/proc/self/fd/{content}", str(memory_bytes)],
            env={**os.environ, "PYTHONPATH": search_path, "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # ncnn prints its own messages
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            start_new_session=True,
            pass_fds=(content,),
        )
    except subprocess.TimeoutExpired as error:
        raise refusal(path, f"one inference takes more than {TIMEOUT_S:g} s") from error
    if done.returncode < 0:
        raise refusal(path, f"it crashes ncnn ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        reason = one_line(done.stdout.strip())[:300]
        raise refusal(path, reason or f"a trial run ends with exit code {done.returncode}")


def refusal(path: Path, reason: str) -> InputError:
    """Return the error for a file that ncnn cannot run."""
    return InputError(f"model '{path}' cannot be run by ncnn: {reason}: export it again")
