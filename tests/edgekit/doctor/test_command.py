"""`edgekit doctor` on this machine, its bundle, and libraries that crash at import."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.doctor import libraries
from edgekit.doctor.bundle import capture_text, own_names, redact, write_bundle
from edgekit.doctor.examination import as_document
from edgekit.doctor.probe import Finding, Probe, ToolResult, import_in_child, run_tool
from edgekit.errors import HostError
from edgekit.remote.doctor import Examined
from edgekit.remote.job import convert_result

EDGEKIT = (sys.executable, "-m", "edgekit.cli")
Replay = Callable[..., Probe]
Run = Callable[..., tuple[int, str, str]]


def test_this_machine_is_examined_and_the_bundle_is_written(edgekit: Run, tmp_path: Path) -> None:
    bundle = tmp_path / "report.tar.gz"
    code, out, _ = edgekit("doctor", "--json", "--bundle", bundle)
    document = json.loads(out)
    assert code == (0 if document["healthy"] else 1)
    assert document["schema"] == "edgekit.doctor/1.0"
    statuses = {finding["check"]: finding["status"] for finding in document["findings"]}
    assert {"board", "onnxruntime", "opencv", "disk", "service"} <= set(statuses)
    assert (statuses["onnxruntime"], statuses["numpy"]) == ("ok", "ok")
    with tarfile.open(bundle) as archive:
        assert archive.getnames() == ["edgekit-doctor/findings.json", "edgekit-doctor/capture.txt"]
        assert {(member.uid, member.uname, member.mtime) for member in archive} == {(0, "", 0)}
        text = "".join(archive.extractfile(name).read().decode() for name in archive.getnames())  # type: ignore[union-attr]
    assert "==> $ import onnxruntime <==" in text
    for name in own_names():
        assert name not in text


def test_the_examined_libraries_keep_no_record_of_their_user(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    subprocess.run([*EDGEKIT, "doctor"], capture_output=True, env=environment | {"HOME": str(tmp_path)})
    assert list(tmp_path.rglob("*")) == []


def test_the_disk_is_that_of_the_home_folder(edgekit: Run, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(small_disk))
    _, out, _ = edgekit("doctor", "--json")
    (disk,) = [finding for finding in json.loads(out)["findings"] if finding["check"] == "disk"]
    assert (disk["status"], " of 1 MiB free" in disk["text"]) == ("fault", True)


def test_a_detector_in_the_deployed_release_is_found(
    edgekit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))

    def status() -> str:
        _, out, _ = edgekit("doctor", "--json")
        return next(str(each["status"]) for each in json.loads(out)["findings"] if each["check"] == "detector")

    assert status() == "warning"
    folder = tmp_path / "XDG_DATA_HOME/edgekit/deploy/edgekit"
    (folder / "releases/0001-1f2e3d4c").mkdir(parents=True)
    (folder / "releases/0001-1f2e3d4c/detector.onnx").touch()
    (folder / "current").symlink_to("releases/0001-1f2e3d4c")
    assert status() == "ok"


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function that writes a module which child processes import in place of the real one."""

    def plant(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))

    return plant


