"""Files that are either whole or not there: written under a temporary name, synced, renamed."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit.errors import InputError, StorageError

_CHUNK_BYTES = 1 << 20


@contextmanager
def atomic_path(target: Path, suffix: str | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `target` and rename it to `target` when the block succeeds.

    When the block raises (Ctrl-C included) the temporary file is removed and `target` is left as it was.

    Args:
        target: The file to create or replace. Its folder is created.
        suffix: Ending of the temporary name, for writers that look at it; default: that of `target`.

    Raises:
        InputError: `target` is a folder.
        StorageError: The folder cannot be created or written.
    """
    if target.is_dir():
        raise InputError(f"'{target}' is a folder: name a file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=_prefix(target), suffix=target.suffix if suffix is None else suffix
        )
    except OSError as error:
        raise StorageError(f"cannot write '{target}': {error.strerror}: choose another place") from error
    temporary = Path(name)
    try:
        # Held for as long as this process writes: see remove_leftovers.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield temporary
        _match_umask(temporary)
        sync(temporary)
        temporary.replace(target)
        sync(target.parent)
    except OSError as error:
        raise StorageError(f"cannot write '{target}': {error.strerror or error}") from error
    finally:
        os.close(handle)
        with suppress(FileNotFoundError):
            temporary.unlink()


def check_writable(target: Path) -> None:
    """Find out before long work whether `target` can be written after it; creates nothing.

    Raises:
        InputError: `target` is a folder.
        StorageError: Its folder, or the one that this would be created in, cannot be written.
    """
    if target.is_dir():
        raise InputError(f"'{target}' is a folder: name a file")
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"cannot write '{target}': {error.strerror}: choose another place") from error


def remove_leftovers(target: Path) -> None:
    """Remove what killed processes had begun to write for `target` with `atomic_path`.

    What a process still writes stays, and so does everything where files cannot be locked.
    """
    for path in target.parent.glob(f"{glob.escape(_prefix(target))}????????{glob.escape(target.suffix)}"):
        with suppress(OSError), path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def write_atomic(target: Path, content: bytes | str) -> None:
    """Write `content` to `target` so that no reader ever sees half of it.

    Raises:
        StorageError: As `atomic_path`.
    """
    data = content.encode() if isinstance(content, str) else content
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


@contextmanager
def folder_to_oneself(folder: Path) -> Iterator[None]:
    """Create `folder` and keep other processes that ask the same out of it while the block lasts.

    A folder that was created here and is still empty when the block fails is removed again.

    Raises:
        InputError: Another process is in it.
        OSError: It cannot be created.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process is writing to '{folder}': wait for it or name another folder") from error
        except OSError:
            pass  # a network file system without locks
        try:
            yield
        except BaseException:
            if is_new:
                with suppress(OSError):
                    folder.rmdir()  # fails where something is in it
            raise
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 as 64 hexadecimal digits, reading it in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def require_file(path: Path, what: str) -> Path:
    """Return `path` if it is a readable file.

    Raises:
        InputError: It is missing, a folder or unreadable; `what` names its role in the message.
    """
    if path.is_dir():
        raise InputError(f"{what} '{path}' is a folder, not a file")
    if not path.exists():
        raise InputError(f"{what} '{path}' does not exist: check the path")
    if not path.is_file():
        raise InputError(f"{what} '{path}' is a pipe or a device, not a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{what} '{path}' may not be read: check its permissions")
    return path


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems cannot sync a folder; anything else is a real failure.
        if not path.is_dir():
            raise error
    finally:
        os.close(handle)


def _match_umask(path: Path) -> None:
    # mkstemp makes files that only their owner reads; results are ordinary files.
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def _prefix(target: Path) -> str:
    return f".{target.name[:100]}."
