"""Sends files to a board's store, by content: what is there is not sent again, what was cut off goes on.

The store is a folder in the user's cache on the board; a file's name in it is its SHA-256 and its ending.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import HostError, InputError
from edgekit.files import require_file, sha256_of
from edgekit.remote.ssh import Connection, shell

_CHUNK_BYTES = 1 << 16
_ATTEMPTS = 4
# A slow card that syncs, or another sender of the same file, may need their time.
_SILENCE_S = 900
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Upload:
    """A file on its way: where it is here, and its name in a board's store."""

    path: Path
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """Its name in the store: the hash and an ending that is plain letters, such as `.onnx`."""
        suffix = self.path.suffix.lower()
        return self.sha256 + (suffix if _SUFFIX.fullmatch(suffix) else "")


@dataclass(frozen=True)
class Store:
    """What a board's store holds: whole files by name, and how many bytes of half-sent ones."""

    folder: str
    whole: frozenset[str]
    parts: dict[str, int]

    def path(self, upload: Upload) -> str:
        """Return where the upload lies, or will lie, on the board."""
        return f"{self.folder}/{upload.name}"


def pack(path: Path, what: str) -> Upload:
    """Return a file as a upload.

    Raises:
        InputError: It cannot be read; `what` names its role in the message.
    """
    require_file(path, what)
    try:
        return Upload(path, sha256_of(path), path.stat().st_size)
    except OSError as error:
        raise InputError(f"{what} '{path}': {error.strerror}") from error


def send(connection: Connection, store: Store, upload: Upload, progress: Progress = lambda _, __: None) -> int:
    """Bring a file into the store, if it is not there, and return how many bytes were sent.

    A half-sent file is gone on with; the board checks the whole file's hash before it gives it its name.

    Args:
        connection: The board.
        store: What its store held when it was asked.
        upload: The file.
        progress: Called with bytes there and bytes in all.

    Raises:
        InputError: The file changed meanwhile.
        HostError: The board has no place or did not get it whole.
    """
    if upload.name in store.whole:
        return 0
    label = connection.host.label
    offset = min(store.parts.get(upload.name, 0), upload.size_bytes)
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
                raise InputError(f"'{upload.path}' changed while it was sent: start again")
            offset = 0
        else:
            raise HostError(f"{label}: '{upload.path.name}' could not be stored: {done.complaint or 'no reason given'}")
    raise HostError(f"{label}: '{upload.path.name}' arrived damaged {_ATTEMPTS} times: check the board's disk")


class _Chunks:
    """The file's bytes from an offset on, counted and hashed as they go."""

    def __init__(self, upload: Upload, offset: int, progress: Progress) -> None:
        self._parcel = upload
        self._offset = offset
        self._progress = progress
        self._digest = hashlib.sha256()
        self.sent = 0
        self.error: OSError | None = None

    def __iter__(self) -> Iterator[bytes]:
        total = self._parcel.size_bytes
        try:
            with self._parcel.path.open("rb") as stream:
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

# $1 folder, $2 name, $3 offset the sender goes on from, $4 size, $5 SHA-256. The half file is its own lock: a second
# sender waits, and finds the whole file.
_RECEIVE = """
set -eu
umask 077
mkdir -p "$1"
cd "$1"
exec 9>>"$2.part"
flock 9
if [ -f "$2" ]; then rm -f "$2.part"; exit 0; fi
have=$(stat -c %s "$2.part")
if [ "$have" -gt "$4" ]; then : >"$2.part"; have=0; fi
[ "$have" = "$3" ] || { echo "$have"; exit 9; }
cat >>"$2.part"
have=$(stat -c %s "$2.part")
if [ "$have" -lt "$4" ]; then echo "$have"; exit 9; fi
sum=$(sha256sum "$2.part")
[ "${sum%% *}" = "$5" ] || { : >"$2.part"; exit 11; }
sync "$2.part"
mv "$2.part" "$2"
sync .
"""
