"""`edgekit bench` from the command line."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekit.cli.commands.bench import command
from edgekit.report.document import read_document
from tests.waiting import has_ended, wait_until

EDGEKIT = (sys.executable, "-m", "edgekit.cli")
QUICK = ("--seconds", "0.01", "--threads", "1", "--processes", "1", "--cool-down", "0")


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_a_table_for_people_and_a_report_in_a_file(tiny_model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = bench(tiny_model, *QUICK, "--detector", "none", "-o", report)
    assert result.exit_code == 0, result.output
    assert "frames: 150 of 'demo'" in result.stdout
    assert re.search(r"^ *run +1 ", result.stdout, re.MULTILINE)
    assert result.stdout.splitlines()[-1].startswith("edgekit run on this machine: about ")
    document = json.loads(report.read_text())
    (entry,) = document["boards"]
    assert entry["clip"]["source"] == "demo"
    assert entry["clip"]["complete"] is True
    assert {cell["kind"] for cell in entry["cells"]} == {"net", "frame", "run"}
    assert json.loads(json.dumps(read_document(report).as_document())) == document
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_json_has_stdout_for_itself(tiny_model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = bench(tiny_model, *QUICK, "--no-pipeline", "--batch", "3", "--note", "fan=none", "--json", "-o", report)
    document = json.loads(result.stdout)
    assert document == json.loads(report.read_text())
    (entry,) = document["boards"]
    assert entry["clip"] is None
    assert entry["notes"] == {"fan": "none"}
    assert {cell["kind"] for cell in entry["cells"]} == {"net"}
    assert {cell["batch"] for cell in entry["cells"]} == {3}
    assert "net" in result.stderr


@pytest.mark.slow
def test_models_and_thread_counts_make_a_matrix_of_several_processes(tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    shutil.copy(tiny_model, other)
    arguments = ("--threads", "1", "--seconds", "0.03", "--cool-down", "0", "--no-pipeline", "--json")
    (entry,) = json.loads(bench(tiny_model, other, *arguments).stdout)["boards"]
    cells = entry["cells"]
    assert len({(cell["model"], cell["intra_op_threads"], cell["kind"]) for cell in cells}) == len(cells) == 2
    for cell in cells:
        assert len(cell["processes"]) == 3
        assert cell["latency"]["count"] >= 100
        assert cell["median_interval_ms"] is not None
        assert {"governor", "temperature_c", "clock_mhz", "throttling"} <= set(cell["processes"][0]["before"])
    starts = sorted((process["started_s"], index) for index, cell in enumerate(cells) for process in cell["processes"])
    rounds = [[index for _, index in starts[first : first + 2]] for first in (0, 2, 4)]
    assert [sorted(one) for one in rounds] == [[0, 1]] * 3


def test_a_report_that_cannot_be_written_is_an_error_before_the_measurement(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = cli(str(tiny_model), "--seconds", "3600", "-o", str(tmp_path / "file" / "report.json"))
    assert done.returncode == 74
    assert "report.json" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_the_end_of_a_connection_ends_the_worker_too_and_leaves_no_frames(
    tiny_model: Path, number: signal.Signals
) -> None:
    options = {"models": [str(tiny_model)], "detector": "none", "seconds": 600, "threads": [1]}
    job = json.dumps({"options": options, "names": {}, "keep": None})
    # Under nohup, the child process would inherit the ignored SIGHUP.
    default = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
    with subprocess.Popen(
        [*EDGEKIT, "job"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=default
    ) as process:
        process.stdin.write(f"{job}\n")
        process.stdin.flush()
        assert any("edgekit-job" in line for line in process.stderr)
        wait_until(lambda: children(process.pid))
        (worker,) = children(process.pid)
        # /dev/shm also contains files of other programs; the files of this process are already deleted.
        opened = [os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir()]  # noqa: PTH115
        assert [path for path in opened if path.startswith("/dev/shm/") and not path.endswith(" (deleted)")] == []
        assert any(path.endswith(" (deleted)") for path in opened)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGHUP else -signal.SIGKILL)
    wait_until(lambda: has_ended(worker))


def measuring(model: Path, report: Path) -> subprocess.Popen[str]:
    """Start a benchmark of three processes of three seconds each."""
    options = ("--no-pipeline", "--threads", "1", "--cool-down", "0", "--seconds", "3", "-o", report)
    command_line = [*EDGEKIT, "bench", model, *options]
    return subprocess.Popen(list(map(str, command_line)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(tiny_model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with measuring(tiny_model, report) as process:
        while not process.stdout.readline().startswith("2/3 "):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr.strip()) == (130, "edgekit: interrupted")
    (board,) = read_document(report).boards
    assert board.complete is False
    assert sum(len(cell.processes) for cell in board.cells) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_process_that_is_killed_leaves_the_report_of_those_before(tiny_model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with measuring(tiny_model, report) as process:
        assert process.stdout.readline().startswith("1/3 ")
        wait_until(lambda: children(process.pid))
        os.kill(children(process.pid)[0], signal.SIGKILL)  # as the kernel does without free memory
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "was killed: the memory probably ran out" in stderr
    (board,) = read_document(report).boards
    assert board.complete is False
    assert sum(len(cell.processes) for cell in board.cells) == 1


def children(pid: int) -> list[int]:
    """Return the ids of the processes that the main thread of a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_report_that_no_longer_fits_on_the_disk_is_printed(
    tiny_model: Path, small_disk: Path, fill: Callable[..., Path]
) -> None:
    fill(small_disk)
    done = cli(str(tiny_model), *QUICK, "--no-pipeline", "--json", "-o", str(small_disk / "report.json"))
    assert done.returncode == 74
    assert "No space left" in done.stderr
    assert json.loads(done.stdout)["boards"]
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command_line = [*EDGEKIT, "bench", *arguments]
    return subprocess.run(command_line, capture_output=True, text=True, timeout=60)
