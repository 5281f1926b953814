"""An unpacked arm64 Debian with an sshd, made once and cached: the parts of a fresh Raspberry Pi OS that edgekit needs.

It is unpacked without running maintainer scripts; `_finish` does their necessary steps. It has Python, but none of
edgekit's dependencies; a system with a camera has those of `edgekit run`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from .camera import PACKAGES as CAMERA_PACKAGES
from .camera import add_camera, ingredients
from .errors import UnavailableError

PYTHONS = {"trixie": "3.13", "bookworm": "3.11"}
USER, USER_ID = "pi", 1000
_PACKAGES = (
    "base-files,base-passwd,bash,coreutils,dash,diffutils,findutils,gawk,grep,gzip,hostname,libc-bin,libpam-modules,"
    "libpam-modules-bin,libpam-runtime,libstdc++6,login,mount,netbase,openssh-server,openssh-sftp-server,passwd,procps,"
    "python3,sed,tar,util-linux"
)
_MAKE_TIMEOUT_S = 1800


def cache_folder() -> Path:
    """Return the folder of unpacked systems: $EDGEKIT_VIRTUAL_PI, else in the user's cache."""
    named = os.environ.get("EDGEKIT_VIRTUAL_PI")
    return Path(named) if named else Path.home() / ".cache" / "edgekit-virtual-pi"


def make_system(suite: str, camera: bool = False) -> Path:
    """Return the root folder of a Debian of that suite; it is unpacked on the first call.

    Raises:
        UnavailableError: A tool, root rights, Debian's archive or the package index is not available.
    """
    if camera and suite != "trixie":
        raise UnavailableError(f"{suite}'s libcamera has no virtual camera: only trixie's has")

    def make(fresh: Path) -> None:
        packages = f"{_PACKAGES},{CAMERA_PACKAGES}" if camera else _PACKAGES
        source = f"deb {_archive()} {suite} main"
        mmdebstrap("--arch=arm64", "--variant=extract", f"--include={packages}", suite, str(fresh), source)
        _finish(fresh)
        libraries = [fresh / f"usr/lib/python{PYTHONS[suite]}", fresh / "usr/lib/python3"]
        if camera:
            libraries.append(add_camera(fresh))
        compile_python(fresh, PYTHONS[suite], libraries)

    content = Path(__file__).read_bytes() + (ingredients() if camera else b"")
    return cached(f"{suite}-camera" if camera else suite, content, make)


def cached(name: str, content: bytes, make: Callable[[Path], None]) -> Path:
    """Return a folder of the cache; `make` writes it if there is none that was made from the same `content`."""
    recipe = hashlib.sha256(content).hexdigest()[:12]
    root = cache_folder() / f"{name}-{recipe}"
    if root.exists():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    for old in root.parent.glob(f"{name}-{'?' * len(recipe)}"):
        shutil.rmtree(old)
    fresh = root.with_name(f".new-{root.name}-{os.getpid()}")
    try:
        make(fresh)
        fresh.rename(root)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return root


def mmdebstrap(*arguments: str) -> None:
    """Run mmdebstrap.

    Raises:
        UnavailableError: It is not installed, or it failed.
    """
    if shutil.which("mmdebstrap") is None:
        raise UnavailableError("no mmdebstrap: apt-get install mmdebstrap")
    command = ["mmdebstrap", "--quiet", '--aptopt=APT::Install-Recommends "false"', *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MAKE_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"mmdebstrap took longer than {_MAKE_TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise UnavailableError(f"mmdebstrap failed: {done.stderr.strip()[-300:]}")


def compile_python(root: Path, version: str, folders: Sequence[Path]) -> None:
    """Write the bytecode of folders below a board's `root`, if this machine has a Python of that version."""
    # Bytecode is the same on every processor. The emulated Python would compile at every start, because the user pi may
    # not write there.
    for candidate in (f"/usr/bin/python{version}", f"python{version}"):
        python = shutil.which(candidate)
        if python and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            compile_all = [python, "-m", "compileall", "-q", "-j", "2", "-s", str(root), "-p", "/", *map(str, folders)]
            subprocess.run(compile_all, capture_output=True)
            return


def _archive() -> str:
    named = os.environ.get("MIRROR")
    if named:
        return named
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    if shutil.which("apt-get") is None:
        raise UnavailableError("no apt-get to find Debian's archive: set MIRROR")
    uris = subprocess.run(targets, capture_output=True, text=True).stdout
    found = re.search(r"^https?:\S*/debian/?$", uris, re.MULTILINE)
    if found is None:
        raise UnavailableError("apt has no Debian archive: set MIRROR")
    return found.group()


def _finish(root: Path) -> None:
    etc = root / "etc"
    for name in ("passwd", "group"):
        master = (root / f"usr/share/base-passwd/{name}.master").read_text()
        (etc / name).write_text(master)
    with (etc / "passwd").open("a") as users:
        users.write("sshd:x:996:65534::/run/sshd:/usr/sbin/nologin\n")
        users.write(f"{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:/bin/bash\n")
    with (etc / "group").open("a") as groups:
        groups.write(f"{USER}:x:{USER_ID}:\n")
    names = [line.partition(":")[0] for line in (etc / "passwd").read_text().splitlines()]
    (etc / "shadow").write_text("".join(f"{name}:*:20000:0:99999:7:::\n" for name in names))
    (etc / "shadow").chmod(0o640)
    (etc / "hostname").write_text("raspberrypi\n")
    (etc / "hosts").write_text("127.0.0.1 localhost raspberrypi\n")
    home = root / "home" / USER
    home.mkdir(parents=True)
    os.chown(home, USER_ID, USER_ID)
    (root / "run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
