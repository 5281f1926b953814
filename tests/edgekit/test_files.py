"""Locks on the names of output files, and atomic writes, which replace no pipe or device."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import InputError, StorageError, TemporaryError
from edgekit.files import atomic_path, check_writable, exclusive_file, require_file, write_atomic


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


def test_a_lock_outlasts_the_file_and_ends_without_a_trace_when_its_folder_is_deleted(tmp_path: Path) -> None:
    target = tmp_path / "out" / "r.jsonl"
    with exclusive_file(target):
        target.write_text("1\n")
        target.rename(target.with_name("r.1.jsonl"))
        with pytest.raises(TemporaryError), exclusive_file(target):
            pass
        target.parent.rename(tmp_path / "moved")
        with exclusive_file(target):
            (tmp_path / "moved").rename(tmp_path / "moved again")
    assert not target.parent.exists()


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


def test_ctrl_c_while_the_temporary_file_is_created_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = os.open

    def interrupted(*arguments: Any) -> int:
        os.close(create(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "model.onnx"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_is_written_although_its_folder_is_moved_before_the_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.replace

    def rename_and_move_folder(path: Path, target: Path) -> None:
        rename(path, target)
        target.parent.rename(tmp_path / "moved")

    monkeypatch.setattr(Path, "replace", rename_and_move_folder)
    write_atomic(tmp_path / "folder/file", "content")
    assert (tmp_path / "moved/file").read_text() == "content"


def test_a_file_whose_folder_is_moved_before_the_rename_is_not_written(tmp_path: Path) -> None:
    def write_and_move_folder() -> None:
        with atomic_path(tmp_path / "folder/file") as temporary:
            temporary.write_text("content")
            temporary.parent.rename(tmp_path / "moved")

    with pytest.raises(StorageError):
        write_and_move_folder()
    assert not (tmp_path / "moved/file").exists()


def test_a_file_is_written_while_another_process_looks_whether_it_is_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`remove_leftovers` gets the lock just after the temporary file was created, and removes the file."""
    create = os.open
    other: list[int] = []

    def looked_at(path: Path, flags: int, *mode: int) -> int:
        handle = create(path, flags, *mode)
        if flags & os.O_EXCL:
            other.append(create(path, os.O_RDONLY))
            fcntl.flock(other[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        return handle

    monkeypatch.setattr(os, "open", looked_at)
    write_atomic(tmp_path / "model.onnx", "x")
    os.close(other[0])
    assert [path.read_text() for path in tmp_path.iterdir()] == ["x"]


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
