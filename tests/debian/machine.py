"""The Debian package, and a Debian 13 with the packages that edgekit needs: made once, cached, and layered per test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.virtual_pi.errors import UnavailableError
from tests.virtual_pi.system import cached, mmdebstrap

ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 600
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# $1 system, $2 disk: its layer and its root; the rest is the command.
_ENTER = """
set -e
system=$1 disk=$2 root=$2/root
shift 2
mount -t overlay overlay -o "lowerdir=$system,upperdir=$disk/upper,workdir=$disk/work" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for name in null zero full random urandom tty; do
    : >"$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
ln -s /proc/self/fd "$root/dev/fd"
exec chroot "$root" "$@"
"""


def build_package(folder: Path) -> tuple[Path, Path]:
    """Return the wheel and the Debian package, built into `folder` as by `make deb`."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb")
    tools = ROOT / "tools"
    subprocess.run([sys.executable, tools / "check_packages.py", folder], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, tools / "debian_package.py", wheel, folder], check=True, capture_output=True)
    (package,) = folder.glob("*.deb")
    return wheel, package


def package_of_version(package: Path, version: str, folder: Path) -> Path:
    """Return a copy of a package that has another version."""
    subprocess.run(["dpkg-deb", "--raw-extract", package, folder / version], check=True)
    control = folder / version / "DEBIAN/control"
    lines = control.read_text().splitlines()
    control.write_text("\n".join(f"Version: {version}" if line[:8] == "Version:" else line for line in lines) + "\n")
    target = folder / f"edgekit_{version}_all.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "--build", folder / version, target], check=True)
    return target


class Debian:
    """A system whose changes are in `folder`; it runs one command at a time, as root."""

    def __init__(self, system: Path, folder: Path) -> None:
        self._system = system
        self.disk = folder
        for name in ("upper", "work", "root"):
            (folder / name).mkdir(parents=True)

    def path(self, inside: str) -> Path:
        """Return the path of a file that the system or the test has written."""
        return self.disk / "upper" / inside.lstrip("/")

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Return the result of a shell command in /root."""
        spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        return subprocess.run(
            [*spaces, "sh", "-c", _ENTER, "enter", self._system, self.disk, "sh", "-c", f"cd /root; {command}"],
            env={"PATH": _PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )


def make_debian(depends: list[str], folder: Path) -> Debian:
    """Return a Debian 13 with the packages `depends`; the test is skipped if there is none."""
    try:
        return Debian(_make_system(depends), folder)
    except UnavailableError as error:
        pytest.skip(f"no Debian: {error}")


def _make_system(depends: list[str]) -> Path:
    if os.geteuid() != 0:
        raise UnavailableError("it needs root")
    mirror = [os.environ["MIRROR"]] if os.environ.get("MIRROR") else []

    def make(fresh: Path) -> None:
        include = f"--include={','.join(depends)}"
        mmdebstrap("--variant=apt", include, "--skip=cleanup/apt/lists", "trixie", str(fresh), *mirror)

    return cached("package", " ".join(depends).encode(), make)
