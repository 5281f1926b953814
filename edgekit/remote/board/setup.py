"""Runs on the board: receives files, and makes environments from wheels, without pip, network access or root.

All new files and folders are renamed to their final names when they are complete, so what exists is complete.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from pathlib import Path
from typing import IO, Any

from edgekit.errors import HostError
from edgekit.files import sha256_of
from edgekit.remote.board.loader import report

_IMPORTS = ("numpy", "cv2", "onnxruntime", "click", "jinja2", "msgspec", "platformdirs", "rich")
_LOCK_WAIT_S = 10.0
_IMPORT_CODE = "import sys\nfor name in sys.argv[1:]: print(name, flush=True); __import__(name)"


def main(plan: dict[str, Any]) -> None:
    """Receive a tar archive on stdin, whose files belong into the folders `envs/NAME`, `code/NAME` and `store`.

    The files are unpacked in the folder `.new`, and from there each environment, code and file is renamed to its place.

    The plan has `root` (edgekit's folder), `files` (their number), `system_packages` (whether an environment can import
    the packages of the board's system), and `keep` (how many environments, and how many copies of edgekit, to keep).

    Raises:
        HostError: An edgekit on the board uses the folder, a wheel does not work here, or a file is missing or damaged.
    """
    root = Path(plan["root"])
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = root / ".new"
    with open(root / "lock", "w") as lock:  # `run_job` and `clean` (prepare.py) lock it, too
        _acquire(lock)
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            count = _receive(fresh, plan["system_packages"])
            if count != plan["files"]:  # an archive that is cut between two files has no error
                raise HostError(f"{count} of {plan['files']} files arrived: start again")
            for environment in fresh.glob("envs/*"):
                _try_imports(environment / "bin/python")
            os.sync()  # content before names: after a power cut, what has its final name is complete
            for path in [*fresh.glob("envs/*"), *fresh.glob("code/*"), *fresh.glob("store/*")]:
                target = root / path.relative_to(fresh)
                target.parent.mkdir(exist_ok=True)
                if not target.exists():  # another machine may have sent it meanwhile
                    path.rename(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        for kind in ("envs", "code"):  # files in `store` stay until `clean`
            newest_first = sorted(root.glob(f"{kind}/*"), key=lambda path: path.stat().st_mtime, reverse=True)
            for old in newest_first[plan["keep"] :]:
                shutil.rmtree(old, ignore_errors=True)


def _acquire(lock: IO[str]) -> None:
    """Lock an open file; wait some seconds for an earlier call that is ending, after Ctrl-C or a lost connection."""
    end_s = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end_s:
                raise HostError("another edgekit works on this board: try again when it has ended") from None
            time.sleep(0.1)
        else:
            return


def _receive(fresh: Path, system_packages: bool) -> int:
    """Store and unpack the files of the archive; return their number.

    `store/SHA256.SUFFIX` is stored as it is, `code/NAME/code.zip` is unpacked, and the wheels of `envs/NAME/` are
    unpacked into a new environment.
    """
    received = 0
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for member in archive:
            received += 1
            content = archive.extractfile(member)
            assert content is not None  # the archive has regular files only
            folder, name = fresh / Path(member.name).parent, Path(member.name).name
            if folder.name == "store":
                _store(content, folder, name)
            elif folder.parent.name == "code":
                _unpack(content, folder)
            else:
                if not folder.exists():
                    report("making an environment")
                    venv.EnvBuilder(system_site_packages=system_packages, symlinks=True).create(folder)
                site = folder / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"
                try:
                    _unpack(content, site)
                except zipfile.BadZipFile:
                    raise HostError(
                        f"{name} is damaged: delete the folder 'wheels' of edgekit's cache on the "
                        "machine that sent it (~/.cache/edgekit)"
                    ) from None
    return received


def _store(content: IO[bytes], folder: Path, name: str) -> None:
    """Write a file of the store, whose name without suffix is its SHA-256, and check its content."""
    _write(content, folder / name)
    if sha256_of(folder / name) != Path(name).stem:
        raise HostError("a file changed while it was sent: start again")


def _write(content: IO[bytes], path: Path) -> None:
    """Write a stream to a file, whose folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        shutil.copyfileobj(content, stream)


def _unpack(content: IO[bytes], site: Path) -> None:
    """Unpack a wheel, or the zip archive of edgekit, into the folder `site`."""
    archive = site / ".archive"
    _write(content, archive)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(site)
    archive.unlink()
    # NAME.data/purelib and platlib of a wheel belong to site-packages; scripts, headers and data are not needed.
    for data in site.glob("*.data"):
        for libraries in data.glob("p*lib"):
            shutil.copytree(libraries, site, dirs_exist_ok=True)
        shutil.rmtree(data)


def _try_imports(python: Path) -> None:
    """Import the installed libraries with an environment's Python.

    Raises:
        HostError: An import failed or crashed.
    """
    report("importing the installed packages")
    done = subprocess.run(
        [python, "-P", "-c", _IMPORT_CODE, *_IMPORTS],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
    )
    module = (done.stdout.split() or [""])[-1]  # the one whose import began last
    if done.returncode == -signal.SIGILL:
        raise HostError(
            f"importing {module} ended with an illegal instruction: its wheel is not built for this processor"
        )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise HostError(f"importing {module} failed: {lines[-1]}")
