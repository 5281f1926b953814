"""`edgekit doctor --host` on emulated boards with planted faults: the output has each fault and its cure."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .board import VirtualPi
from .conftest import EdgekitRun, prepared
from .system import PYTHONS

DISK_MIB, FREE_MIB = 200, 10

# `sdot v0.4s, v1.16b, v2.16b` belongs to the dot product extension, which a Cortex-A53 lacks. A correct library reads
# the features of the processor before it uses the instruction. This code does not, like some faulty libraries.
ILLEGAL = """
import ctypes, mmap
memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(bytes.fromhex("2094824e") + bytes.fromhex("c0035fd6"))
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
"""

Findings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Planted:
    """The finding of a planted fault: its check and status, and patterns of its text and cure."""

    check: str
    status: str
    text: str
    cure: str


# Faults of a board's files alone are replayed in tests/edgekit/doctor.
FAULTS = (
    Planted("onnxruntime", "fault", "1.99.0 crashes with an illegal instruction", "pip install .*!=1.99.0"),
    Planted("numpy", "fault", "cannot be imported: .", "pip install --force-reinstall numpy"),
    Planted("opencv", "fault", "overwrite each other", "pip uninstall -y opencv-python.*headless"),
    Planted("camera in use", "warning", r"used by \S+ \(pid [0-9]+\) /dev/video0", "kill [0-9]+"),
    Planted("disk", "fault", ": full", "sudo apt clean"),
)


def findings(edgekit: EdgekitRun, pi: VirtualPi, codes: tuple[int, ...] = (1,)) -> Findings:
    done = edgekit("doctor", "--json", *pi.arguments)
    assert done.returncode in codes, done.stderr
    (host,) = json.loads(done.stdout)["hosts"]
    assert host["error"] is None
    return {finding["check"]: finding for finding in host["findings"]}


@pytest.fixture
def small_pi(suite: str, tmp_path: Path) -> Iterator[VirtualPi]:
    """A board with a small disk, not booted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    board = VirtualPi(tmp_path / "small", suite, disk)
    with ExitStack() as stack:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", disk], capture_output=True
        )
        if mounted.returncode:
            pytest.skip("no disk can be mounted here")
        stack.callback(subprocess.run, ["umount", "--lazy", disk], check=True)
        yield prepared(board)


@contextmanager
def held_camera(pi: VirtualPi) -> Iterator[None]:
    """Run a program on the board that holds the camera open."""
    # The doctor identifies cameras by the names of their nodes.
    (pi.live("dev") / "video0").write_bytes(b"")
    command = pi.ssh("exec 3</dev/video0; echo held; exec sleep 3600")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.kill()


def plant_packages(pi: VirtualPi, suite: str) -> None:
    packages = f"usr/local/lib/python{PYTHONS[suite]}/dist-packages"
    pi.plant(f"{packages}/onnxruntime/__init__.py", ILLEGAL)
    for name in ("onnxruntime", "opencv-python", "opencv-python-headless"):
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.99.0\n"
        pi.plant(f"{packages}/{name.replace('-', '_')}-1.99.0.dist-info/METADATA", about)
    # numpy of this machine: built for another processor, and usually for another Python.
    import numpy

    shutil.copytree(
        Path(numpy.__file__).parent,
        pi.path(f"{packages}/numpy"),
        ignore=shutil.ignore_patterns("tests", "__pycache__", "*.a", "*.pyi", "include"),
    )


def test_every_planted_fault_is_named_with_what_mends_it(
    small_pi: VirtualPi, pi: VirtualPi, edgekit: EdgekitRun, suite: str
) -> None:
    plant_packages(small_pi, suite)
    room = os.statvfs(small_pi.path(""))
    with small_pi.path("filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, room.f_bavail * room.f_frsize - (FREE_MIB << 20))
    with small_pi, held_camera(small_pi):
        faulty = findings(edgekit, small_pi)
    well = findings(edgekit, pi, codes=(0, 1))  # numpy is missing unless a benchmark has installed it
    for fault in FAULTS:
        found = faulty[fault.check]
        assert found["status"] == fault.status, found
        assert re.search(fault.text, found["text"]), found
        assert re.search(fault.cure, found["cure"]), found
        # The board without planted faults has no such finding.
        assert not re.search(fault.text, well.get(fault.check, {"text": ""})["text"]), well
    assert not [found for found in faulty.values() if "check failed" in found["text"]]


def test_a_board_without_python_is_an_error_with_the_cure(fresh_pi: VirtualPi, edgekit: EdgekitRun) -> None:
    fresh_pi.plant("usr/local/bin/python3", "#!/bin/sh\nexit 127\n")
    with fresh_pi:
        done = edgekit("doctor", *fresh_pi.arguments)
    assert (done.returncode, "sudo apt install python3" in done.stderr) == (4, True), done.stderr
