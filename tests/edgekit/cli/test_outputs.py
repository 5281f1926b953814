"""Outputs of `edgekit run` from the command line: web page, webhook, files, snapshots and collected crops."""

from __future__ import annotations

import csv
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.install_hint import install_command
from tests.endless_demo import ENDLESS_DEMO

PATIENCE_S = 60


@pytest.mark.parametrize(
    ("missing", "option", "extra", "expected"),
    [
        (("starlette", "uvicorn"), ["--web", "0"], "preview", 1),
        (("paho",), ["--mqtt", "mqtt://127.0.0.1:9"], "mqtt", 1),
        (("av",), ["--save", "r.mp4"], "device", 2),
    ],
)
def test_a_missing_part_names_its_extra(tiny_model, tmp_path, missing, option, extra, expected):
    arguments = ["run", "--model", str(tiny_model), "--source", "demo", "--detector", "none", *option]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r})); sys.argv[1:] = {arguments!r}\n"
        "from edgekit.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (expected, 1)
    assert install_command(extra) in done.stderr
    assert not list(tmp_path.iterdir())


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


@pytest.mark.parametrize("option", ["--event-clips", "--event-snapshots", "--collect"])
def test_a_folder_that_cannot_be_written_is_an_error_before_the_first_event(
    edgekit, option: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    code, _, errors = edgekit("run", "--source", "demo", "--max-frames", "1", option, tmp_path / "file" / "events")
    assert (code, "file/events" in errors) == (74, True)


@pytest.mark.parametrize("other", ["--event-clips", "--event-snapshots"])
def test_two_outputs_in_one_folder_are_an_error(edgekit, other: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    code, _, errors = edgekit("run", "--source", "demo", "--collect", folder, other, folder)
    assert (code, str(folder) in errors, folder.exists()) == (2, True, False)


def test_results_of_a_video_file_state_their_position_in_the_video(edgekit, tmp_path):
    lines, rows = tmp_path / "r.jsonl", tmp_path / "r.csv"
    outputs = ("--jsonl", lines, "--csv", rows)
    assert edgekit("run", "--source", "demo", "--max-frames", "3", "--detector", "none", *outputs)[0] == 0
    assert [json.loads(line)["position_s"] for line in lines.read_text().splitlines()] == [0, 0.04, 0.08]
    with rows.open(newline="") as stream:
        assert [row["position_s"] for row in csv.DictReader(stream)] == ["0.000000", "0.040000", "0.080000"]
