"""Signals and time limits with models that compute for ever: the process ends and keeps its results."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import onnx
import pytest

from edgekit import native_calls
from edgekit.cli.native_watch import NativeWatch
from edgekit.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from edgekit.native_calls import NativeCall, any_running
from tests import hostile_models
from tests.edgekit import onnx_faults
from tests.waiting import wait_until

Make = Callable[[str], Path]

# Reports each native call on stderr when it begins.
REPORTED = """
from edgekit import native_calls
import sys
enter = native_calls.NativeCall.__enter__
def reported(call):
    print(f"calling {call._subject}", file=sys.stderr, flush=True)
    return enter(call)
native_calls.NativeCall.__enter__ = reported
"""
# Limits the calls whose subject begins with these words to 0.5 s; other calls may need longer on a busy machine.
SOON = """
from edgekit import native_calls
begin = native_calls.NativeCall.__init__
def limited(call, subject, cancel, limit_s=None):
    begin(call, subject, cancel, 0.5 if subject.startswith("{}") else limit_s)
native_calls.NativeCall.__init__ = limited
"""


@pytest.fixture
def model(tmp_path: Path) -> Make:
    """Return a function that writes one of `hostile_models`."""

    def write(name: str) -> Path:
        path = tmp_path / f"{name}.onnx"
        onnx.save(getattr(hostile_models, name)(), path)
        return path

    return write


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with a black image, which every model classifies, and a white image."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index, value in enumerate((0, 255)):
        assert cv2.imwrite(str(folder / f"{index}.png"), np.full((12, 12, 3), value, np.uint8))
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("threads", [(), ("--single-thread",)])
def test_a_signal_ends_an_endless_loop_and_keeps_the_results_so_far(start, model, images, tmp_path, number, threads):
    jsonl = tmp_path / "r.jsonl"
    path = model("endless_loop")
    run = start("--model", path, "--source", images, "--jsonl", jsonl, *threads, before=REPORTED)
    run.until(lambda: run.stderr_text.count("calling an inference") == 2)
    run.process.send_signal(number)
    assert run.end() == (EXIT_OK if number == signal.SIGTERM else EXIT_INTERRUPTED)
    assert json.loads(run.document)["ended"] == ("stopped" if number == signal.SIGTERM else "interrupted")
    assert [Path(json.loads(line)["file"]).name for line in jsonl.read_text().splitlines()] == ["0.png"]
    assert "error" not in run.stderr_text


def _processor_s(pid: int) -> float:
    """Return the processor time of a process and its threads."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("threads", [(), ("--single-thread",)])
def test_a_signal_ends_an_operator_that_cannot_be_cancelled(start, model, images, tmp_path, threads):
    jsonl = tmp_path / "r.jsonl"
    run = start("--model", model("slow_pool"), "--source", images, "--jsonl", jsonl, *threads, before=REPORTED)
    run.until(lambda: run.stderr_text.count("calling an inference") == 2)
    before_s = _processor_s(run.process.pid)
    # The operators before the slow one can be cancelled, and take much less.
    run.until(lambda: _processor_s(run.process.pid) > before_s + 2)
    run.process.send_signal(signal.SIGTERM)
    # With one thread, the main thread never leaves the call, so the exit code is that of an interrupted run.
    assert run.end() == (EXIT_INTERRUPTED if threads else EXIT_OK)
    assert [Path(json.loads(line)["file"]).name for line in jsonl.read_text().splitlines()] == ["0.png"]


@pytest.mark.parametrize("command", ["run", "bench", "inspect"])
def test_a_signal_ends_a_file_that_does_not_finish_loading(model, command):
    path = model("slow_to_load")
    words = {"run": ["--source", "demo", "--model", path], "bench": [path], "inspect": [path]}[command]
    # `inspect` loads without optimisation, so loading computes nothing: the test switches the optimisation on.
    before = REPORTED.replace("import sys\n", "import sys\nfrom edgekit.device.engines import session\n")
    before += "session._LEVELS['none'] = session._LEVELS['all']\n"
    with process(before, command, *words) as running:
        until(running, "calling loading")
        running.send_signal(signal.SIGTERM)
        # SIGTERM is a normal end of a run.
        assert running.wait(60) == (0 if command == "run" else EXIT_INTERRUPTED)


@pytest.mark.parametrize("command", ["verify", "eval"])
def test_a_signal_ends_an_evaluation(model, tmp_path, command):
    good = tmp_path / "good.onnx"
    onnx.save(onnx_faults.good_model(), good)
    data = onnx_faults.draw(tmp_path)
    words = ["--data", data, "--split", "test", *(["--against", good] if command == "verify" else [])]
    with process(REPORTED, command, model("endless_loop"), *words) as running:
        until(running, "calling an inference of model '{}'".format(tmp_path / "endless_loop.onnx"))
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == EXIT_INTERRUPTED


def test_a_signal_ends_a_benchmark_of_an_endless_loop(model):
    before = "import subprocess, sys\nbegin = subprocess.Popen.__init__\n"
    before += "def reported(*a, **k): begin(*a, **k); print('measuring', file=sys.stderr, flush=True)\n"
    before += "subprocess.Popen.__init__ = reported\n"
    with process(before, "bench", model("endless_loop"), "--no-pipeline", "--seconds", "1") as running:
        until(running, "measuring")
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == EXIT_INTERRUPTED


