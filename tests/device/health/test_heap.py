"""Free memory between allocated pieces is returned to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Keeps every seventh of many small objects, and prints the resident memory before and after some samples.
_FRAGMENTED = """
from edgekit.device.health.heap import HeapTrimmer
from edgekit.device.procfs import read_process
import os
def resident(): return read_process(os.getpid()).resident_mib
watch = HeapTrimmer()
pieces = [bytes(5000 + number % 3000) for number in range(20_000)]
kept = pieces[::7]
del pieces
print(resident())
for _ in range(59): watch(None)
print(resident())
watch(None)
print(resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the heap is that of glibc")
def test_the_heap_is_trimmed_with_every_sixtieth_sample() -> None:
    done = subprocess.run([sys.executable, "-c", _FRAGMENTED], capture_output=True, text=True, check=True)
    before, waiting, trimmed = map(float, done.stdout.split())
    assert waiting > before - 5
    assert trimmed < before - 50
