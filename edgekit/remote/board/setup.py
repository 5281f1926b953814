"""Runs on the board: unpacks wheels into an environment, without pip, network access or root.

An existing environment is not changed; a new one is renamed to its final name when it is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.errors import HostError
from edgekit.remote.messages import report, report_progress

_READY = ".ready"
_IMPORTS = ("numpy", "cv2", "onnxruntime", "click", "jinja2", "msgspec", "platformdirs", "rich")


def main(plan: dict[str, Any]) -> None:
    """Install the environment and the code of a plan.

    The plan has `root` (edgekit's folder), `environment` and `code` (names), `wheels` and `own_wheel` (paths),
    `system_packages` (whether the environment can import the packages of the board's system), and `keep` (the number of
    environments to keep).

    Raises:
        HostError: A wheel does not work on this board, or another call has installed and removed it.
    """
    root = Path(plan["root"])
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(root / "setup.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = root / "envs" / plan["environment"]
        code = root / "code" / plan["code"]
        wheels, own_wheel = [Path(path) for path in plan["wheels"]], Path(plan["own_wheel"])
        for place, needed in ((environment, wheels), (code, [own_wheel])):
            if not (place / _READY).exists() and not all(wheel.exists() for wheel in needed):
                raise HostError("another edgekit is installing on this board: try again when it has finished")
        if not (environment / _READY).exists():
            with _new_folder(environment) as fresh:
                _make_environment(fresh, wheels, plan["system_packages"])
        if not (code / _READY).exists():
            with _new_folder(code) as fresh:
                _unpack(own_wheel, fresh)
        for wheel in [*wheels, own_wheel]:
            wheel.unlink(missing_ok=True)
        _remove_old(environment, plan["keep"])
        _remove_old(code, plan["keep"])


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    fresh = target.parent / f".new-{target.name}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        (fresh / _READY).write_text("")
        os.sync()
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _make_environment(fresh: Path, wheels: list[Path], system_packages: bool) -> None:
    report("making an environment")
    venv.EnvBuilder(system_site_packages=system_packages, symlinks=True).create(fresh)
    site = fresh / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"
    for number, wheel in enumerate(wheels, 1):
        report_progress("unpacking", number, len(wheels))
        _unpack(wheel, site)
    report("importing the installed packages")
    for module in _IMPORTS:
        _try_import(fresh / "bin" / "python", module)


def _unpack(wheel: Path, site: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            parts = Path(entry.filename).parts
            if entry.filename.startswith("/") or ".." in parts:
                raise HostError(f"a wheel contains the path '{entry.filename!r}'")
            if entry.is_dir():
                continue
            # NAME.data/purelib and platlib belong to site-packages; scripts, headers and data are not needed.
            if parts[0].endswith(".data"):
                if len(parts) < 3 or parts[1] not in ("purelib", "platlib"):
                    continue
                parts = parts[2:]
            target = site.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            if entry.external_attr >> 16 & 0o111:
                target.chmod(0o755)


def _try_import(python: Path, module: str) -> None:
    done = subprocess.run(
        [python, "-P", "-c", f"import {module}"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
    )
    if done.returncode == -signal.SIGILL:
        raise HostError(
            f"importing {module} ended with an illegal instruction: its wheel is not built for this processor"
        )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise HostError(f"importing {module} failed: {lines[-1]}")


def _remove_old(newest: Path, keep: int) -> None:
    for stray in newest.parent.glob(".new-*"):
        shutil.rmtree(stray, ignore_errors=True)
    found = [path for path in newest.parent.iterdir() if (path / _READY).exists()]
    found.sort(key=lambda path: (path / _READY).stat().st_mtime, reverse=True)
    for old in found[keep:]:
        if old == newest:
            continue
        # A running edgekit locks its environment, which is then kept.
        with open(old / _READY) as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old, ignore_errors=True)
