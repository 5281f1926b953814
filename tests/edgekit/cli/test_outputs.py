"""Outputs of `edgekit run` from the command line: web page, webhook, files, snapshots and collected crops."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.errors import EXIT_OK
from edgekit.install_hint import install_command
from tests.endless_demo import ENDLESS_DEMO
from tests.waiting import wait_until

PATIENCE_S = 60
_NOBODY = "http://127.0.0.1:9/"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--web", "0.0.0.0:0"], "set a token with --web-token-file FILE or EDGEKIT_WEB_TOKEN"),
        (["--web", "nonsense:x"], "web address 'nonsense:x' must look like"),
        (["--web", "0", "--web-token-file", "missing"], "web token file 'missing' does not exist"),
        (["--mqtt", "http://broker"], "must look like mqtt://host:1883"),
        (["--mqtt", "mqtt://me:secret-word@broker"], "use --mqtt-credentials FILE"),
        (["--mqtt", "mqtts://broker", "--mqtt-cert", "a.pem"], "a.pem' does not exist"),
        (["--webhook", "ftp://host/"], "the webhook address must look like https://host/path"),
        (
            ["--webhook", _NOBODY, "--event-label", "grumpy"],
            "'grumpy' is not a label of the model",
        ),
        (["--webhook", _NOBODY, "--event-hold", "soon"], "'soon' is not a time: write 90s, 15min, 12h or 7d"),
        (["--collect", "c", "--save", "s.mp4", "--blur-faces"], "--collect and --blur-faces exclude each other"),
        (["--collect", "c", "--collect-when", "often"], "'often' is not a strategy: write uncertain, uncertain:0.2"),
        (["--collect", "c", "--collect-when", "uncertain:2"], "'uncertain:2' is not a strategy"),
        (["--collect", "c", "--collect-when", "every:soon"], "'every:soon' is not a strategy"),
        (["--csv", "r.csv", "--rotate-files", "1"], "'1' is too small"),
    ],
)
def test_outputs_that_cannot_be_used_are_reported_before_the_run(
    edgekit, tiny_model, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    code, out, err = edgekit("run", "--model", tiny_model, "--source", "demo", "--detector", "none", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert "secret-word" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "option"),
    [
        ("EDGEKIT_WEB_TOKEN", ["--web", "0"]),
        ("EDGEKIT_MQTT_CREDENTIALS", ["--mqtt", "mqtt://127.0.0.1:9"]),
        ("EDGEKIT_WEBHOOK_TOKEN", ["--webhook", _NOBODY]),
    ],
)
@pytest.mark.parametrize("value", [b"user:secret-word-1\nsecret-word-2", b"secret-word-\xff\xfe"])
def test_a_secret_of_the_environment_that_is_no_text_is_refused_at_the_start(
    edgekit, tiny_model, tmp_path, monkeypatch, variable, option, value
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setitem(os.environb, variable.encode(), value)
    arguments = ("--model", tiny_model, "--source", "demo", "--detector", "none", "--max-frames", 1)
    code, out, err = edgekit("run", *arguments, *option)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{variable} must be the" in err
    assert "secret-word" not in err


_WEB = ("starlette", "uvicorn")


@pytest.mark.parametrize(
    ("missing", "option", "extra"),
    [
        *((names, ["--web", "0"], "preview") for count in (1, 2) for names in combinations(_WEB, count)),
        (("anyio",), ["--web", "0"], "preview"),  # a dependency of starlette
        (("paho",), ["--mqtt", "mqtt://127.0.0.1:9"], "mqtt"),
        (("cv2",), ["--show"], "device"),
    ],
)
def test_a_missing_part_names_its_extra(tiny_model, missing, option, extra):
    arguments = ["run", "--model", str(tiny_model), "--source", "demo", "--detector", "none", *option]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r})); sys.argv[1:] = {arguments!r}\n"
        "from edgekit.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert re.search(rf"this needs '({'|'.join(missing)})': {re.escape(install_command(extra))}", done.stderr)


def test_a_video_without_pyav_is_refused_with_the_command_that_installs_it(tiny_model, tmp_path):
    video = tmp_path / "r.mp4"
    arguments = ["run", "--model", str(tiny_model), "--source", "demo", "--detector", "none", "--max-frames", "3"]
    code = (
        f"import sys; sys.modules['av'] = None; sys.argv[1:] = {[*arguments, '--save', str(video)]!r}\n"
        "from edgekit.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, video.exists()) == (2, False)
    assert install_command("device") in done.stderr
    assert "python3-av" in done.stderr


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--rotate-files", "1MB"), "--rotate-files has no effect"),
        (("--csv", "r.csv", "--rotate-keep", "3"), "--rotate-keep has no effect without --rotate-files"),
        (("--record", "r.mp4"), "--record and --source exclude each other"),
        (("--mqtt-topic", "x"), "--mqtt-topic has no effect without --mqtt"),
        (("--event-hold", "2s", "--csv", "r.csv"), "--event-hold has no effect without --mqtt or --webhook or --web"),
        (("--blur-faces", "--jsonl", "-"), "--blur-faces has no effect without --save or --web"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(edgekit, options, fault: str):
    code, out, err = edgekit("run", "--source", "demo", *options)
    assert (code, out) == (2, "")
    assert fault in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("when", ["every:0.1s", "uncertain:1", "best-of-track"])
def test_crops_are_collected_and_counted(edgekit, tiny_model, tmp_path: Path, when: str):
    folder = tmp_path / "c"
    options = ("--detector", "none", "--max-frames", 5, "--collect", folder, "--collect-when", when, "--json")
    code, out, err = edgekit("run", "--model", tiny_model, "--source", "demo", *options, "--pictures-max-mb", 0.02)
    assert code == 0
    counts = json.loads(out)["outputs"]["collect"]
    assert len(list(folder.glob("crops/*.png"))) == counts["written"]
    assert counts["produced"] == counts["written"] + counts["dropped"].get("folder full", 0) > 0
    assert ("not everything was written: collect" in err) == bool(counts["dropped"])


def test_blurred_faces_are_not_collected_by_settings_in_a_file(edgekit, tmp_path: Path):
    config = tmp_path / "edgekit.toml"
    config.write_text(f'collect = "{tmp_path}/c"\nblur-faces = true\nweb = "0"\n')
    code, _, err = edgekit("run", "--config", config, "--source", "demo")
    assert (code, err.count("\n")) == (2, 1)
    assert "--collect and --blur-faces exclude each other" in err


def test_faces_that_an_option_excludes_are_reported_as_not_blurred(edgekit, tiny_model, tmp_path: Path):
    options = ("--detector", "haar", "--max-frames", 1, "--save", tmp_path / "s.mp4", "--blur-faces", "-q")
    code, _, err = edgekit("run", "--model", tiny_model, "--source", "demo", *options)
    assert (code, err) == (0, "")
    code, _, err = edgekit(
        "run", "--model", tiny_model, "--source", "demo", *options, "--largest", "--roi", "0,0,1,0.5"
    )
    assert (code, err) == (
        0,
        "edgekit: warning: --blur-faces does not blur the faces that --roi or --largest excludes\n",
    )


def test_a_file_as_folder_for_crops_is_refused(edgekit, tiny_model, tmp_path: Path):
    (tmp_path / "c").write_text("")
    options = ("--detector", "none", "--collect", tmp_path / "c")
    code, _, err = edgekit("run", "--model", tiny_model, "--source", "demo", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert "is a file: name a folder for the crops" in err


def test_settings_in_a_file_may_wait_for_their_output(edgekit, tiny_model, tmp_path: Path):
    config = tmp_path / "edgekit.toml"
    config.write_text('rotate-files = "1MB"\nrotate-keep = 3\nevent-hold = 2\nmqtt-topic = "x"\n')
    looked_at = ("--model", tiny_model, "--source", "demo", "--detector", "none", "--max-frames", 1)
    assert edgekit("run", "--config", config, *looked_at)[0] == 0


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_run_shows_its_page_posts_its_events_and_ends_after_a_signal(tiny_model, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("a-token-that-nobody-guesses\n")
    token.chmod(0o600)
    config = tmp_path / "edgekit.toml"
    with HTTPServer(("127.0.0.1", 0), _Hook) as hook:
        hook.received = []
        threading.Thread(target=hook.serve_forever, args=(0.02,), daemon=True).start()
        config.write_text(
            f'model = "{tiny_model}"\nsource = "demo"\ndetector = "haar"\nweb = "127.0.0.1:0"\n'
            f'web-token-file = "{token}"\nwebhook = "http://127.0.0.1:{hook.server_port}/"\nevent-hold = 0\n'
        )
        command = [sys.executable, "-c", f"{ENDLESS_DEMO}from edgekit.cli import main; main()"]
        command += ["run", "--config", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            try:
                address = re.fullmatch(r"web page: http://(127\.0\.0\.1:\d+)/\n", running.stdout.readline()).group(1)
                connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
                headers = {"Authorization": "Bearer a-token-that-nobody-guesses"}
                state = {"frames": 0}
                while state["frames"] < 2 or not state["outputs"]["webhook"]["written"]:
                    connection.request("GET", "/api/state", headers=headers)
                    state = json.load(connection.getresponse())
                connection.close()
                running.send_signal(signal.SIGTERM)
                output, errors = running.communicate(timeout=PATIENCE_S)
            finally:
                running.kill()
        hook.shutdown()
    assert (running.returncode, errors) == (0, "")
    assert "a-token-that-nobody-guesses" not in output
    assert state["events"] != []
    assert hook.received[0] == state["events"][-1]
    assert hook.received[0]["label"] in ("red", "green", "blue")


def test_a_posted_picture_has_the_faces_of_its_record(edgekit, start, play, tiny_model, tmp_path: Path):
    picture = tmp_path / "p.png"
    cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
    arguments = ("--model", tiny_model, "--source", picture, "--detector", "none", "--jsonl", tmp_path / "r.jsonl")
    assert edgekit("run", *arguments)[0] == 0
    record = json.loads((tmp_path / "r.jsonl").read_text())
    run = start("--source", play([("pictures", 100_000, (64, 48))]).url, "--web", "0")
    run.until_printed("web page: http://")
    address = re.search(r"web page: http://(.+)/\n", run.stderr_text).group(1)
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    connection.request("POST", "/classify", picture.read_bytes(), {"Content-Type": "image/png"})
    response = connection.getresponse()
    document = json.loads(response.read())
    assert response.status == 200
    assert document.keys() == record.keys() - {"file", "health"}
    assert (document["faces"], document["frame_wh"]) == (record["faces"], [120, 90])
    connection.request("POST", "/classify", b"no picture", {"Content-Type": "image/png"})
    response = connection.getresponse()
    assert (response.status, response.read().count(b"\n")) == (400, 1)
    connection.close()
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 0


@pytest.fixture
def stream() -> Iterator[str]:
    """The address of an endless MJPEG stream, which edgekit's web page serves."""
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame
    from edgekit.device.sinks.monitor import Monitor
    from edgekit.device.sinks.web.server import WebSink

    ended = threading.Event()
    with WebSink("0", None, Monitor("test", lambda: None), max_fps=60) as sink:

        def play() -> None:
            sequence = 0
            while not ended.wait(0.02):
                now_s, sequence = time.monotonic(), sequence + 1
                image = np.full((120, 160, 3), sequence % 250, np.uint8)
                sink.write(
                    Frame(sequence, now_s, 0.0, image), FrameResult(sequence, now_s, 0.0, (160, 120), (), {}, 0.0)
                )

        player = threading.Thread(target=play)
        player.start()
        yield f"{sink.url}stream.mjpg"
        ended.set()
        player.join()


