"""The Debian package: its contents, its dependencies, and a Debian 13 without pip that installs and uses it."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from packaging.version import Version

from edgekit.device.service import ServiceSpec, unit_text
from tests.device.teach.shapes import write_pictures
from tools.debian_package import SOURCES, debian_packages, debian_version, read_metadata

from .machine import Debian, build_package, make_debian, package_of_version

MODULES = "./usr/lib/python3/dist-packages/"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the Debian package."""
    return build_package(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def control(built: tuple[Path, Path]) -> dict[str, str]:
    """The fields of the package."""
    text = subprocess.run(["dpkg-deb", "--field", built[1]], check=True, capture_output=True, text=True).stdout
    return dict(line.split(": ", 1) for line in text.splitlines() if re.match(r"[A-Z][\w-]+: ", line))


def names(field: str) -> list[str]:
    return [entry.split()[0] for entry in field.split(", ")]


def test_it_holds_the_modules_of_the_wheel_and_can_be_removed_by_apt_only(built: tuple[Path, Path]) -> None:
    wheel, package = built
    listed = subprocess.run(["dpkg-deb", "--contents", package], check=True, capture_output=True, text=True).stdout
    entries = [line.split(maxsplit=5) for line in listed.splitlines()]
    modules = {entry[5].removeprefix(MODULES) for entry in entries if entry[5].startswith(MODULES)}
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert shipped <= modules
    assert not any(name.endswith("/RECORD") for name in modules)
    assert {entry[1] for entry in entries} == {"root/root"}
    modes = {entry[5]: entry[0] for entry in entries}
    assert modes["./usr/bin/edgekit"] == "-rwxr-xr-x"
    assert modes[MODULES + "edgekit/__init__.py"] == "-rw-r--r--"


def test_its_dependencies_are_those_of_the_wheel(built: tuple[Path, Path], control: dict[str, str]) -> None:
    metadata = read_metadata(built[0])
    assert set(debian_packages(metadata, ("device", "mqtt", "preview"))) <= set(control["Depends"].split(", "))
    assert {"python3-onnxruntime", "python3-opencv", "opencv-data", "python3-msgspec"} <= set(names(control["Depends"]))
    assert "python3-onnx" in names(control["Recommends"])
    assert Version(metadata["Version"]).base_version == re.split("[~+]", control["Version"])[0]


def test_versions_have_pythons_order() -> None:
    versions = ["0.3.0.dev1", "0.3.0a1", "0.3.0rc1.dev2", "0.3.0rc1", "0.3.0", "0.3.0.post1", "0.3.1"]
    assert versions == sorted(versions, key=Version)
    for older, newer in itertools.pairwise(versions):
        words = ["dpkg", "--compare-versions", debian_version(older), "lt", debian_version(newer)]
        assert subprocess.run(words).returncode == 0, (older, newer)


def test_lintian_finds_no_error(built: tuple[Path, Path]) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("no lintian")
    done = subprocess.run(["lintian", "--fail-on", "error", built[1]], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_its_unit_has_the_limits_of_service_install(tmp_path: Path) -> None:
    spec = ServiceSpec("NAME", ("/usr/bin/edgekit", "run"), tmp_path)
    written = set(unit_text(spec, "system", udevadm="/usr/bin/udevadm").splitlines())
    packaged = set((SOURCES / "edgekit@.service").read_text().splitlines())
    keys = ("#", "Description=", "WorkingDirectory=", "ExecStart", "StateDirectory=", "CacheDirectory=", "ReadWrite")
    own = {line for line in written ^ packaged if line and not line.startswith((*keys, "Environment=XDG"))}
    assert own == {"User=edgekit", "Documentation=file:///usr/share/doc/edgekit/README.Debian"}


@pytest.fixture(scope="module")
def machine(control: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Debian:
    """A Debian with everything that the package needs."""
    wanted = [entry for entry in names(control["Depends"]) if entry != "|"]
    return make_debian([*wanted, "python3-onnx"], tmp_path_factory.mktemp("debian"))


def test_without_pip_apt_installs_upgrades_and_purges_what_teaches_and_runs(
    machine: Debian, built: tuple[Path, Path], control: dict[str, str], tmp_path: Path
) -> None:
    def run(command: str, code: int = 0) -> str:
        done = machine.run(command)
        print(command, done.stdout, done.stderr, sep="\n")
        assert done.returncode == code, done.stderr[-2000:]
        assert "Schema error" not in done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    home = machine.path("root")
    home.mkdir(parents=True)
    old, new = (
        Path(shutil.copy(package, home)).name
        for package in (package_of_version(built[1], f"{control['Version']}~rc1", tmp_path), built[1])
    )
    write_pictures(home / "things")

    install = "apt-get install -y --no-install-recommends"
    run(f"{install} ./{old}")
    run("! command -v pip && id edgekit && edgekit --version")
    assert "python3-numpy" not in run("edgekit doctor")  # nothing to repair
    assert "happy" in run("edgekit run --source demo --max-frames 20 --jsonl demo.jsonl --save demo.mp4")
    run("edgekit teach things -o my.onnx --image-size 96")
    run("edgekit run --source things/disc/0.png --model my.onnx --jsonl taught.jsonl")
    assert '"disc"' in (home / "taught.jsonl").read_text()
    assert "apt install" in run("apt-get purge -y python3-onnx >&2; edgekit teach things -o b.onnx --image-size 96", 1)

    (home / "cpuinfo").write_text("Features\t: fp asimd aes crc32 cpuid\n")  # of a Cortex-A53 and A72
    code = "from pathlib import Path; from edgekit.install_hint import illegal_instruction as warning; "
    assert "sudo pip install" in run(f"""python3 -c "{code} print(warning('aarch64', Path('cpuinfo')))" """)
    assert run(f"""python3 -c "{code} print(warning('x86_64', Path('cpuinfo')))" """) == "None\n"

    run("touch /etc/edgekit/door.toml && mkdir -p /var/lib/edgekit/door && touch /var/lib/edgekit/door/results.jsonl")
    run(f"{install} ./{new} && edgekit --version && ls /etc/edgekit/door.toml")
    run("apt-get remove -y edgekit && ls /etc/edgekit/door.toml && ! ls /usr/lib/python3/dist-packages/edgekit")
    run("apt-get purge -y edgekit && ! ls /etc/edgekit && ls /var/lib/edgekit/door/results.jsonl && id edgekit")
    run(f"rm -r /var/lib/edgekit/door && {install} ./{new} && apt-get purge -y edgekit && ! id edgekit")
