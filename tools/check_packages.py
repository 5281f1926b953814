"""Build the source archive and, from it, the wheel, and check that both contain all files of the source tree.

Usage: `check_packages.py FOLDER`
"""

from __future__ import annotations

import configparser
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def expected_files() -> set[str]:
    """Return the installed paths of the files of every package in setup.cfg."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    files = set()
    for package in settings["options"]["packages"].split():
        folder = ROOT / package.replace(".", "/")
        files |= {f"{package.replace('.', '/')}/{path.name}" for path in folder.iterdir() if _ships(path)}
    return files


def build(folder: Path) -> tuple[Path, Path]:
    """Return the paths of the source archive and of the wheel built from it, both in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    build_sdist = f"import setuptools.build_meta as backend; print(backend.build_sdist({str(folder)!r}))"
    name = subprocess.run(
        [sys.executable, "-c", build_sdist], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()[-1]
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(folder / name)], check=True)
    return folder / name, next(folder.glob("*.whl"))


def missing_files(sdist: Path, wheel: Path) -> list[str]:
    """Return the files that the source archive or the wheel lacks, each as "ARCHIVE: FILE"."""
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    missing = [f"wheel: {name}" for name in sorted(expected_files() - in_wheel)]
    for name in sorted(expected_files()):
        _, _, inner = name.partition("/")
        if name not in in_sdist and inner not in in_sdist:
            missing.append(f"source archive: {name}")
    return missing


def _ships(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.suffix != ".pyc"


def main() -> int:
    """Build into the folder on the command line; return 0 if no file is missing, else 1."""
    sdist, wheel = build(Path(sys.argv[1]).resolve())
    missing = missing_files(sdist, wheel)
    for name in missing:
        print(f"missing in {name}")
    if not missing:
        print(f"{sdist.name} and {wheel.name} contain all {len(expected_files())} files of the packages")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
