"""`edgekit bench` as a user calls it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekit.cli.bench import command

EDGEKIT = Path(sys.executable).with_name("edgekit")
QUICK = ("--seconds", "0.01", "--threads", "1")


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_a_table_for_people_and_a_report_in_a_file(tiny_model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = bench(tiny_model, *QUICK, "--detector", "none", "-o", report)
    assert result.exit_code == 0, result.output
    assert "150 frames decoded into memory and played over and over" in result.stdout
    assert "pipeline" in result.stdout
    document = json.loads(report.read_text())
    assert document["clip"]["source"] == "demo"
    assert document["clip"]["complete"] is True
    assert {cell["kind"] for cell in document["cells"]} == {"inference", "classifier", "pipeline"}
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_json_has_stdout_for_itself(tiny_model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = bench(tiny_model, *QUICK, "--no-pipeline", "--batch", "3", "--json", "-o", report)
    document = json.loads(result.stdout)
    assert document == json.loads(report.read_text())
    assert document["clip"] is None
    assert {cell["kind"] for cell in document["cells"]} == {"inference", "classifier"}
    assert {cell["batch"] for cell in document["cells"]} == {3}
    assert "inference" in result.stderr


def test_models_and_thread_counts_make_a_matrix(tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    shutil.copy(tiny_model, other)
    result = bench(tiny_model, other, "--threads", "1,2", "--seconds", "0.01", "--no-pipeline", "--json")
    cells = json.loads(result.stdout)["cells"]
    assert len({(cell["model"], cell["intra_op_threads"], cell["kind"]) for cell in cells}) == len(cells) == 8


def test_haar_takes_yunets_place_once_and_is_named(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edgekit.device import detect
    from edgekit.downloads import UnavailableError

    def offline(*_: object, **__: object) -> Path:
        raise UnavailableError("no network")

    monkeypatch.setattr(detect, "cached_download", offline)
    picture = tmp_path / "frame.png"
    import cv2
    import numpy as np

    cv2.imwrite(str(picture), np.zeros((64, 64, 3), np.uint8))
    result = bench(tiny_model, "--seconds", "0.01", "--threads", "1,2", "--source", picture, "--json")
    cells = json.loads(result.stdout)["cells"]
    assert {cell["detector"] for cell in cells if cell["kind"] == "pipeline"} == {"haar"}
    assert result.stderr.count("no network") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "1,,2"], "is no list of numbers"),
        (["--threads", "0"], "is no list of numbers"),
        (["--threads", "9" * 5], "from 1 to 1024"),
        (["--threads", "1,1"], "thread count given twice: 1"),
        (["--seconds", "0"], "--seconds"),
        (["--batch", "0"], "--batch"),
        (["--source", "nowhere.mp4"], "nowhere.mp4"),
        (["--detector", "haar", "--detector-model", "x.onnx"], "takes no model file"),
    ],
)
def test_bad_options_are_refused_with_one_line(tiny_model: Path, arguments: list[str], message: str) -> None:
    done = cli(str(tiny_model), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "message"), [(None, "does not exist"), (b"text", "cannot be loaded"), (b"", "cannot be loaded")]
)
def test_bad_models_are_refused_with_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    done = cli(str(path), "-o", str(tmp_path / "report.json"))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "report.json").exists()


def test_a_report_that_cannot_be_written_is_said_before_anything_is_measured(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = cli(str(tiny_model), "--seconds", "3600", "-o", str(tmp_path / "file" / "report.json"))
    assert done.returncode == 74
    assert "report.json" in done.stderr


def test_ctrl_c_leaves_the_old_report_and_nothing_else(tiny_model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text("old")
    arguments = [str(tiny_model), "--no-pipeline", "--seconds", "600", "-o", str(report)]
    with subprocess.Popen([EDGEKIT, "bench", *arguments], stderr=subprocess.PIPE, text=True) as process:
        while len(os.listdir(tmp_path)) < 2 and process.poll() is None:  # noqa: PTH208
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.strip() == "edgekit: interrupted"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("report.json", "old")]


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command_line = [EDGEKIT, "bench", *arguments]
    return subprocess.run(command_line, capture_output=True, text=True, timeout=60)
