"""Every sink that writes files, with every fault of disks: every loss is counted."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgekit.device.sink import Sink
from edgekit.device.sinks.context import Account
from tests.faults.disks import FAULTS, Disk, fuse_disk, tmpfs
from tests.faults.sinks import SINKS, SinkCase, quicken
from tests.waiting import wait_until

NUMBERS = itertools.count()
PATIENCE_S = 60.0
PAIRS = list(itertools.product(SINKS, FAULTS))
# The other errors of an operation differ only in the reason.
UNTIL_END = [(case, fault) for case, fault in PAIRS if fault.reason in ("disk full", "disk too slow")]


@pytest.fixture(scope="module")
def fuse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The folder and the control file of a FUSE disk."""
    with fuse_disk(tmp_path_factory.mktemp("fuse") / "fuse") as mounted:
        yield mounted


@pytest.fixture
def make_disk(request, tmp_path) -> Iterator[Callable[..., Disk]]:
    """Return a function that makes the disk for a fault."""
    with ExitStack() as mounted:

        def make(kind: str) -> Disk:
            if kind == "tmpfs":
                return Disk(mounted.enter_context(tmpfs(tmp_path / "disk")))
            root, control = request.getfixturevalue("fuse")
            disk = Disk(root / f"{next(NUMBERS)}", control)
            mounted.callback(disk.fail, "")
            return disk

        yield make


class Writing:
    """Passes frames to a sink like a camera."""

    def __init__(self, case: SinkCase, sink: Sink, feed) -> None:
        self.case, self.sink, self.feed = case, sink, feed

    def frames(self, count: int) -> None:
        for _ in range(count):
            frame, result = self.feed.next("happy")
            self.case.write(self.sink, frame, result)
            time.sleep(0.002)

    def until(self, condition: Callable[[], object]) -> None:
        def write_and_check() -> object:
            self.frames(5)
            return condition()

        wait_until(write_and_check)


def check(case: SinkCase, account: Account, disk: Disk, frames: int) -> None:
    """Compare the account with the frames that were written and with the disk."""
    counts = account.as_document()
    lost = sum(counts["dropped"].values())
    assert counts["produced"] == frames == counts["written"] + lost + counts["waiting"]
    assert counts["waiting"] == 0 or case.counted_as == "waiting"
    if case.stored is not None:
        stored = case.stored(disk.out)
        # A fault that begins within a write and lasts leaves lines that cannot be removed: they are written again, or
        # stand although they count as dropped.
        if disk.can_fail_within_writes:
            assert len(stored) >= counts[case.counted_as]
        else:
            assert len(stored) == counts[case.counted_as]
            assert set(stored.values()) <= {1}, "nothing is stored twice"


@pytest.mark.parametrize(("case", "fault"), PAIRS, ids=lambda each: each.name)
def test_a_sink_continues_after_a_fault_and_counts_its_losses(case, fault, make_disk, feed, notices, monkeypatch):
    quicken(monkeypatch)
    disk = make_disk(fault.disk)
    sink, account = case.open(disk.out, notices.append, PATIENCE_S)
    with sink:
        writing = Writing(case, sink, feed)
        writing.until(disk.files)
        fault.begin(disk)
        if fault.reason == "disk too slow":
            writing.frames(200)
        else:
            writing.until(lambda: notices)
        writing.frames(100)
        assert len(notices) <= 1, "a fault is reported in one line"
        fault.end(disk)
        before = account.as_document()["written"]
        writing.frames(20)
        if case.counted_as == "written":
            writing.until(lambda: account.as_document()["written"] > before + 10)
    check(case, account, disk, feed.sequence)


@pytest.mark.parametrize(("case", "fault"), UNTIL_END, ids=lambda each: each.name)
def test_the_losses_of_a_fault_until_the_end_of_the_run_are_counted(case, fault, make_disk, feed, notices, monkeypatch):
    stalls = fault.reason == "disk too slow"
    quicken(monkeypatch)
    disk = make_disk(fault.disk)
    sink, account = case.open(disk.out, notices.append, 0.5 if stalls else PATIENCE_S)
    with sink:
        writing = Writing(case, sink, feed)
        writing.until(disk.files)
        fault.begin(disk)
        writing.frames(50)
    counts = account.as_document()
    fault.end(disk)
    assert sum(counts["dropped"].values()) > 0
    if stalls:
        # The stalled write succeeds after the run has counted it as lost.
        assert counts["produced"] == feed.sequence
        # The thread that waited for the disk ends, and its file is closed.
        sink.__exit__(None, None, None)
    else:
        assert (case.reason or fault.reason) in counts["dropped"]
        check(case, account, disk, feed.sequence)