@pytest.mark.parametrize("name", ["endless_loop", "slow_pool", "slow_to_load"])
def test_loading_and_the_first_inference_are_bounded(start, model, name):
    path = model(name)
    what = "loading" if name == "slow_to_load" else "an inference of"
    run = start("--model", path, "--source", "demo", before=SOON.format(what))
    assert run.end() == EXIT_USAGE
    last = run.stderr_text.splitlines()[-1]
    assert last == f"edgekit: error: {what} model '{path}' takes more than 0.5 s: use another file"


def test_a_later_inference_has_no_limit(edgekit, tiny_model, monkeypatch):
    from edgekit.device.engines import session

    limits = []
    begin = session.NativeCall.__init__
    monkeypatch.setattr(
        session.NativeCall,
        "__init__",
        lambda call, subject, cancel, limit_s=None: (limits.append(limit_s), begin(call, subject, cancel, limit_s))[1],
    )
    edgekit("run", "--model", tiny_model, "--source", "demo", "--detector", "none", "--max-frames", 3)
    *loads, first, second, third = limits
    assert (first, second, third) == (session.FIRST_CALL_S, None, None)
    assert set(loads) == {session.FIRST_CALL_S}


def test_a_call_has_no_limit_if_no_thread_can_be_started(monkeypatch):
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Timer, "start", refuse)
    with NativeCall("an inference", lambda: None, limit_s=60) as call:
        assert any_running()
    assert call.cancelled is None
    assert not any_running()


def test_a_watch_that_was_stopped_repeats_no_signal(monkeypatch):
    """A repeated signal that arrives while Python ends would kill the process."""
    monkeypatch.setattr(native_calls, "CANCEL_S", 600)
    received, before = [], set(threading.enumerate())
    previous = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        watch = NativeWatch()
        watch.start()
        with NativeCall("an inference", lambda: None):
            os.kill(os.getpid(), signal.SIGINT)
            watch.stop()
            wait_until(lambda: set(threading.enumerate()) <= before)
        assert received == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_process_whose_stderr_is_full_is_ended_too():
    code = "from edgekit.cli.native_watch import _end_process; _end_process('interrupted', 130)"
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-c", code], stderr=full).returncode == EXIT_INTERRUPTED


def process(before: str, *words: object) -> subprocess.Popen[str]:
    code = f"{before}\nfrom edgekit.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def until(running: subprocess.Popen[str], text: str) -> None:
    seen = []
    assert any(seen.append(line) or text in line for line in running.stderr), seen


@pytest.fixture
def stalled_pipe(tmp_path: Path) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    """A named pipe, and a function that writes images to it until a JSONL file has lines and waits for the rest."""
    path = tmp_path / "video.mjpeg"
    os.mkfifo(path)
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 128, np.uint8))[1].tobytes()
    with ExitStack() as stack:

        def play(jsonl: Path) -> None:
            writer, count = stack.enter_context(path.open("wb", buffering=0)), 0
            while not (jsonl.exists() and jsonl.read_text()):
                writer.write(jpeg)
                count += 1
            # The decoder returns an image when the next one begins, so the last image is missing.
            wait_until(lambda: jsonl.read_text().count("\n") >= count - 1)

        yield path, play


def unread_bytes(writer: IO[bytes]) -> int:
    """Return how many bytes of a pipe its reader has not read."""
    return struct.unpack("i", fcntl.ioctl(writer, termios.FIONREAD, bytes(4)))[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_a_pipe_without_writer(start, stalled_pipe, tmp_path, number):
    jsonl = tmp_path / "r.jsonl"
    pipe, play = stalled_pipe
    run = start("--source", pipe, "--jsonl", jsonl)
    play(jsonl)
    run.process.send_signal(number)
    assert run.end() == (EXIT_OK if number == signal.SIGTERM else EXIT_INTERRUPTED)
    document = json.loads(run.document)
    assert document["ended"] == ("stopped" if number == signal.SIGTERM else "interrupted")
    assert document["frames"] == document["outputs"]["jsonl"]["written"] == jsonl.read_text().count("\n")


def test_a_signal_ends_the_only_thread_while_it_waits_for_a_pipe(start, stalled_pipe, tmp_path):
    jsonl = tmp_path / "r.jsonl"
    pipe, play = stalled_pipe
    run = start("--source", pipe, "--jsonl", jsonl, "--single-thread")
    play(jsonl)
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == EXIT_INTERRUPTED
    assert jsonl.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_the_first_image_of_a_pipe(start, tmp_path, number):
    pipe = tmp_path / "video.mjpeg"
    os.mkfifo(pipe)
    run = start("--source", pipe, "--single-thread")
    with pipe.open("wb", buffering=0) as writer:
        writer.write(b"\xff\xd8\xff")
        run.until(lambda: not unread_bytes(writer))
        run.process.send_signal(number)
        assert run.end() == (EXIT_OK if number == signal.SIGTERM else EXIT_INTERRUPTED)
    assert number == signal.SIGINT or json.loads(run.document) == {"ended": "stopped", "frames": 0}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_a_pipe_without_reader(start, images, tmp_path, number):
    pipe = tmp_path / "r.jsonl"
    os.mkfifo(pipe)
    run = start("--source", images, "--jsonl", pipe, before=REPORTED)
    run.until_printed("calling writing to")
    run.process.send_signal(number)
    assert run.end() == (EXIT_OK if number == signal.SIGTERM else EXIT_INTERRUPTED)
    lost = {"produced": 1, "written": 0, "dropped": {"end of the run": 1}, "waiting": 0}
    assert json.loads(run.document)["outputs"]["jsonl"] == lost
