"""Sends files to a board's store: a file in the store is not sent again, and an interrupted transfer is resumed.

The store is a folder in the user's cache on the board. The name of a file in it is its SHA-256 and its suffix.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import HostError, InputError
from edgekit.files import require_file, sha256_of
from edgekit.remote.ssh import Connection, shell

_CHUNK_BYTES = 1 << 16
_ATTEMPTS = 4
# Writing to a slow card (sync) and waiting for another sender of the same file can take long.
_SILENCE_S = 900
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Upload:
    """A file of this machine to send to boards."""

    path: Path
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """Name in the store: the hash, and the suffix if it is alphanumeric, such as `.onnx`."""
        suffix = self.path.suffix.lower()
        return self.sha256 + (suffix if _SUFFIX.fullmatch(suffix) else "")


@dataclass(frozen=True)
class Store:
    """Content of a board's store: names of complete files, and sizes in bytes of partly sent ones."""

    folder: str
    complete: frozenset[str]
    parts: dict[str, int]

    def path(self, upload: Upload) -> str:
        """Return the path of an upload on the board, whether it has been sent or not."""
        return f"{self.folder}/{upload.name}"

    def missing_bytes(self, uploads: Iterable[Upload]) -> int:
        """Return the size of those uploads that are not in the store."""
        return sum(upload.size_bytes for upload in uploads if upload.name not in self.complete)


def pack(path: Path, what: str) -> Upload:
    """Return a file as an upload; `what` is its role in error messages.

    Raises:
        InputError: The file cannot be read.
    """
    require_file(path, what)
    try:
        return Upload(path, sha256_of(path), path.stat().st_size)
    except OSError as error:
        raise InputError(f"{what} '{path}': {error.strerror}") from error


def send(connection: Connection, store: Store, upload: Upload, progress: Progress = lambda _, __: None) -> int:
    """Send a file to the store unless the store has it, and return the number of bytes sent.

    A partly sent file is completed. The board verifies the hash before it renames the file to its final name, and the
    hash of a file that it has already, because a memory card can lose data.

    Args:
        connection: The board.
        store: Content of its store, as `probe` returned it.
        upload: The file.
        progress: Called with the bytes that are on the board and the size of the file.

    Raises:
        InputError: The file changed during the transfer.
        HostError: The board cannot store the file, or it arrived damaged.
    """
    label = connection.host.label
    is_known = upload.name in store.complete
    offset = upload.size_bytes if is_known else min(store.parts.get(upload.name, 0), upload.size_bytes)
    changed = f"'{upload.path}' changed during the transfer: start again"
    sent = 0
    for _ in range(_ATTEMPTS):
        chunks = _Chunks(upload, offset, progress)
        arguments = (store.folder, upload.name, str(offset), str(upload.size_bytes), upload.sha256)
        done = connection.run(
            shell(_RECEIVE, *arguments), stdin=chunks, timeout_s=None, silence_s=_SILENCE_S, limit_bytes=64
        )
        sent += chunks.sent
        if done.returncode == 0:
            return sent
        if chunks.error is not None:
            raise InputError(f"'{upload.path}' cannot be read: {chunks.error.strerror}") from chunks.error
        if done.returncode == _OTHER_OFFSET and re.fullmatch(r"[0-9]{1,15}\n", done.text):
            offset = int(done.text) if int(done.text) <= upload.size_bytes else 0
        elif done.returncode == _DAMAGED:
            if offset == 0 and chunks.sha256() != upload.sha256:
                raise InputError(changed)
            offset = 0
        else:
            raise HostError(
                f"{label}: '{upload.path.name}' could not be stored: {done.last_error_line or 'no reason given'}"
            )
    if upload.path.stat().st_size < upload.size_bytes:  # the board has waited for the rest
        raise InputError(changed)
    raise HostError(f"{label}: '{upload.path.name}' arrived damaged {_ATTEMPTS} times: check the board's disk")


class _Chunks:
    """Bytes of a file from an offset on, counted and hashed while they are read."""

    def __init__(self, upload: Upload, offset: int, progress: Progress) -> None:
        self._upload = upload
        self._offset = offset
        self._progress = progress
        self._digest = hashlib.sha256()
        self.sent = 0
        self.error: OSError | None = None

    def __iter__(self) -> Iterator[bytes]:
        total = self._upload.size_bytes
        try:
            with self._upload.path.open("rb") as stream:
                stream.seek(self._offset)
                while chunk := stream.read(_CHUNK_BYTES):
                    yield chunk
                    self._digest.update(chunk)
                    self.sent += len(chunk)
                    self._progress(min(self._offset + self.sent, total), total)
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.error = error

    def sha256(self) -> str:
        return self._digest.hexdigest()


_OTHER_OFFSET, _DAMAGED = 9, 11

# $1 folder, $2 name, $3 offset at which the sender resumes, $4 size, $5 SHA-256. The partial file is also the lock: a
# second sender waits, and then finds the complete file. The folder is locked against `clean` (prepare.py). A file that
# does not fit gives its space back: the board's service may write to the same disk. For a file that is there and
# intact, nothing is written: the disk may be full.
_RECEIVE = """
set -eu
umask 077
mkdir -p "$1"
cd "$1"
exec 8<.
flock -s 8
is_intact() { [ -f "$1" ] && sum=$(sha256sum "$1") && [ "${sum%% *}" = "$2" ]; }
if is_intact "$2" "$5"; then exit 0; fi
exec 9>>"$2.part"
flock 9
if is_intact "$2" "$5"; then rm -f "$2.part"; exit 0; fi
have=$(stat -c %s "$2.part")
if [ "$have" -gt "$4" ]; then : >"$2.part"; have=0; fi
[ "$have" = "$3" ] || { echo "$have"; exit 9; }
cat >>"$2.part" || { : >"$2.part"; exit 1; }
have=$(stat -c %s "$2.part")
if [ "$have" -lt "$4" ]; then echo "$have"; exit 9; fi
is_intact "$2.part" "$5" || { : >"$2.part"; exit 11; }
sync "$2.part"
mv "$2.part" "$2"
sync .
"""
