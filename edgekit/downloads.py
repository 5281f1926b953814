"""Files edgekit fetches on first use: pinned by address, size and SHA-256, kept in the user's cache.

EDGEKIT_OFFLINE=1 forbids the attempt; a file already in the cache is used all the same.
"""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from edgekit import __version__
from edgekit.errors import EXIT_IO, EdgekitError, StorageError
from edgekit.files import sha256_of, write_atomic

_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class PinnedFile:
    """One file that never changes: what it is called in the cache, where it comes from and what it must be."""

    name: str
    url: str
    sha256: str
    size_bytes: int


# The address of the file behind OpenCV Zoo's Git LFS pointer, at the commit that added this edition (MIT licence).
YUNET = PinnedFile(
    name="face_detection_yunet_2026may.onnx",
    url="https://media.githubusercontent.com/media/opencv/opencv_zoo/47534e27c9851bb1128ccc0102f1145e27f23f98"
    "/models/face_detection_yunet/face_detection_yunet_2026may.onnx",
    sha256="ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
    size_bytes=229_738,
)


class UnavailableError(EdgekitError):
    """A file is not in the cache and cannot be had now: no network, no such address, or no place to keep it."""

    exit_code = EXIT_IO


def cached_download(
    pinned: PinnedFile,
    *,
    cache_dir: Path | None = None,
    timeout_s: float = 10.0,
    deadline_s: float = 60.0,
    notify: Callable[[str], None] | None = None,
) -> Path:
    """Return the path of a pinned file in the cache, downloading it if it is not there.

    The content is checked each time; a cached file that was damaged is removed and downloaded again.

    Args:
        pinned: The file.
        cache_dir: Where it is kept; default: `default_cache_dir()`.
        timeout_s: How long the server may say nothing.
        deadline_s: How long the whole body may take.
        notify: Called with one line before a download starts.

    Raises:
        UnavailableError: It cannot be had: no connection, an error or silence from the server, a connection that broke,
            EDGEKIT_OFFLINE, or a cache that cannot be written.
        StorageError: The server gave another file than the pinned one. Nothing of it is kept.
    """
    folder = cache_dir or default_cache_dir()
    path = folder / pinned.name
    if _is_whole(path, pinned):
        return path
    if is_offline():
        raise UnavailableError(f"'{pinned.name}' is not in '{folder}' and EDGEKIT_OFFLINE forbids downloading it")
    if notify is not None:
        notify(f"downloading {pinned.name} ({pinned.size_bytes / 1e6:.1f} MB) into '{folder}'")
    content = _fetch(pinned, timeout_s, deadline_s)
    try:
        write_atomic(path, content)
    except StorageError as error:
        raise UnavailableError(f"'{pinned.name}' cannot be kept in '{folder}': {error.__cause__}") from error
    return path


def is_offline() -> bool:
    """Return whether EDGEKIT_OFFLINE forbids downloads."""
    return os.environ.get("EDGEKIT_OFFLINE", "0") not in ("", "0")


def default_cache_dir() -> Path:
    """Return the user's cache for edgekit: $XDG_CACHE_HOME/edgekit, else ~/.cache/edgekit.

    Raises:
        UnavailableError: There is no home folder to put it in.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if Path(base).is_absolute():  # the XDG specification: a relative one is to be ignored
        return Path(base) / "edgekit"
    try:
        return Path.home() / ".cache" / "edgekit"
    except RuntimeError as error:
        raise UnavailableError("there is no home folder to keep downloads in: set XDG_CACHE_HOME") from error


def _is_whole(path: Path, pinned: PinnedFile) -> bool:
    try:
        if path.stat().st_size == pinned.size_bytes and sha256_of(path) == pinned.sha256:
            return True
    except OSError:
        return False
    with suppress(OSError):
        path.unlink()
    return False


def _fetch(pinned: PinnedFile, timeout_s: float, deadline_s: float) -> bytes:
    ends_s = time.monotonic() + deadline_s
    try:
        with _opener().open(pinned.url, timeout=timeout_s) as response:
            content = _read_bounded(response, pinned, ends_s)
    except urllib.error.HTTPError as error:
        error.close()
        raise UnavailableError(f"'{pinned.name}' cannot be downloaded: the server answers {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UnavailableError(f"'{pinned.name}' cannot be downloaded: {reason or type(error).__name__}") from error
    if sha256(content).hexdigest() != pinned.sha256:
        raise StorageError(
            f"the download of '{pinned.name}' from {pinned.url} is not the expected file (wrong SHA-256): "
            "does a proxy or log-in page answer in its place?"
        )
    return content


def _read_bounded(response: http.client.HTTPResponse, pinned: PinnedFile, ends_s: float) -> bytes:
    content = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        content += chunk
        if len(content) > pinned.size_bytes:
            raise StorageError(
                f"the download of '{pinned.name}' from {pinned.url} is longer than the expected "
                f"{pinned.size_bytes} bytes: does a proxy or log-in page answer in its place?"
            )
        if time.monotonic() > ends_s:
            raise TimeoutError("it takes too long")
    if response.length:  # what the server announced and did not send
        raise ConnectionError(f"the connection broke after {len(content)} of {pinned.size_bytes} bytes")
    return bytes(content)


def _opener() -> urllib.request.OpenerDirector:
    # urllib's own choice of handlers would also open file: and ftp: addresses a server redirects to.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-agent", f"edgekit/{__version__}")]
    return opener
