"""What this machine sends to boards: files, its own edgekit, and wheels of the dependencies for the board's platform.

Boards build and download nothing, so they need no internet. `board/setup.py` reads the tar archive while it arrives.
"""

from __future__ import annotations

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
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgekit import DISTRIBUTION
from edgekit.downloads import default_cache_dir, is_offline
from edgekit.errors import HostError, InputError, TemporaryError
from edgekit.files import exclusive_folder, require_file, sha256_of
from edgekit.text import one_line

_CHUNK_BYTES = 1 << 16
# Number of sets of wheels kept in the cache, about 100 MB per platform.
_KEPT_PLATFORMS = 10
_PIP_TIMEOUT_S = 1800
_SUBPACKAGES = ("models", "export", "device")
_OLDEST_GLIBC_MINOR = 17
# A fixed date, so that the same files make the same archive.
_DATE = (1980, 1, 1, 0, 0, 0)

_download_lock = threading.Lock()


@dataclass(frozen=True)
class Upload:
    """A file of this machine to send to boards."""

    path: Path
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """Name on the board, in edgekit's store: the hash and the suffix, such as `.onnx`."""
        return self.sha256 + self.path.suffix.lower()


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


@dataclass(frozen=True)
class Part:
    """A file in the archive: its path there, and its content, or the file that has the content."""

    name: str
    content: Path | bytes

    @property
    def size_bytes(self) -> int:
        """The number of bytes of the content."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def open(self) -> IO[bytes]:
        """Return the content as a stream."""
        return io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")


def archive(parts: Sequence[Part], progress: Callable[[str, float, float], None]) -> Iterator[bytes]:
    """Yield a tar archive of files in chunks; `progress` receives a text, the bytes sent, and all bytes.

    Raises:
        InputError: A file became shorter meanwhile, or cannot be read.
    """
    sent_bytes, total_bytes = 0, sum(part.size_bytes for part in parts)
    for part in parts:
        header = tarfile.TarInfo(part.name)
        try:
            header.size = part.size_bytes  # reads the size of the file
            yield header.tobuf()
            left_bytes = header.size
            with part.open() as content:
                while chunk := content.read(min(_CHUNK_BYTES, left_bytes)):
                    yield chunk
                    left_bytes -= len(chunk)
                    sent_bytes += len(chunk)
                    progress("sending", sent_bytes, total_bytes)
        except OSError as error:
            raise InputError(f"'{part.content!s}': {error.strerror}") from error
        if left_bytes:
            raise InputError(f"'{part.content!s}' changed while it was sent: start again")
        yield bytes(-header.size % tarfile.BLOCKSIZE)  # zeros up to a whole block
    yield bytes(2 * tarfile.BLOCKSIZE)  # two blocks of zeros end an archive


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

    def __str__(self) -> str:
        return "Python {}.{} on {}".format(*self.python, self.machine)


def dependency_wheels(target: Target, cache: Path | None = None) -> list[Path]:
    """Return a platform's wheels of the packages that `edgekit-pi[device]` requires: cached, or downloaded with pip.

    The cached wheels are used until edgekit's requirements or the target change.

    Args:
        target: The platform.
        cache: Folder of edgekit's cache; default: that of the user.

    Raises:
        HostError: The wheels cannot be downloaded, or another process downloads them.
        InputError: edgekit is not installed, or this Python has no pip.
    """
    requirements = [*_requirements(("device", *target.extras)), *target.constraints]
    key = hashlib.sha256(json.dumps([requirements, target.machine, target.python, target.glibc]).encode()).hexdigest()
    folder = (cache or default_cache_dir()) / "wheels" / f"board-{key[:32]}"
    with _download_lock:  # boards of one platform are prepared in parallel: one thread downloads
        if not folder.is_dir():
            _make_wheel_folder(folder, requirements, target)
            by_use = sorted(folder.parent.glob("board-*"), key=lambda path: path.stat().st_mtime)
            for old in by_use[:-_KEPT_PLATFORMS]:
                shutil.rmtree(old, ignore_errors=True)
    os.utime(folder)  # it was used now
    return sorted(folder.glob("*.whl"))


def _make_wheel_folder(folder: Path, requirements: Sequence[str], target: Target) -> None:
    """Download wheels into a temporary folder, and rename it to `folder` when it is complete."""
    fresh = folder.with_name(f".new-{folder.name}")
    try:
        with exclusive_folder(fresh):
            _download(requirements, target, fresh)
            os.sync()  # the wheels before the name, so that after a power cut no folder is incomplete
            with contextlib.suppress(OSError):  # another process was faster
                fresh.rename(folder)
    except TemporaryError:
        raise HostError(f"another edgekit downloads wheels for {target}: try again when it has ended") from None
    shutil.rmtree(fresh, ignore_errors=True)  # it exists only if another process was faster


def _download(requirements: Sequence[str], target: Target, folder: Path) -> None:
    """Download wheels of the requirements and of all that they depend on, for the target, with pip.

    Raises:
        HostError, InputError: As `dependency_wheels`.
    """
    what = f"wheels for {target}"
    if is_offline():
        raise HostError(f"{what} are not in '{folder.parent}', and EDGEKIT_OFFLINE is set: unset it to download them")
    if importlib.util.find_spec("pip") is None:
        raise InputError(f"{what} are downloaded with pip, which '{sys.executable}' does not have: python -m ensurepip")
    for leftover in folder.iterdir():  # of a killed download
        leftover.unlink()
    arguments = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    # For another platform, pip downloads wheels only, because it cannot build there.
    arguments += ["--dest", str(folder), "--only-binary=:all:", "--implementation", "cp"]
    arguments += ["--python-version", "{}.{}".format(*target.python)]
    arguments += [f"--platform={platform}" for platform in target.platforms]
    arguments += requirements
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, errors="replace", timeout=_PIP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        late = f"the download of the {what} did not end within {_PIP_TIMEOUT_S} s: check PIP_INDEX_URL"
        raise HostError(late) from None
    if done.returncode != 0:
        raise HostError(f"{what} cannot be downloaded: pip: {one_line(_reason(done.stderr))[:300]}")


def _reason(stderr: str) -> str:
    """Return the line of pip's error output that has the reason of a failure.

    It is the first ERROR, or the last line of the traceback of an error that pip does not expect, such as a full disk.
    """
    lines = stderr.strip().splitlines() or ["no message"]
    # If the index cannot be reached, pip's ERROR only states that the package was not found.
    if "(from versions: none)" in stderr and re.search(r"connection broken by|confirming the ssl certificate", stderr):
        return "the package index cannot be reached: check this machine's network, proxy and PIP_INDEX_URL"
    # "ERROR: Exception:" is the line before a traceback.
    errors = [line for line in lines if line.startswith("ERROR") and line != "ERROR: Exception:"]
    return errors[0] if errors else lines[-1]


def _requirements(extras: Sequence[str]) -> Iterator[str]:
    """Yield the packages that edgekit requires, and those of its extras."""
    for text in _distribution().requires or []:
        package, _, marker = text.partition(";")
        # An extra's package ends in a condition such as `; extra == "train"`.
        extra = re.search(r"extra *== *['\"](.+?)['\"]", marker)
        if extra is None or extra[1] in extras:
            yield package.strip()


@functools.cache
def own_code() -> bytes:
    """Return the running edgekit as a zip archive; the same files make the same bytes.

    It is packed from the imported packages, so that a checkout, an editable and an ordinary installation all work.

    Raises:
        InputError: edgekit is not installed, or its metadata is missing.
    """
    installed = _distribution()
    # An egg-info folder, which a build leaves in a checkout, has PKG-INFO in place of METADATA.
    metadata = installed.read_text("METADATA") or installed.read_text("PKG-INFO")
    if not metadata:
        raise InputError(f"{DISTRIBUTION} is installed without metadata: install it again")
    info = f"{DISTRIBUTION.replace('-', '_')}-{installed.version}.dist-info"
    files = dict(_package_files()) | {
        f"{info}/METADATA": metadata.encode(),
        f"{info}/entry_points.txt": (installed.read_text("entry_points.txt") or "").encode(),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            # The weakest compression: most of the bytes are weights.
            archive.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED, compresslevel=1)
    return buffer.getvalue()


def _distribution() -> importlib.metadata.Distribution:
    """Return the installed distribution of edgekit."""
    try:
        return importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(f"{DISTRIBUTION} is not installed in this Python: pip install -e . in its folder") from error


def _package_files() -> Iterator[tuple[str, bytes]]:
    """Yield each file of edgekit and of its subpackages with its path in an installation (`edgekit/models/…`)."""
    for package in ("edgekit", *(f"edgekit.{name}" for name in _SUBPACKAGES)):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:  # this subpackage is not installed
            continue
        top = Path(next(iter(spec.submodule_search_locations)))  # the folder of the package
        # Each subpackage is listed by itself, because in a clone it is a folder beside `edgekit`.
        skipped = _SUBPACKAGES if package == "edgekit" else ()
        for path in sorted(top.rglob("*")):
            parts = path.relative_to(top).parts
            is_hidden = any(part[0] == "." or part == "__pycache__" for part in parts)
            if path.is_file() and parts[0] not in skipped and not is_hidden:
                yield "/".join((package.replace(".", "/"), *parts)), path.read_bytes()
