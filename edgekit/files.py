"""Atomic file writing: files are written under a temporary name, synced to disk and renamed."""

from __future__ import annotations

import fcntl
import glob
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit.errors import InputError, StorageError, TemporaryError

FSTAB = Path("/etc/fstab")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target` and rename it to `target` when the block succeeds.

    If the block raises, Ctrl-C included, the temporary file is removed and `target` is unchanged.

    Args:
        target: File to create or replace. Its folder is created. The temporary name has the same suffix, because some
            writers derive the format from it.

    Raises:
        InputError: `target` is a folder, a pipe or a device.
        StorageError: The folder cannot be created or written.

    >>> with atomic_path(Path("model.onnx")) as temporary:
    ...     onnx.save(model, temporary)
    """
    _check_replaceable(target)
    temporary = target.parent / f"{_hidden_prefix(target)}{os.urandom(4).hex()}{target.suffix}"
    handle = -1  # not open yet
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        # While the file is locked, `remove_leftovers` of another process does not delete it.
        with suppress(BlockingIOError):  # `remove_leftovers` may hold the lock for a moment, to try it
            lock_file(handle)
        yield temporary
        sync(temporary)
        temporary.replace(target)
        with suppress(OSError):  # the file is in place; its folder may have been moved or deleted since
            sync(target.parent)
    except OSError as error:
        # The file could not even be created: the folder is the cause.
        cure = ": choose another place" if handle < 0 else ""
        raise StorageError(f"cannot write '{target}': {error.strerror or error}{cure}") from error
    finally:
        # Also without a handle: Ctrl-C can arrive after the file was created, and before `handle` is set.
        with suppress(OSError):
            temporary.unlink()
        if handle >= 0:
            os.close(handle)


def check_writable(target: Path) -> None:
    """Check before long work that `target` can be written; nothing is created.

    Raises:
        InputError: `target` is a folder, a pipe or a device.
        StorageError: Its folder, or the nearest existing parent, cannot be written.
    """
    import tempfile

    _check_replaceable(target)
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"cannot write '{target}': {error.strerror}: choose another place") from error


def check_replaces_none(target: Path, inputs: Iterable[Path]) -> None:
    """Check that writing `target` does not replace one of the files that are read; links are followed.

    Raises:
        InputError: `target` is one of `inputs`.
    """
    if target.exists() and any(path.exists() and target.samefile(path) for path in inputs):
        raise InputError(f"output '{target}' is an input of this command: choose another file")


def _check_replaceable(target: Path) -> None:
    if target.is_dir():
        raise InputError(f"'{target}' is a folder: name a file")
    # Root may replace /dev/null by a file, and then the whole system writes to it.
    if target.exists() and not target.is_file():
        raise InputError(f"'{target}' is a pipe or a device: name a file")


def remove_leftovers(target: Path) -> None:
    """Remove temporary files of `atomic_path` for `target` that were left by killed processes.

    Files that a process is still writing are kept. On file systems without locks all files are kept.
    """
    _remove_unlocked(target.parent, f"{glob.escape(_hidden_prefix(target))}????????{glob.escape(target.suffix)}")


def remove_folder_leftovers(folder: Path, suffix: str) -> None:
    """Remove files as `remove_leftovers`, for all targets of a folder with names that end in `suffix`."""
    # The names that `atomic_path` makes: target, eight random digits, suffix.
    _remove_unlocked(folder, f".*{suffix}.{'[0-9a-f]' * 8}{suffix}")


def _remove_unlocked(folder: Path, pattern: str) -> None:
    """Delete the files of a folder whose names match, except those that a process has locked."""
    for path in folder.glob(pattern):
        with suppress(OSError), path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def write_atomic(target: Path, content: bytes | str) -> None:
    """Write `content` to `target` atomically.

    Raises:
        InputError: As `atomic_path`.
        StorageError: As `atomic_path`.
    """
    data = content.encode() if isinstance(content, str) else content
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_all(write: Callable[[memoryview], int], data: bytes) -> None:
    """Write all of `data` with `write`, which may write only a part of its argument and returns the size of this part.

    Raises:
        OSError: `write` has failed; a part may be written.
    """
    rest = memoryview(data)
    while rest:
        written_bytes = write(rest)
        rest = rest[written_bytes:]


def append_line(path: Path, line: bytes) -> None:
    """Append a line completely or not at all.

    If a power cut has left a partial line at the end of the file, the new line begins after a line break.

    Raises:
        StorageError: The line cannot be written.
    """
    try:
        with path.open("ab+", buffering=0) as stream:  # "a": writes at the end, wherever it has read
            end = stream.seek(0, os.SEEK_END)
            if end > 0:
                stream.seek(end - 1)
                if stream.read(1) != b"\n":
                    line = b"\n" + line
            try:
                write_all(stream.write, line)
            except OSError:
                stream.truncate(end)
                raise
    except OSError as error:
        raise StorageError(f"cannot write '{path}': {error.strerror or error}") from error


@contextmanager
def exclusive_folder(folder: Path) -> Iterator[None]:
    """Create `folder` if it does not exist, and lock it against other processes for the duration of the block.

    If the block raises, a folder that was created here and is still empty is removed.

    Raises:
        TemporaryError: Another process has locked the folder.
        OSError: The folder cannot be created.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            lock_file(handle)
        except BlockingIOError as error:
            raise TemporaryError(
                f"another process is writing to '{folder}': wait for it or name another folder"
            ) from error
        try:
            yield
        except BaseException:
            if is_new:
                with suppress(OSError):
                    folder.rmdir()  # fails unless it is empty
            raise
    finally:
        os.close(handle)


@contextmanager
def exclusive_file(target: Path, folder: Path | None = None) -> Iterator[None]:
    """Lock the name of an output file against other processes for the duration of the block.

    With `folder`, the lock of the file `target` stands for all files of this folder, and the error names the folder.

    What is locked is a file beside `target`, `.NAME.lock`, because `target` itself may be renamed or deleted meanwhile.
    The kernel releases the lock when the process ends, however it ends. Pipes and devices are not locked, nor are files
    in folders that cannot be written. Missing folders are created, and removed at the end if they are still empty.

    Raises:
        TemporaryError: Another process has locked the name.
    """
    target = real_path(target)
    lock_path = target.with_name(f"{_hidden_prefix(target)}lock")
    created_folders: list[Path] = []
    handle = None
    try:
        if target.is_file() or not target.exists():  # it is no pipe or device
            # `_open_locked` creates them. The innermost is the first, as their removal needs it.
            created_folders = [parent for parent in target.parents if not parent.exists()]
            handle = _open_locked(lock_path)
    except BlockingIOError as error:
        place, kind = (target, "file") if folder is None else (real_path(folder), "folder")
        raise TemporaryError(f"another process is writing to '{place}': wait for it or name another {kind}") from error
    except OSError:
        pass  # writing to the folder reports the reason
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                if is_at(lock_path, handle):  # its folder may have been moved or deleted meanwhile
                    lock_path.unlink()
                for created in created_folders:
                    created.rmdir()  # fails unless it is empty
            os.close(handle)


def _open_locked(path: Path) -> int:
    """Create or open a file, lock it and return its handle; raises BlockingIOError as `lock_file`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
        try:
            lock_file(handle)
            # The process that held the lock may have deleted the file in between.
            if is_at(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def is_at(path: Path, handle: int) -> bool:
    """Return whether `path` leads to the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except (FileNotFoundError, NotADirectoryError):
        return False


def check_mounted(path: Path) -> None:
    """Check that the disk of `path` is mounted, if it is a disk of /etc/fstab.

    Raises:
        TemporaryError: It is not: a file would be written to the disk below the mount point.
    """
    with suppress(OSError):
        for line in FSTAB.read_text(errors="replace").splitlines():
            # The fields are device, mount point, type and options; \040 stands for a space.
            fields = line.split("#")[0].split()
            if len(fields) > 1 and fields[1].startswith("/"):  # the mount point of swap space is "none"
                mount_point = Path(fields[1].replace("\\040", " "))
                if real_path(path).is_relative_to(mount_point) and not mount_point.is_mount():
                    raise TemporaryError(f"'{path}': the disk of '{mount_point}' is not mounted: connect it")


def lock_file(handle: int) -> None:
    """Lock an open file or folder.

    Raises:
        BlockingIOError: Another process has locked it.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass  # a network file system without locks


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 as 64 hexadecimal digits."""
    import hashlib

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_file(path: Path, what: str) -> Path:
    """Return `path` if it is a readable file; `what` is its role in the error message, such as "model".

    Raises:
        InputError: The file is missing, not a regular file, or unreadable.
        TemporaryError: It is on a disk that is not mounted.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        check_mounted(path)
        raise InputError(f"{what} '{path}' does not exist: check the path") from error
    except OSError as error:  # a folder without permission, or a name that is too long
        cure = "check the path and the permissions of its folders"
        raise InputError(f"{what} '{str(path)[:100]}' cannot be read: {error.strerror}: {cure}") from error
    except ValueError as error:
        raise InputError(f"{what} '{str(path)[:100]}' is not a file name: it contains NUL") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{what} '{path}' is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{what} '{path}' is a pipe or a device, not a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{what} '{path}' cannot be read: check its permissions")
    return path


def real_path(path: Path) -> Path:
    """Return the absolute path without symbolic links; links in a circle and names that do not exist stay.

    `Path.resolve` raises RuntimeError for links in a circle.
    """
    return Path(os.path.realpath(path))


def sync(path: Path) -> None:
    """Write a file's content, or a folder's entries, to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems do not support fsync of a folder
            raise
    finally:
        os.close(handle)


def _hidden_prefix(target: Path) -> str:
    """Return how the names of the hidden files beside `target` begin."""
    return f".{target.name[:100]}."
