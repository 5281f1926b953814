"""Files that are downloaded on first use, pinned by URL, size and SHA-256, and kept in the user's cache folder.

EDGEKIT_OFFLINE=1 disables downloads; cached files are still used. A board's bare Python imports this module too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgekit import __version__
from edgekit.errors import EXIT_IO, EdgekitError, StorageError
from edgekit.files import sha256_of, write_atomic
from edgekit.text import one_line

# After a failure, so that a board without internet does not wait for the timeout at each start.
_PAUSE_S = 3600


@dataclass(frozen=True)
class PinnedFile:
    """One immutable file: its name in the cache, URL, SHA-256 and size."""

    name: str
    url: str
    sha256: str
    size_bytes: int


# The URL behind OpenCV Zoo's Git LFS pointer, at the commit that added this version (MIT licence).
YUNET = PinnedFile(
    name="face_detection_yunet_2026may.onnx",
    url="https://media.githubusercontent.com/media/opencv/opencv_zoo/47534e27c9851bb1128ccc0102f1145e27f23f98"
    "/models/face_detection_yunet/face_detection_yunet_2026may.onnx",
    sha256="ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
    size_bytes=229_738,
)


class UnavailableError(EdgekitError):
    """A file is not cached and cannot be downloaded or stored now."""

    exit_code = EXIT_IO


def cached_download(
    pinned: PinnedFile,
    *,
    cache_dir: Path | None = None,
    timeout_s: float = 10.0,
    notify: Callable[[str], None] | None = None,
) -> Path:
    """Return the path of a pinned file in the cache; download it if it is missing.

    The content is verified at each call; a damaged file is removed and downloaded again. A download that fails is not
    tried again for an hour: the file NAME.failed beside it has the reason.

    Args:
        pinned: The file.
        cache_dir: Folder of the file; default: `default_cache_dir()`.
        timeout_s: Longest wait for the server's next bytes.
        notify: Called with one line before a download starts.

    Raises:
        UnavailableError: The connection or the server failed or timed out, now or within the last hour, EDGEKIT_OFFLINE
            is set, or the cache folder cannot be written.
        StorageError: The server sent a different file, which is discarded.
    """
    folder = cache_dir or default_cache_dir()
    path = folder / pinned.name
    if _is_intact(path, pinned):
        return path
    if is_offline():
        raise UnavailableError(f"'{pinned.name}' is not in '{folder}' and EDGEKIT_OFFLINE disables downloads: unset it")
    failure = folder / f"{pinned.name}.failed"
    _check_pause(failure)  # raises within an hour of a failed download
    if notify is not None:
        notify(f"downloading {pinned.name} ({pinned.size_bytes / 1e6:.1f} MB) into '{folder}'")
    try:
        content = _fetch(pinned, timeout_s)
    except UnavailableError as error:
        with suppress(StorageError):
            write_atomic(failure, str(error).encode())
        raise
    with suppress(OSError):
        failure.unlink()
    try:
        write_atomic(path, content)
    except StorageError as error:
        # The cause is the OSError, without the path and the cure that the StorageError adds.
        raise UnavailableError(f"'{pinned.name}' cannot be stored in '{folder}': {error.__cause__}") from error
    return path


def is_offline() -> bool:
    """Return whether EDGEKIT_OFFLINE disables downloads."""
    return os.environ.get("EDGEKIT_OFFLINE", "0") not in ("", "0")


def default_cache_dir() -> Path:
    """Return the user's cache folder of edgekit: $XDG_CACHE_HOME/edgekit or ~/.cache/edgekit.

    Raises:
        UnavailableError: There is no home folder.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    with suppress(RuntimeError):  # there is no home folder
        # A relative $XDG_CACHE_HOME is not valid, and is ignored.
        folder = Path(base) if base.startswith("/") else Path.home() / ".cache"
        if folder.is_absolute():  # $HOME may be relative
            return folder / "edgekit"
    raise UnavailableError("there is no home folder for downloads: set XDG_CACHE_HOME to an absolute path")


def _is_intact(path: Path, pinned: PinnedFile) -> bool:
    """Return whether a file of the cache has the pinned content; delete it if it has another one."""
    try:
        if path.stat().st_size == pinned.size_bytes and sha256_of(path) == pinned.sha256:
            return True
    except OSError:
        return False
    with suppress(OSError):
        path.unlink()
    return False


def _check_pause(failure: Path) -> None:
    """Raise the error of the last download again, if it failed within the last hour; `failure` is the file with it."""
    try:
        age_s = time.time() - failure.stat().st_mtime
        reason = one_line(failure.read_text(errors="replace"))[:300]
    except OSError:
        return
    # A clock that was set back gives a negative age.
    if 0 <= age_s < _PAUSE_S:
        raise UnavailableError(f"{reason}; edgekit retries once per hour, or after 'rm {failure}'")


def _fetch(pinned: PinnedFile, timeout_s: float) -> bytes:
    """Return the content of a pinned file from its URL, verified.

    Raises:
        UnavailableError: The connection or the server failed.
        StorageError: The server sent a different file.
    """
    # Most starts download nothing, and these modules take longer to import than edgekit's own.
    import http.client
    import urllib.error
    import urllib.request
    from hashlib import sha256

    request = urllib.request.Request(pinned.url, headers={"User-agent": f"edgekit/{__version__}"})  # noqa: S310 - pinned
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            content: bytes = response.read(pinned.size_bytes + 1)  # one byte more, to detect a longer file
            if response.length and len(content) < pinned.size_bytes:  # announced bytes that did not arrive
                raise ConnectionError(f"the connection was closed after {len(content)} of {pinned.size_bytes} bytes")
    except urllib.error.HTTPError as error:
        error.close()
        raise UnavailableError(f"'{pinned.name}' cannot be downloaded (HTTP status {error.code})") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a host name that is not valid
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        text = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
        raise UnavailableError(f"'{pinned.name}' cannot be downloaded ({text})") from error
    if sha256(content).hexdigest() != pinned.sha256:
        raise StorageError(
            f"the download of '{pinned.name}' from {pinned.url} is not the expected file (wrong SHA-256): "
            "check whether a proxy or log-in page intercepts it"
        )
    return content
