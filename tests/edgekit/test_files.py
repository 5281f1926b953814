"""Locks on the names of output files, and atomic writes, which replace no pipe or device."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.errors import InputError, TemporaryError
from edgekit.files import check_writable, exclusive_file, require_file, write_atomic


def test_a_name_is_locked_until_the_block_ends_and_no_lock_is_left(tmp_path: Path) -> None:
    target = tmp_path / "new" / "r.jsonl"
    with exclusive_file(target):
        with (
            pytest.raises(TemporaryError, match=r"another process is writing to .*/new/r\.jsonl'"),
            exclusive_file(target),
        ):
            pass
        with exclusive_file(target.with_name("other.jsonl")):
            pass
    assert list(tmp_path.iterdir()) == [], "an empty folder that was made for the lock is removed"
    with exclusive_file(target):
        target.write_text("1\n")
    assert [path.name for path in target.parent.iterdir()] == ["r.jsonl"]


def test_pipes_and_devices_are_not_locked(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", Path("/dev/null")):
        with exclusive_file(target), exclusive_file(target):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("write", [lambda path: write_atomic(path, "x"), check_writable], ids=["write", "check"])
def test_a_pipe_or_a_device_is_refused_and_stays(tmp_path: Path, write: Callable[[Path], None]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match=r"pipe' is a pipe or a device: name a file"):
        write(pipe)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_file_in_a_folder_without_permission_is_named_with_the_cause(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # root may read every folder
        with pytest.raises(InputError, match=r"Permission denied: check .*permissions"):
            require_file(locked / "model.onnx", "model")
    finally:
        os.seteuid(user)


def test_names_that_lead_to_no_file_are_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    (tmp_path / "file").touch()
    for name in ("loop", "file/inside", "missing", "x" * 300, "nul\0", "."):
        with pytest.raises(InputError) as error:
            require_file(tmp_path / name, "model")
        assert "[Errno" not in str(error.value)
