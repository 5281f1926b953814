"""Memory settings of a run: few malloc arenas, and garbage collection only after the start."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from edgekit.cli.run.memory import RunMemory

# `count` prints the malloc arenas as XML after eight threads have allocated memory at the same time.
_COUNT = """
import ctypes, sys, threading
from edgekit.cli.run.memory import RunMemory
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(8)
def allocate():
    together.wait()
    ctypes.PyDLL(None).malloc(100_000)
def count():
    threads = [threading.Thread(target=allocate) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    stream = libc.fopen(b"/dev/stdout", b"w")
    libc.malloc_info(0, ctypes.c_void_p(stream))
    libc.fclose(ctypes.c_void_p(stream))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the arenas are those of glibc")
def test_threads_share_two_arenas() -> None:
    def arenas(body: str) -> int:
        done = subprocess.run([sys.executable, "-c", _COUNT + body], capture_output=True, text=True, check=True)
        return done.stdout.count("<heap nr=")

    assert arenas("count()") > 2
    assert arenas("with RunMemory(): count()") == 2


def test_the_collector_is_off_until_the_start_is_done() -> None:
    frozen = gc.get_freeze_count()
    try:
        with RunMemory() as memory:
            assert not gc.isenabled()
            memory.started()
            assert gc.isenabled()
            assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()


def test_the_collector_is_on_after_a_failed_start() -> None:
    with pytest.raises(ZeroDivisionError), RunMemory():
        raise ZeroDivisionError
    assert gc.isenabled()