def test_a_live_run_outlives_a_full_disk_and_records_again(tiny_model, small_disk, stream):
    jsonl, ballast = small_disk / "r.jsonl", small_disk / "ballast"
    # A shorter batch interval makes the test faster; long stall limits avoid a warning on a busy machine.
    soon = "from edgekit.device.sinks import records; records._RETRY_S = 0.2\n"
    soon += "from edgekit.device.sources import opencv; opencv._READ_TIMEOUT_MS = 60_000"
    command = [sys.executable, "-c", f"{soon}\nfrom edgekit.cli import main; main()", "run", "--model", str(tiny_model)]
    command += ["--source", stream, "--detector", "none", "--jsonl", str(jsonl), "--disk-reserve", "0", "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            wait_until(jsonl.exists, alive=lambda: running.poll() is None)
            with ballast.open("wb", buffering=0) as stream_of_zeros, suppress(OSError):
                while stream_of_zeros.write(b"\0" * 4096):
                    pass
            assert "No space left on device: recording to" in (stopped := running.stderr.readline())
            assert stopped.endswith("stopped, the run continues\n")
            ballast.unlink()
            assert running.stderr.readline() == f"edgekit: warning: recording to '{jsonl}' resumed\n"
            running.send_signal(signal.SIGTERM)
            assert running.communicate(timeout=PATIENCE_S)[1] == ""
        finally:
            running.kill()
    assert running.returncode == 0
    sequences = [json.loads(line)["sequence"] for line in jsonl.read_text().splitlines()]
    assert len(sequences) > 20
    assert sequences == sorted(set(sequences))


def test_records_that_a_full_disk_keeps_out_until_the_end_are_counted_everywhere(start, play, small_disk, fill):
    jsonl, rows = small_disk / "r.jsonl", small_disk / "r.csv"
    camera = play([("pictures", 100_000, (64, 48))])
    run = start("--source", camera.url, "--jsonl", jsonl, "--csv", rows, "--web", "0", "--disk-reserve", 0)
    run.until(lambda: jsonl.exists() and rows.exists())
    fill(small_disk)
    run.until_printed(f"recording to '{jsonl}' stopped")
    run.until_printed(f"recording to '{rows}' stopped")
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 0
    document = json.loads(run.document)
    for name, header_lines, path in (("jsonl", 0, jsonl), ("csv", 1, rows)):
        counts = document["outputs"][name]
        written = len(path.read_text().splitlines()) - header_lines
        assert counts == {
            "produced": document["frames"],
            "written": written,
            "dropped": {"disk full": document["frames"] - written},
            "waiting": 0,
        }
        lost = document["frames"] - written
        line = f"{name} {written} of {document['frames']} written, {lost} dropped ({lost} disk full)"
        assert run.stderr_text.count(line) == 2, "in the summary and in the warning"
    assert run.stderr_text.count("warning: not everything was written: jsonl ") == 1


@pytest.mark.parametrize("option", ["--jsonl", "--csv"])
def test_a_file_or_folder_that_is_deleted_in_the_run_is_written_again(start, play, tmp_path, option):
    path = tmp_path / "out" / "r.txt"
    camera = play([("pictures", 100_000, (64, 48))])
    run = start("--source", camera.url, option, path)
    run.until(path.exists)
    # The folder is renamed first, because the run could create a file in it during the deletion.
    shutil.rmtree(path.parent.rename(tmp_path / "removed"))
    run.until(path.exists)
    path.rename(tmp_path / "moved")
    run.until(path.exists)
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 0
    counts = json.loads(run.document)["outputs"][option[2:]]
    assert counts["produced"] == counts["written"] > 0


@pytest.mark.parametrize("option", ["--jsonl", "--csv", "--save", "--collect"])
def test_a_second_run_with_the_same_output_is_refused_until_the_first_one_ends(
    edgekit, start, play, tiny_model, tmp_path, option
):
    (tmp_path / "link").symlink_to(tmp_path)
    name = {"--save": "r.mp4", "--collect": "crops"}.get(option, "r.txt")
    locked = tmp_path / name / "crops.jsonl" if option == "--collect" else tmp_path / name
    second = ("run", "--model", tiny_model, "--source", "demo", "--detector", "none", "--max-frames", 2)
    server = play([("pictures", 100_000, (64, 48))])
    first = start("--source", server.url, option, tmp_path / name)
    # The run takes the lock before it opens the source.
    first.until(lambda: server.served)
    assert (locked.parent / f".{locked.name}.lock").exists()
    code, out, err = edgekit(*second, option, tmp_path / "link" / name)
    assert (code, out, err.count("\n")) == (75, "", 1)
    assert f"another process is writing to '{locked}'" in err
    first.process.kill()
    first.end()
    assert edgekit(*second, option, tmp_path / name)[0] == 0
    assert not [path.name for path in tmp_path.rglob(".*")], "no lock is left"


# The limits of a folder apply to all images in it, so each of two runs would delete images of the other run.
def test_a_second_run_with_the_same_folder_of_snapshots_is_refused(edgekit, start, play, tiny_model, tmp_path):
    folder = tmp_path / "images"
    second = ("run", "--model", tiny_model, "--source", "demo", "--detector", "none", "--max-frames", 2)
    server = play([("pictures", 100_000, (64, 48))])
    first = start("--source", server.url, "--event-snapshots", folder)
    # The run takes the lock before it opens the source.
    first.until(lambda: server.served)
    code, out, err = edgekit(*second, "--event-snapshots", folder)
    assert (code, out, err.count("\n")) == (75, "", 1)
    assert f"another process is writing to '{folder}': wait for it or name another folder" in err
    first.process.kill()
    first.end()
    assert edgekit(*second, "--event-snapshots", folder)[0] == 0
    assert not [path.name for path in tmp_path.rglob(".*")], "no lock is left"


@pytest.mark.parametrize("options", [("--jsonl", "new/r.jsonl"), ("--collect", "crops")])
def test_the_free_space_is_that_of_the_disk_with_the_results(edgekit, tiny_model, small_disk, options):
    option, name = options
    arguments = ("--source", "demo", "--detector", "none", option, small_disk / name, "--max-frames", 3, "--json")
    code, out, _ = edgekit("run", "--model", tiny_model, *map(str, arguments))
    assert code == EXIT_OK
    assert json.loads(out)["health"]["min_disk_free_mib"] <= 1


def test_a_log_on_a_full_disk_does_not_end_a_run_that_survives_a_full_disk(tiny_model, tmp_path):
    (tmp_path / "file").write_text("")
    arguments = ("--model", tiny_model, "--source", "demo", "--realtime", "--detector", "none", "--max-frames", 3)
    command = [
        sys.executable,
        "-m",
        "edgekit.cli",
        "run",
        *arguments,
        "--jsonl",
        tmp_path / "file" / "r.jsonl",
        "--json",
    ]
    with open("/dev/full", "w") as full:
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=full, text=True)
    assert done.returncode == EXIT_OK
    lost = {"produced": 3, "written": 0, "dropped": {"folder missing": 3}, "waiting": 0}
    assert json.loads(done.stdout)["outputs"]["jsonl"] == lost


def test_a_reader_of_a_pipe_that_ends_is_an_error(edgekit, tmp_path):
    pipe = tmp_path / "results.jsonl"
    os.mkfifo(pipe)

    def read_one_line():
        with pipe.open() as stream:
            stream.readline()

    reader = threading.Thread(target=read_one_line)
    reader.start()
    code, _, err = edgekit("run", "--source", "demo", "--detector", "none", "--max-frames", "150", "--jsonl", pipe)
    reader.join()
    assert code == 74
    assert f"cannot write '{pipe}': Broken pipe" in err
