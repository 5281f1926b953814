"""Files that are downloaded on first use, pinned by URL, size and SHA-256, and kept in the user's cache folder.

EDGEKIT_OFFLINE=1 disables downloads; cached files are still used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import __version__
from edgekit.errors import EXIT_IO, EdgekitError, StorageError
from edgekit.files import sha256_of, write_atomic
from edgekit.pinned_files import YUNET, PinnedFile
from edgekit.text import one_line

if TYPE_CHECKING:
    import http.client
    import urllib.request

__all__ = ["YUNET", "PinnedFile", "UnavailableError", "cached_download", "default_cache_dir", "is_offline"]

_CHUNK_BYTES = 1 << 16
# After a failure, so that a board without internet does not wait for the timeout at each start.
_PAUSE_S = 3600


class UnavailableError(EdgekitError):
    """A file is not cached and cannot be downloaded or stored now."""

    exit_code = EXIT_IO


def cached_download(
    pinned: PinnedFile,
    *,
    cache_dir: Path | None = None,
    timeout_s: float = 10.0,
    deadline_s: float = 60.0,
    notify: Callable[[str], None] | None = None,
) -> Path:
    """Return the path of a pinned file in the cache; download it if it is missing.

    The content is verified at each call; a damaged file is removed and downloaded again. A download that fails is not
    tried again for an hour: the file NAME.failed beside it has the reason.

    Args:
        pinned: The file.
        cache_dir: Folder of the file; default: `default_cache_dir()`.
        timeout_s: Longest wait for the server's next bytes.
        deadline_s: Time limit of the whole download.
        notify: Called with one line before a download starts.

    Raises:
        UnavailableError: The connection or the server failed or timed out, now or within the last hour, EDGEKIT_OFFLINE
            is set, or the cache folder cannot be written.
        StorageError: The server sent a different file, which is discarded.
    """
    folder = cache_dir or default_cache_dir()
    path = folder / pinned.name
    if _is_whole(path, pinned):
        return path
    if is_offline():
        raise UnavailableError(f"'{pinned.name}' is not in '{folder}' and EDGEKIT_OFFLINE disables downloads: unset it")
    failure = folder / f"{pinned.name}.failed"
    _check_pause(failure)
    if notify is not None:
        notify(f"downloading {pinned.name} ({pinned.size_bytes / 1e6:.1f} MB) into '{folder}'")
    try:
        content = _fetch(pinned, timeout_s, deadline_s)
    except UnavailableError as error:
        with suppress(StorageError):
            write_atomic(failure, str(error).encode())
        raise
    with suppress(OSError):
        failure.unlink()
    try:
        write_atomic(path, content)
    except StorageError as error:
        raise UnavailableError(f"'{pinned.name}' cannot be stored in '{folder}': {error.__cause__}") from error
    return path


def is_offline() -> bool:
    """Return whether EDGEKIT_OFFLINE disables downloads."""
    return os.environ.get("EDGEKIT_OFFLINE", "0") not in ("", "0")


def default_cache_dir() -> Path:
    """Return the user's cache folder of edgekit; on Linux $XDG_CACHE_HOME/edgekit or ~/.cache/edgekit.

    Raises:
        UnavailableError: There is no home folder.
    """
    import platformdirs

    # Without a home folder, new versions of platformdirs raise, old ones return a path that begins with "~".
    with suppress(RuntimeError):
        folder = platformdirs.user_cache_path("edgekit")
        if folder.is_absolute():
            return folder
    raise UnavailableError("there is no home folder for downloads: set XDG_CACHE_HOME to an absolute path")


def _is_whole(path: Path, pinned: PinnedFile) -> bool:
    try:
        if path.stat().st_size == pinned.size_bytes and sha256_of(path) == pinned.sha256:
            return True
    except OSError:
        return False
    with suppress(OSError):
        path.unlink()
    return False


def _check_pause(failure: Path) -> None:
    try:
        age_s = time.time() - failure.stat().st_mtime
        reason = one_line(failure.read_text(errors="replace"))[:300]
    except OSError:
        return
    # A clock that was set back gives a negative age.
    if 0 <= age_s < _PAUSE_S:
        raise UnavailableError(f"{reason}; edgekit retries once per hour, or after 'rm {failure}'")


def _fetch(pinned: PinnedFile, timeout_s: float, deadline_s: float) -> bytes:
    # Most starts download nothing, and these modules take longer to import than edgekit's own.
    import http.client
    import urllib.error
    from hashlib import sha256

    ends_s = time.monotonic() + deadline_s
    try:
        with _opener().open(pinned.url, timeout=timeout_s) as response:
            content = _read_bounded(response, pinned, ends_s)
    except urllib.error.HTTPError as error:
        error.close()
        raise UnavailableError(f"'{pinned.name}' cannot be downloaded (HTTP status {error.code})") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a host name that is not valid
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        text = (isinstance(reason, OSError) and reason.strerror) or str(reason) or type(error).__name__
        raise UnavailableError(f"'{pinned.name}' cannot be downloaded ({text})") from error
    if sha256(content).hexdigest() != pinned.sha256:
        raise StorageError(
            f"the download of '{pinned.name}' from {pinned.url} is not the expected file (wrong SHA-256): "
            "check whether a proxy or log-in page intercepts it"
        )
    return content


def _read_bounded(response: http.client.HTTPResponse, pinned: PinnedFile, ends_s: float) -> bytes:
    content = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        content += chunk
        if len(content) > pinned.size_bytes:
            raise StorageError(
                f"the download of '{pinned.name}' from {pinned.url} is longer than the expected "
                f"{pinned.size_bytes} bytes: check whether a proxy or log-in page intercepts it"
            )
        if time.monotonic() > ends_s:
            raise TimeoutError("the time limit is over")
    if response.length:  # announced bytes that did not arrive
        raise ConnectionError(f"the connection was closed after {len(content)} of {pinned.size_bytes} bytes")
    return bytes(content)


def _opener() -> urllib.request.OpenerDirector:
    import urllib.request

    # The opener has no handlers for file: and ftp: URLs, so that it cannot follow redirects to them.
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
