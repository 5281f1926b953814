"""`edgekit doctor` on this machine, and libraries that crash at import."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.doctor import libraries
from edgekit.doctor.probe import Probe, import_in_child

Run = Callable[..., tuple[int, str, str]]


def test_this_machine_is_examined(edgekit: Run) -> None:
    code, out, _ = edgekit("doctor", "--json")
    document = json.loads(out)
    assert code == (0 if document["healthy"] else 1)
    assert document["schema"] == "edgekit.doctor/1.0"
    statuses = {finding["check"]: finding["status"] for finding in document["findings"]}
    assert {"board", "onnxruntime", "opencv", "disk", "service"} <= set(statuses)
    assert (statuses["onnxruntime"], statuses["numpy"]) == ("ok", "ok")


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


def test_faults_end_with_exit_code_1_and_one_line(edgekit: Run, broken: Callable[[str, str], None]) -> None:
    broken("onnxruntime", "raise ImportError('no\\x1b[2J')\n")
    code, out, err = edgekit("doctor")
    assert code == 1
    assert "1 fault: onnxruntime" in err
    assert "\x1b[2J" not in out + err


def test_a_users_file_is_not_imported_in_place_of_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of the user was run')")
    monkeypatch.chdir(tmp_path)
    assert import_in_child("numpy", []).stdout == "imported\n"
