"""Sends files to a board's store; a file in the store is not sent again.

The store is a folder in the user's cache on the board. The name of a file in it is its SHA-256 and its suffix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import HostError, InputError
from edgekit.files import require_file, sha256_of
from edgekit.remote.ssh import Connection, shell

_CHUNK_BYTES = 1 << 16
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
    """A board's store and the names of the files in it."""

    folder: str
    complete: frozenset[str]

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

    The board verifies the hash before it renames the file to its final name, and the hash of a file that it has
    already, because a memory card can lose data.

    Args:
        connection: The board.
        store: Content of its store, as `probe` returned it.
        upload: The file.
        progress: Called in another thread with the bytes sent and the size of the file.

    Raises:
        InputError: The file changed during the transfer.
        HostError: The board cannot store the file, or it arrived damaged.
    """
    script = shell(_RECEIVE, store.folder, upload.name, upload.sha256)
    if upload.name in store.complete and connection.run(script, timeout_s=None).returncode == 0:
        return 0
    done = connection.run(script, stdin=_chunks(upload, progress), timeout_s=None)
    if done.returncode == 0:
        return upload.size_bytes
    if done.returncode == _DAMAGED and sha256_of(upload.path) != upload.sha256:
        raise InputError(f"'{upload.path}' changed during the transfer: start again")
    reason = done.last_error_line or "it arrived damaged: check the board's disk"
    raise HostError(f"{connection.host.label}: '{upload.path.name}' could not be stored: {reason}")


def _chunks(upload: Upload, progress: Progress) -> Iterator[bytes]:
    sent = 0
    with upload.path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
            sent += len(chunk)
            progress(sent, upload.size_bytes)


_DAMAGED = 11

# $1 folder, $2 name, $3 SHA-256. The partial file is also the lock: a second sender waits, and then finds the complete
# file. The folder is locked against `clean` (prepare.py). A file that does not fit gives its space back: the board's
# service may write to the same disk. For a file that is there and intact, nothing is written: the disk may be full.
_RECEIVE = """
set -eu
umask 077
mkdir -p "$1"
cd "$1"
exec 8<.
flock -s 8
is_intact() { [ -f "$1" ] && sum=$(sha256sum "$1") && [ "${sum%% *}" = "$2" ]; }
if is_intact "$2" "$3"; then exit 0; fi
exec 9>>"$2.part"
flock 9
if is_intact "$2" "$3"; then rm -f "$2.part"; exit 0; fi
cat >"$2.part" || { : >"$2.part"; exit 1; }
is_intact "$2.part" "$3" || { : >"$2.part"; exit 11; }
sync "$2.part"
mv "$2.part" "$2"
sync .
"""