def test_an_import_with_an_illegal_instruction_crashes_only_a_child_process(broken: Callable[[str, str], None]) -> None:
    broken("onnxruntime", "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    found = libraries.onnxruntime(Probe())
    assert found.status == "fault"
    assert "crashes with an illegal instruction" in found.text
    assert (found.cure or "").startswith("pip install 'onnxruntime>=1.20,!=1.21.0")


def test_an_import_that_fails_is_reported_with_its_last_line(broken: Callable[[str, str], None]) -> None:
    broken("cv2", "raise ImportError('libGL.so.1: cannot open shared object file')\n")
    assert "without libGL" in libraries.opencv(Probe()).text
    broken("numpy", "raise RuntimeError('half a numpy')\n")
    assert libraries.numpy(Probe()).text == "numpy cannot be imported: RuntimeError: half a numpy"


def test_an_address_is_not_wrapped_where_it_is_not_shown_on_a_terminal(
    edgekit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _, out, _ = edgekit("doctor")
    assert re.search(r"^ +→ run edgekit once with internet, or copy https://\S+\.onnx to '\S+'$", out, re.MULTILINE)


def test_faults_end_with_exit_code_1_and_one_line(edgekit: Run, broken: Callable[[str, str], None]) -> None:
    broken("onnxruntime", "raise ImportError('no\\x1b[2J')\n")
    code, out, err = edgekit("doctor")
    assert code == 1
    assert "1 fault: onnxruntime" in err
    assert "\x1b[2J" not in out + err


def test_a_bundle_that_cannot_be_written_loses_no_findings(edgekit: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    _, out, err = edgekit("doctor", "--json", "--bundle", tmp_path / "file/report.tar.gz")
    assert "cannot write" in err
    assert json.loads(out)["findings"]


def test_a_bundle_of_another_name_is_refused(edgekit: Run, tmp_path: Path) -> None:
    code, _, err = edgekit("doctor", "--bundle", tmp_path / "x.zip")
    assert (code, err.count("\n")) == (2, 1)


def test_versions_are_reported_also_of_packages_that_crash() -> None:
    done = import_in_child("no_such_module", ["numpy", "no-such-distribution"])
    assert done.code == 1
    assert done.out.startswith("numpy ")
    assert "no-such" not in done.out
    assert run_tool(["edgekit-no-such-tool"]) is None


def test_a_users_file_is_not_imported_in_place_of_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of the user was run')")
    monkeypatch.chdir(tmp_path)
    assert import_in_child("numpy", []) == ToolResult(0, "imported\n", "")


def test_tools_are_run() -> None:
    assert run_tool(["false"]) == ToolResult(1, "", "")


PRIVATE = """Serial\t\t: 10000000c0ffee42
serial=AB12CD34 board.serialnumber=0x99 smsc95xx.macaddr=B8:27:EB:12:34:56
inet 192.168.178.23/24 brd 192.168.178.255 fe80::ba27:ebff:fe12:3456 2001:db8:1:2:3:4:5:6
ESSID:"Alice's Attic" ssid=Kitchen Net
root=PARTUUID=1234abcd-02 /home/alice/edgekit-env ALICE on alice-pi.local
opencv-python-headless 4.14.0.94 at 12:34:56, kernel 6.12.47+rpt-rpi-v8
"""


def test_a_bundle_contains_neither_names_nor_addresses(tmp_path: Path) -> None:
    target = tmp_path / "bundle.tar.gz"
    write_bundle(target, {"text": "alice"}, {"proc/cpuinfo": PRIVATE}, ["alice", "alice-pi"])
    with tarfile.open(target) as archive:
        text = archive.extractfile("edgekit-doctor/capture.txt").read().decode()  # type: ignore[union-attr]
    for secret in (
        "c0ffee",
        "AB12CD34",
        "0x99",
        "B8:27",
        "192.168",
        "fe80",
        "2001:db8",
        "Attic",
        "Kitchen",
        "1234abcd",
    ):
        assert secret not in text, secret
    assert "alice" not in text.lower()
    for kept in ("opencv-python-headless 4.14.0.94", "12:34:56", "6.12.47+rpt-rpi-v8"):
        assert kept in text


def test_a_bundle_contains_no_mounts_of_servers() -> None:
    mounts = "//nas.smith.lan/photos /mnt cifs username=alice.smith 0 0\n/dev/mmcblk0p2 / ext4 rw 0 0\n"
    text = capture_text({"proc/mounts": mounts, "proc/cpuinfo": "a b\n"})
    assert "smith" not in text
    assert "==> proc/mounts <==\n/dev/mmcblk0p2 / ext4 rw 0 0\n==> proc/cpuinfo <==\na b\n" in text


@pytest.mark.parametrize("text", ["1.2.3", "version 1.21.0", "Cortex-A53", "16:44:05", "0x50005"])
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text, ["pi"]) == text


def test_findings_from_elsewhere_are_read_back_and_made_harmless() -> None:
    findings = [Finding("disk", "fault", "full\x1b[2J\n✓ all well", "free some"), Finding("camera", "ok", "one")]
    read = convert_result("kitchen", as_document(findings), Examined).findings
    assert read == [Finding("disk", "fault", "full\\x1b[2J ✓ all well", "free some"), findings[1]]


@pytest.mark.parametrize("document", [{}, {"findings": [3]}, {"findings": [{"check": "a", "status": "great"}]}])
def test_what_is_no_findings_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(HostError, match="kitchen"):
        convert_result("kitchen", document, Examined)


def test_what_a_bundle_holds_can_be_replayed(replay: Replay) -> None:
    from edgekit.doctor.examination import examine

    probe = replay("doctor-pi3bplus-trixie-bad")
    examine(probe)
    text = capture_text(probe.seen)
    for title in ("proc/cpuinfo", "$ vcgencmd get_throttled", "$ import onnxruntime", "proc/812/fd/7 -> /dev/video1",
                  "sys/class/thermal/thermal_zone0/temp", "sys/class/video4linux/video1/name"):  # fmt: skip
        assert f"==> {title} <==\n" in text
