"""`edgekit run` from the command line: results, messages, exit codes and signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from edgekit.cli import run as run_command_line
from edgekit.cli.signals import StopSignals
from edgekit.errors import EXIT_INTERRUPTED, EXIT_IO, EXIT_OK, EXIT_TEMPORARY, EXIT_USAGE
from tests.endless_demo import ENDLESS_DEMO

PATIENCE_S = 60


@pytest.fixture
def edgekit_run(tiny_model: Path):
    """Return a function that runs the command in this process, each frame as one face, and returns the exit code."""

    def run(*arguments: object, detector: str = "none") -> int:
        return run_command_line(["run", "--model", str(tiny_model), "--detector", detector, *map(str, arguments)])

    return run


def play(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    return count


def test_events_leave_images_and_a_folder_becomes_annotated_images(edgekit_run, crops, tmp_path, capsys):
    snapshots = tmp_path / "snapshots"
    options = ["--event-hold", "0s", "--event-snapshots", snapshots]
    assert edgekit_run("--source", "demo", "--max-frames", 8, *options) == EXIT_OK
    assert len(list(snapshots.iterdir())) >= 1
    assert edgekit_run("--source", crops, "--save", tmp_path / "annotated") == EXIT_OK
    kept = {path.name for path in crops.iterdir() if path.suffix in (".png", ".jpg")}
    assert {path.name for path in (tmp_path / "annotated").iterdir()} == kept
    assert capsys.readouterr().err == ""


def test_a_folder_becomes_a_table_a_video_lines_and_rows(edgekit_run, crops, tmp_path, capsys):
    jsonl, rows, video = tmp_path / "out/r.jsonl", tmp_path / "out/r.csv", tmp_path / "out/r.mp4"
    assert edgekit_run("--source", crops, "--jsonl", jsonl, "--csv", rows, "--save", video) == EXIT_OK
    captured = capsys.readouterr()
    assert captured.err == ""
    for text in ("3 frames", "capture", "detect", "crop", "classify", "outputs", "p50", "p99", "faces: 3 in 3 of 3"):
        assert text in captured.out
    results = [json.loads(line) for line in jsonl.read_text().splitlines()]
    assert [[face["label"] for face in line["faces"]] for line in results] == [["red"], ["green"], ["blue"]]
    assert len(rows.read_text().splitlines()) == 4
    assert play(video) == 3


def test_a_second_run_states_what_becomes_of_the_files_of_the_first(edgekit_run, crops, tmp_path, capsys):
    options = ["--source", crops, "--jsonl", tmp_path / "r.jsonl", "--save", tmp_path / "r.mp4"]
    assert edgekit_run(*options) == EXIT_OK
    assert str(tmp_path / "r.") not in capsys.readouterr().out
    assert edgekit_run(*options) == EXIT_OK
    text = capsys.readouterr().out
    (renamed,) = tmp_path.glob("r.*Z.mp4")
    assert str(renamed) in text
    assert text.count(str(tmp_path / "r.jsonl")) == 1


def test_json_is_one_document_on_stdout_and_the_table_is_on_stderr(edgekit_run, crops, capsys):
    assert edgekit_run("--source", crops, "--json", "--threads", 1, "--max-frames", 2) == EXIT_OK
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["frames"], document["faces"], document["dropped"]) == (2, 2, 0)
    assert document["labels"] == {"red": 1, "green": 1}
    assert document["fps"] > 0
    assert document["stages"]["detect"]["count"] == 2
    assert (document["source"], document["detector"], document["ended"]) == (str(crops), "none", "finished")
    settings = document["settings"]
    assert settings["max_frames"] == 2
    assert settings["threads"].items() >= {"detector": 1, "classifier": 1, "opencv": 1}.items()
    assert document["model"]["architecture"] == "mean"
    assert "2 frames" in captured.err
    assert "; threads: detector 1, classifier 1, OpenCV 1\n" in captured.err


def test_lines_on_stdout_have_it_for_themselves(edgekit_run, crops, capsys):
    assert edgekit_run("--source", crops, "--jsonl", "-") == EXIT_OK
    captured = capsys.readouterr()
    assert [json.loads(line)["sequence"] for line in captured.out.splitlines()] == [0, 1, 2]
    assert "3 frames" in captured.err


def test_quiet_prints_nothing(edgekit_run, crops, capsys):
    assert edgekit_run("--source", crops, "-q") == EXIT_OK
    assert capsys.readouterr() == ("", "")


def test_a_broken_picture_among_others_is_a_warning_and_counted(edgekit_run, crops, capsys):
    (crops / "1.png").write_text("no picture")
    assert edgekit_run("--source", crops, "--json") == EXIT_OK
    captured = capsys.readouterr()
    assert (json.loads(captured.out)["frames"], json.loads(captured.out)["skipped"]) == (2, 1)
    assert "edgekit: warning: image" in captured.err
    assert "1.png" in captured.err


def test_a_camera_that_is_not_there_is_an_absent_source(edgekit_run, capsys):
    assert edgekit_run("--camera", "987") == EXIT_TEMPORARY
    assert "camera '/dev/video987' does not exist" in capsys.readouterr().err


def test_a_missing_display_is_reported_before_anything_is_written(edgekit_run, crops, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert edgekit_run("--source", crops, "--show", "--jsonl", tmp_path / "r.jsonl") == EXIT_USAGE
    assert "--show needs a display" in capsys.readouterr().err
    assert not (tmp_path / "r.jsonl").exists()


def test_results_before_a_late_failure_are_reported_and_kept(start, tmp_path):
    # The size of a file is limited to 3000 bytes: some lines fit.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); "
    jsonl = tmp_path / "r.jsonl"
    run = start("--source", "demo", "--jsonl", jsonl, before=limit)
    assert run.end() == EXIT_IO
    lines = [json.loads(line) for line in jsonl.read_text().splitlines()]
    document = json.loads(run.document)
    assert (document["ended"], document["frames"], document["faces"]) == ("failed", len(lines), len(lines))
    assert len(lines) > 2
    assert f"cannot write '{jsonl}'" in run.stderr_text


def test_a_reader_that_leaves_is_no_error(tiny_model):
    words = f"run --model {tiny_model} --source demo --detector none --jsonl -"
    pipe = f"{sys.executable} -m edgekit.cli {words} | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout.count("\n"), "error" in done.stderr) == (EXIT_OK, 1, False)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, EXIT_OK), (signal.SIGINT, EXIT_INTERRUPTED)])
def test_a_signal_finishes_the_frame_and_keeps_everything(start, tmp_path, number, code):
    jsonl, video = tmp_path / "r.jsonl", tmp_path / "r.mp4"
    slow = ("--source", "demo", "--detector", "haar")
    run = start(*slow, "--jsonl", jsonl, "--save", video, before=ENDLESS_DEMO)
    run.until(lambda: jsonl.exists() and jsonl.read_text().count("\n") >= 3)
    run.process.send_signal(number)
    assert run.end() == code
    document = json.loads(run.document)
    lines = [json.loads(line) for line in jsonl.read_text().splitlines()]
    assert document["ended"] == ("stopped" if number == signal.SIGTERM else "interrupted")
    assert len(lines) >= 3
    assert document["frames"] == len(lines) == play(video)
    assert "Traceback" not in run.stderr_text
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["r.jsonl", "r.mp4"]


def test_a_second_ctrl_c_does_not_wait():
    stops = []
    with StopSignals() as signals:
        signals.on_stop(lambda: stops.append(1))
        signal.raise_signal(signal.SIGINT)
        assert (stops, signals.interrupted, signals.terminated) == ([1], True, False)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stops == [1]


def test_a_signal_before_there_is_work_ends_at_once_and_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals(), pytest.raises(SystemExit) as ended:
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == EXIT_OK
    with StopSignals(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def import_a_library(number):
    try:
        signal.raise_signal(number)
    except BaseException:
        raise ImportError("initialization failed") from None  # as pybind11 does


def test_a_signal_whose_exception_a_library_replaces_ends_as_any_other():
    stopped_early = []
    with pytest.raises(SystemExit) as ended, StopSignals(lambda: stopped_early.append(1)):
        import_a_library(signal.SIGTERM)
    assert (ended.value.code, stopped_early) == (EXIT_OK, [1])
    with pytest.raises(KeyboardInterrupt), StopSignals():
        import_a_library(signal.SIGINT)
