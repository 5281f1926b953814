"""Build a Debian package from a wheel: the device side, on packages of Debian 13 and Raspberry Pi OS Trixie.

Usage: `debian_package.py WHEEL FOLDER`. It needs dpkg-deb, but neither root nor the dependencies.
"""

from __future__ import annotations

import email
import email.message
import email.utils
import gzip
import re
import shutil
import string
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

SOURCES = Path(__file__).parents[1] / "packaging/debian"
# Extras whose packages are installed always, and those that apt installs by default.
DEPENDS, RECOMMENDS = ("device", "mqtt", "preview"), ("teach",)
_RENAMED = {"opencv-python-headless": "python3-opencv"}
_MODULES = "usr/lib/python3/dist-packages"
_COMMAND = """#!/usr/bin/python3
import sys

from edgekit.cli import main
from edgekit.install_hint import illegal_instruction

if __name__ == "__main__":
    if warning := illegal_instruction():
        print(f"edgekit: warning: {warning}", file=sys.stderr)
    sys.exit(main())
"""
# Installed path and mode of the files of packaging/debian.
_FILES = {
    "copyright": ("usr/share/doc/edgekit/copyright", 0o644),
    "README.Debian": ("usr/share/doc/edgekit/README.Debian", 0o644),
    "edgekit@.service": ("usr/lib/systemd/system/edgekit@.service", 0o644),
    "edgekit.sysusers": ("usr/lib/sysusers.d/edgekit.conf", 0o644),
    "postinst": ("DEBIAN/postinst", 0o755),
    "prerm": ("DEBIAN/prerm", 0o755),
    "postrm": ("DEBIAN/postrm", 0o755),
}


def debian_version(version: str) -> str:
    """Return a version whose order in dpkg is the order of Python's versions.

    >>> debian_version("0.3.0rc1"), debian_version("0.3.0.dev2")
    ('0.3.0~rc1', '0.3.0~~dev2')
    """
    return re.sub(r"(a|b|rc)(?=\d)", r"~\1", version).replace(".dev", "~~dev")


def debian_packages(metadata: email.message.Message, extras: Iterable[str]) -> list[str]:
    """Return the Debian packages of a wheel's requirements with `extras`, each with its lowest version."""
    chosen = [*extras]
    found = set()
    for requirement in map(Requirement, metadata.get_all("Requires-Dist", [])):
        marker = requirement.marker
        wanted = marker is None or any(marker.evaluate({"extra": extra}) for extra in chosen)
        if wanted and requirement.name != metadata["Name"]:
            name = _RENAMED.get(requirement.name, f"python3-{requirement.name}")
            lowest = [limit.version for limit in requirement.specifier if limit.operator == ">="]
            found.add(name + "".join(f" (>= {version})" for version in lowest))
    return sorted(found)


def read_metadata(wheel: Path) -> email.message.Message:
    """Return the metadata of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def build(wheel: Path, folder: Path) -> Path:
    """Return the path of the package, written to `folder`."""
    metadata = read_metadata(wheel)
    version = debian_version(metadata["Version"])
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "root"
        _unpack(wheel, root / _MODULES)
        _write(root / "usr/bin/edgekit", _COMMAND, 0o755)
        (root / "etc/edgekit").mkdir(parents=True)
        for name, (target, mode) in _FILES.items():
            _write(root / target, (SOURCES / name).read_text(), mode)
        maintainer = f"{metadata['Author']} <{metadata['Author-Email']}>"
        log = f"edgekit ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md of the source.\n\n"
        log += f" -- {maintainer}  {email.utils.formatdate()}\n"
        (root / "usr/share/doc/edgekit/changelog.gz").write_bytes(gzip.compress(log.encode(), mtime=0))
        depends = debian_packages(metadata, DEPENDS)
        recommends = set(debian_packages(metadata, RECOMMENDS)) - set(debian_packages(metadata, ()))
        control = string.Template((SOURCES / "control").read_text()).substitute(
            version=version,
            maintainer=maintainer,
            homepage=dict(url.split(", ") for url in metadata.get_all("Project-URL", []))["Homepage"],
            installed_kib=sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) // 1024,
            depends=", ".join(depends),
            recommends=", ".join(sorted(recommends)),
        )
        _write(root / "DEBIAN/control", control, 0o644)
        for path in (root, *root.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        package = folder / f"edgekit_{version}_all.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(root), str(package)], check=True)
    return package


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    (info,) = target.glob("*.dist-info")
    # Without RECORD pip neither removes nor replaces the package, and its message names INSTALLER.
    (info / "RECORD").unlink()
    (info / "INSTALLER").write_text("debian\n")
    shutil.rmtree(info / "licenses")
    for path in target.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
