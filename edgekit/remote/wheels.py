"""Wheels for boards, made on this machine: edgekit itself, and its dependencies for the board's platform.

Boards build and download nothing, so they need no internet.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit import __version__
from edgekit.downloads import default_cache_dir, is_offline
from edgekit.errors import HostError, InputError
from edgekit.files import sha256_of, write_atomic
from edgekit.install_hint import DISTRIBUTION
from edgekit.remote.transfer import Upload, pack
from edgekit.text import one_line

_PIP_TIMEOUT_S = 1800
_POLL_S = 0.2
_DONE = "wheels.json"
# Number of sets of wheels kept in the cache: of edgekit itself, and of its dependencies (about 100 MB per platform).
_KEPT_OWN = 3
_KEPT_PLATFORMS = 10
_SUBPACKAGES = ("models", "export", "device")
_OLDEST_GLIBC_MINOR = 17
_WHEEL_NAME = f"{DISTRIBUTION.replace('-', '_')}-{__version__}"
# A fixed date, so that the same files make the same wheel.
_DATE = (1980, 1, 1, 0, 0, 0)

_own_wheel_lock, _download_lock = threading.Lock(), threading.Lock()


@dataclass(frozen=True)
class Target:
    """Platform that wheels are selected for.

    `machine` is the output of `uname -m`, `glibc` the version of the C library. `constraints` are pip requirements in
    addition to edgekit's own; `extras` are extras of edgekit in addition to `device`, such as `mqtt`.
    """

    machine: str
    python: tuple[int, int]
    glibc: tuple[int, int]
    constraints: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()

    @property
    def platforms(self) -> list[str]:
        """Tags of the wheels that run on the platform, the newest first (PEP 600)."""
        minors = range(self.glibc[1], _OLDEST_GLIBC_MINOR - 1, -1)
        return [*(f"manylinux_2_{minor}_{self.machine}" for minor in minors), f"manylinux2014_{self.machine}"]


def own_wheel(cache: Path | None = None) -> Upload:
    """Return the running edgekit as a wheel; the same files make the same bytes.

    It is packed from the imported packages, so that a checkout, an editable and an ordinary installation all work.

    Raises:
        InputError: edgekit is not installed, or its metadata is missing.
    """
    with _own_wheel_lock:  # boards are prepared in parallel
        content = _pack_wheel()
        folder = (cache or default_cache_dir()) / "wheels" / f"own-{hashlib.sha256(content).hexdigest()}"
        path = folder / f"{_WHEEL_NAME}-py3-none-any.whl"
        if not path.exists() or path.read_bytes() != content:
            write_atomic(path, content)
            _remove_old_wheels(folder, "own-*", _KEPT_OWN)
    return pack(path, "wheel")


def dependency_wheels(
    wheel: Upload, target: Target, cache: Path | None = None, is_cancelled: Callable[[], bool] = lambda: False
) -> list[Upload]:
    """Return a platform's wheels of the packages that `edgekit-pi[device]` requires: cached, or downloaded with pip.

    The cached wheels are used until edgekit's requirements or the target change.

    Args:
        wheel: edgekit itself.
        target: The platform.
        cache: Folder of edgekit's cache; default: that of the user.
        is_cancelled: Called before and during a download, which is ended if the result is True.

    Raises:
        HostError: The wheels cannot be downloaded, or the download was cancelled.
        InputError: edgekit is not installed, or this Python has no pip.
    """
    content = {
        "requires": _distribution().requires or [],
        "machine": target.machine,
        "python": target.python,
        "glibc": target.glibc,
        "constraints": target.constraints,
        **({"extras": target.extras} if target.extras else {}),
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    folder = (cache or default_cache_dir()) / "wheels" / f"board-{key[:32]}"
    with _download_lock:  # boards of one platform are prepared in parallel: one thread downloads
        wheels = _complete_wheels(folder)
        if wheels is None:
            if is_cancelled():
                raise HostError("interrupted before the download of the wheels")
            _download(wheel, target, folder, is_cancelled)
            wheels = _complete_wheels(folder)
            _remove_old_wheels(folder, "board-*", _KEPT_PLATFORMS)
    if wheels is None:
        raise HostError(f"the downloaded wheels in '{folder}' are damaged: check this machine's disk")
    os.utime(folder)
    return wheels


def _complete_wheels(folder: Path) -> list[Upload] | None:
    """Return the wheels of a folder, None if they are not complete or one is damaged."""
    try:
        listed = json.loads((folder / _DONE).read_text())
        wheels = [Upload(folder / name, sha256, size_bytes) for name, sha256, size_bytes in listed]
        return wheels if all(sha256_of(wheel.path) == wheel.sha256 for wheel in wheels) else None
    except (OSError, ValueError, TypeError):
        return None


def _download(wheel: Upload, target: Target, folder: Path, is_cancelled: Callable[[], bool]) -> None:
    what = "wheels for Python {}.{} on {}".format(*target.python, target.machine)
    if is_offline():
        raise HostError(f"{what} are not in '{folder}', and EDGEKIT_OFFLINE is set: unset it to download them")
    if importlib.util.find_spec("pip") is None:
        raise InputError(f"{what} are downloaded with pip, which '{sys.executable}' does not have: python -m ensurepip")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(".new-*"):
        if time.time() - leftover.stat().st_mtime > _PIP_TIMEOUT_S:  # of a killed process
            shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".new-{folder.name}-") as name:
        fresh = Path(name) / "wheels"
        arguments = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        arguments += ["--dest", str(fresh), "--only-binary=:all:", "--implementation", "cp"]
        arguments += ["--python-version", "{}.{}".format(*target.python)]
        for platform in target.platforms:
            arguments += ["--platform", platform]
        arguments += [f"{wheel.path}[{','.join(('device', *target.extras))}]", *target.constraints]
        _run_pip(arguments, what, is_cancelled)
        (fresh / wheel.path.name).unlink(missing_ok=True)
        uploads = [pack(path, "wheel") for path in sorted(fresh.iterdir())]
        (fresh / _DONE).write_text(
            json.dumps([[upload.path.name, upload.sha256, upload.size_bytes] for upload in uploads])
        )
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process was faster
            fresh.rename(folder)


def _run_pip(arguments: Sequence[str], what: str, is_cancelled: Callable[[], bool]) -> None:
    """Run pip, which downloads `what`; end it as soon as `is_cancelled` returns True.

    Raises:
        HostError: pip failed, took too long or was cancelled.
    """
    end_s, stderr = time.monotonic() + _PIP_TIMEOUT_S, None
    with subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as pip:
        while stderr is None:
            try:
                _, stderr = pip.communicate(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                if is_cancelled() or time.monotonic() > end_s:
                    pip.send_signal(signal.SIGINT)  # pip removes its temporary files
                    reason = "interrupted" if is_cancelled() else f"not done within {_PIP_TIMEOUT_S} s"
                    raise HostError(f"the download of the {what} was {reason}: try again") from None
    if pip.returncode != 0:
        raise HostError(f"{what} cannot be downloaded: pip: {one_line(_reason(stderr))[:300]}")


def _reason(stderr: str) -> str:
    """Return the line of pip's error output that has the reason of a failure.

    It is the first ERROR, or the last line of the traceback of an error that pip does not expect, such as a full disk.
    For an index that cannot be reached, the ERROR would be that of an index without the package.
    """
    lines = stderr.strip().splitlines() or ["no message"]
    if "(from versions: none)" in stderr and re.search(r"connection broken by|confirming the ssl certificate", stderr):
        system = re.search(r"\[Errno -?\d+\] ([\w ]+)", stderr)
        reason = f" ({system[1]})" if system else ""
        return f"the package index cannot be reached{reason}: check this machine's network, proxy and PIP_INDEX_URL"
    return next((line for line in lines if line.startswith("ERROR") and line != "ERROR: Exception:"), lines[-1])


def _remove_old_wheels(newest: Path, pattern: str, keep: int) -> None:
    found = sorted(newest.parent.glob(pattern), key=lambda path: path.stat().st_mtime)
    for old in found[:-keep]:
        if old != newest:
            shutil.rmtree(old, ignore_errors=True)


@functools.cache
def _pack_wheel() -> bytes:
    installed = _distribution()
    info = f"{_WHEEL_NAME}.dist-info"
    files = dict(_package_files())
    # An egg-info folder, which a build leaves in a checkout, has PKG-INFO in place of METADATA.
    metadata = installed.read_text("METADATA") or installed.read_text("PKG-INFO")
    if not metadata:
        raise InputError(f"{DISTRIBUTION} is installed without metadata: install it again")
    files[f"{info}/METADATA"] = metadata.encode()
    files[f"{info}/entry_points.txt"] = (installed.read_text("entry_points.txt") or "").encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: edgekit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return buffer.getvalue()


def _distribution() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(f"{DISTRIBUTION} is not installed in this Python: pip install -e . in its folder") from error


def _package_files() -> Iterator[tuple[str, bytes]]:
    for package in ("edgekit", *(f"edgekit.{name}" for name in _SUBPACKAGES)):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        top = Path(next(iter(spec.submodule_search_locations)))
        skipped = _SUBPACKAGES if package == "edgekit" else ()
        for path in _walk(top, skipped):
            yield f"{package.replace('.', '/')}/{path.relative_to(top).as_posix()}", path.read_bytes()


def _walk(top: Path, skipped: Sequence[str]) -> Iterator[Path]:
    for folder, folders, names in os.walk(top):
        here = Path(folder)
        folders[:] = sorted(
            name
            for name in folders
            if name != "__pycache__" and name[0] != "." and not (here == top and name in skipped)
        )
        for name in sorted(names):
            if not name.endswith(".pyc") and name[0] != ".":
                yield here / name


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
