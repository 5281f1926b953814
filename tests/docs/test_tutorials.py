"""The shell blocks of the tutorials run in order, at small size; blocks that need a board are marked."""

from __future__ import annotations

import getpass
import http.client
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.conftest import Broker
from tests.docs.own_pictures import (
    BRIGHTNESS,
    PARTS,
    draw_face,
    draw_part,
    face_class,
    passers_by,
    save_classes,
    save_video,
)
from tests.docs.pages import DOCS, ROOT, blocks, command_lines
from tests.edgekit.remote.commands import call, ssh_words
from tests.edgekit.remote.conftest import Sshd
from tests.edgekit.remote.conftest import board as board
from tests.edgekit.remote.conftest import sshd as sshd
from tests.edgekit.remote.release_board import Board
from tests.ferplus import save_votes
from tests.graph_cache import graph_cache as graph_cache

TUTORIALS = {path.stem: path.read_text() for path in sorted((DOCS / "tutorials").glob("*.md"))}


def commands(text: str) -> list[list[str]]:
    """Return the words of each command of the shell blocks that are not marked "not run"."""
    shell = [block for block in blocks(text, "sh") if block.reason is None]
    return [shlex.split(line) for block in shell for line in command_lines(block.body)]


def path_of(command: list[str]) -> tuple[str, ...]:
    """Return the command without `edgekit` and arguments: ("data", "crop") or ("run",)."""
    return tuple(command[1 : 3 if command[1] == "data" else 2])


@pytest.mark.parametrize("name", TUTORIALS)
def test_every_shell_block_is_run_or_has_a_reason(name: str) -> None:
    languages = {block.language for block in blocks(TUTORIALS[name])}
    assert languages <= {"sh", "text", "toml", "yaml", "python", "mermaid"}
    assert commands(TUTORIALS[name])


class Walk:
    """Runs a page's commands in a folder, with fewer epochs and with substitutes for camera, board and broker.

    `camera` is the source that replaces --camera; `stream` replaces `camera = true` in a settings file.
    """

    def __init__(
        self, folder: Path, camera: str = "demo", stream: str = "demo", host: Sshd | None = None, broker: str = ""
    ) -> None:
        self._camera, self._stream, self._host, self._broker = camera, stream, host, broker
        self._folder = folder

    def follow(self, text: str) -> dict[str, str]:
        """Write the settings files of a page, run its commands in order, and return what each prints."""
        for block in blocks(text, "toml"):
            self.save_settings(block.body)
        return {" ".join(command[1:]): self.run(command) for command in commands(text)}

    def run(self, command: list[str]) -> str:
        """Run one command and return what it prints."""
        if command[0] != "edgekit":
            return self._shell(command)
        if path_of(command) == ("data", "label"):
            return label(command[1:], self._folder)
        done = call(*self._small(command[1:]))
        # The doctor can find faults of this machine.
        assert done.returncode == 0 or command[1] == "doctor", (command, done.stdout, done.stderr)
        return done.stdout

    def _shell(self, command: list[str]) -> str:
        words = " ".join(word if word in ("&&", ">") else shlex.quote(word) for word in command)
        return subprocess.run(
            ["bash", "-ec", words], cwd=self._folder, check=True, capture_output=True, text=True
        ).stdout

    def _small(self, command: list[str]) -> list[str]:
        words = ["every:1s" if word == "every:10s" else word for word in command]
        if words[0] in ("train", "train-clip", "train-prompts", "distill"):
            words += ["--epochs", "3" if "--recipe" in words else "1"]
            words += ["--threads", "1", "--precision", "fp32"]
        if words[0] == "bench":
            words += ["--seconds", "0.05", "--processes", "1", "--threads", "1", "--no-pipeline"]
        if "--realtime" in words:  # then the demo has no end
            words += ["--max-frames", "25"]
        if "--camera" in words:
            words[words.index("--camera") : words.index("--camera") + 1] = ["--source", self._camera]
        if "--web" in words:
            place = words.index("--web") + 1
            words[place : place + ("0.0.0.0:8080" in words)] = ["127.0.0.1:0"]
        faces = words[0] == "run" and not {"parts.onnx", "my.onnx", "--config"} & set(words)
        if faces or "--photos" in words or words[:2] == ["data", "crop"]:
            words += ["--detector", "haar"]  # Haar replaces YuNet, whose file would be downloaded
        if "--host" in words:
            words[words.index("--host") + 1] = self._host.host().address
            words += ["--user", *ssh_words(self._host)]  # a user service, even if the tests run as root
        if "--inventory" in words:
            # The boards share one home, so they must not be changed at the same time.
            words += ["--parallel", "1", *ssh_words(self._host)]
            words += ["--user"] if words[0] in ("deploy", "releases", "rollback", "undeploy") else []
            words += ["--no-install"] if words[0] == "bench" else []
        if words[0] == "deploy":
            words += ["--settle", "0.2", "--no-install"]
        return words

    def save_settings(self, text: str) -> None:
        """Write a settings file of the page; the first line of `text` is its name."""
        name = text.splitlines()[0].removeprefix("# ")
        detector = "" if name == "parts.toml" else '\ndetector = "haar"'
        text = text.replace("camera = true", f'source = "{self._stream}"{detector}').replace(
            "0.0.0.0:8080", "127.0.0.1:0"
        )
        for number, address in enumerate(("127.0.0.1", f"{getpass.getuser()}@127.0.0.1"), 1):
            text = text.replace(f"pi@room-0{number}.local", address)
        if self._host is not None:
            text = text.replace("~/.ssh/boards", str(self._host.host().identity))
        (self._folder / name).write_text(text.replace("mqtt://homeassistant.local", self._broker))


def label(command: list[str], folder: Path) -> str:
    """Run `data label` and label every group over HTTP; groups without a matching class are discarded."""
    start = [sys.executable, "-m", "edgekit.cli", *command, "--web", "127.0.0.1:0"]
    with subprocess.Popen(start, cwd=folder, stdout=subprocess.PIPE, text=True) as page:
        assert page.stdout is not None
        first = page.stdout.readline()
        try:
            (address,) = re.findall(r"http://([^/\s]+)", first)
            state = json.loads(fetch(address, "/api/state"))
            for group in state["groups"]:
                names = [crop["name"] for crop in group["crops"]]
                pixels = np.frombuffer(fetch(address, f"/crop/{names[0]}"), np.uint8)
                decided = face_class(cv2.imdecode(pixels, cv2.IMREAD_GRAYSCALE))
                fetch(address, "/api/decide", {"files": names, "label": decided})
        finally:
            page.send_signal(signal.SIGINT)
        rest = page.stdout.read()
    assert page.returncode == 0
    return first + rest


def fetch(address: str, path: str, body: dict[str, Any] | None = None) -> bytes:
    """Return the response to a GET request, or to a POST request with a JSON document."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return answer.read()
    finally:
        connection.close()


@pytest.mark.slow
def test_whole_images_from_a_folder_to_a_board(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    play: Callable[..., Any],
    sshd: Sshd,
    board: Board,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_classes(tmp_path / "parts" / "train", draw_part, PARTS, 10, seed=0)
    save_classes(tmp_path / "parts" / "test", draw_part, PARTS, 4, seed=1)
    generator = np.random.default_rng(2)
    save_video(tmp_path / "belt.mp4", [draw_part(kind, generator) for kind in PARTS * 3])
    walk = Walk(tmp_path, "belt.mp4", play([("pictures", 1_000_000, (320, 180))]).url, sshd)
    printed = walk.follow(TUTORIALS["own-objects"])
    assert (board.root / "current/model.onnx").read_bytes() == (tmp_path / "parts.onnx").read_bytes()
    assert len((tmp_path / "nuts.csv").read_text().splitlines()) == 1 + 4
    (evaluated,) = (
        text for command, text in printed.items() if command.startswith("eval runs/parts --data parts --plot")
    )
    accuracy = re.search(r"accuracy +([\d.]+)%", evaluated)
    assert accuracy
    assert float(accuracy[1]) > 80
    (inspected,) = (text for command, text in printed.items() if command.startswith("inspect"))
    assert re.search(r"labels +3: bolt, nut, washer", inspected)
    assert re.search(r"classifies +the whole image", inspected)


def test_things_are_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_classes(tmp_path / "parts" / "train", draw_part, PARTS, 8, seed=0)
    save_classes(tmp_path / "parts" / "test", draw_part, PARTS, 2, seed=1)
    save_video(tmp_path / "camera.mp4", [draw_part(kind, np.random.default_rng(2)) for kind in PARTS])
    Walk(tmp_path, "camera.mp4").follow(TUTORIALS["teach"])
    records = [json.loads(line) for line in (tmp_path / "bolts.jsonl").read_text().splitlines()]
    assert [record["results"][0]["label"] for record in records if "results" in record] == ["bolt", "bolt"]


def draw_mat(kind: str, generator: np.random.Generator) -> np.ndarray:
    """Return the mat alone; a bolt stands for the parcel."""
    return draw_part({"empty": "washer", "parcel": "bolt"}[kind], generator)


def draw_scene(kind: str, generator: np.random.Generator) -> np.ndarray:
    """Return what the camera sees; the mat is in the rectangle around the zone of the page."""
    image = np.full((180, 320, 3), 90, np.uint8)
    image[18:, 64:256] = cv2.resize(draw_mat(kind, generator), (192, 162))
    return image


def test_a_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_classes(tmp_path / "pictures", draw_mat, ("empty", "parcel"), 8, seed=0)
    Walk(tmp_path).follow(TUTORIALS["door"])
    generator = np.random.default_rng(1)
    kinds = ["empty"] * 30 + ["parcel"] * 40
    save_video(tmp_path / "scene.mp4", [draw_scene(kind, generator) for kind in kinds])
    options = ("--jsonl", "door.jsonl", "--event-hold", "0s")
    done = call("run", "--config", "second/edgekit.toml", "--source", "scene.mp4", *options)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (tmp_path / "door.jsonl").read_text().splitlines()]
    # Each part has another background, so that many are unlike all that were taught, and their label is uncertain.
    guesses = [max(found := record["results"][0]["probabilities"], key=found.get) for record in records]
    assert sum(guess == kind for guess, kind in zip(guesses, kinds, strict=True)) > 0.8 * len(kinds)
    assert {result["zone"] for record in records for result in record["results"]} == {"mat"}
    assert list((tmp_path / "clips").glob("*.mp4"))


@pytest.mark.slow
def test_faces_from_a_camera_to_a_board(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    play: Callable[..., Any],
    sshd: Sshd,
    board: Board,
) -> None:
    monkeypatch.chdir(tmp_path)
    kinds = tuple(BRIGHTNESS)
    save_video(tmp_path / "camera.mp4", passers_by(18, seed=0))
    save_classes(tmp_path / "photos", draw_face, kinds, 3, seed=1)
    save_classes(tmp_path / "later" / "photos", draw_face, kinds, 2, seed=2)
    walk = Walk(tmp_path, "camera.mp4", play([("pictures", 1_000_000, (64, 48))]).url, sshd)
    printed = walk.follow(TUTORIALS["own-faces"])
    collected = len((tmp_path / "collected/crops.jsonl").read_text().splitlines())
    (labelled,) = (text for command, text in printed.items() if command.startswith("data label collected"))
    assert collected >= 18
    assert f"0 of {collected} crops wait" in labelled
    assert (board.root / "current/model.onnx").read_bytes() == (tmp_path / "faces.onnx").read_bytes()


def test_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name in ("portrait.png", "pictures/first.png", "pictures/second.png"):
        shutil.copy(ROOT / "edgekit/assets/astronaut.png", tmp_path / name)
    printed = Walk(tmp_path).follow(TUTORIALS["first-run"])
    assert "labels: happy 150" in printed["run --source demo --save demo.mp4 --jsonl demo.jsonl"]
    assert len((tmp_path / "faces.csv").read_text().splitlines()) == 1 + 2
    assert {path.name for path in (tmp_path / "annotated").iterdir()} == {"first.png", "second.png"}
    assert {path.name for path in tmp_path.iterdir()} >= {"demo.mp4", "demo.jsonl", "annotated.png", "bench.html"}


def test_raspberry_pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    monkeypatch.chdir(tmp_path)
    broker.start()
    printed = Walk(tmp_path, broker=f"mqtt://127.0.0.1:{broker.port}").follow(TUTORIALS["raspberry-pi"])
    assert "mqtt 1 written" in printed["run --config edgekit.toml"]
    # One record per second of the five seconds, and those of changes.
    assert 5 <= len((tmp_path / "results.jsonl").read_text().splitlines()) < 20


@pytest.mark.slow
def test_many_boards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, play: Callable[..., Any], sshd: Sshd, board: Board
) -> None:
    monkeypatch.chdir(tmp_path)
    walk = Walk(tmp_path, stream=play([("pictures", 1_000_000, (64, 48))]).url, host=sshd)
    printed = walk.follow(TUTORIALS["twenty-boards"])
    report = json.loads((tmp_path / "boards.json").read_text())
    assert [each["label"] for each in report["boards"]] == ["room-01", "room-02"]
    (measured,) = (text for command, text in printed.items() if command.startswith("bench"))
    assert "All boards" in measured
    (repeated,) = (text for command, text in printed.items() if "deploy default" in command and "--only" not in command)
    assert "room-01: 0001-efc6a7c1 is already current" in repeated
    (rolled_back,) = (text for command, text in printed.items() if command.startswith("rollback"))
    assert "room-01: 0001-efc6a7c1 runs; before: 0002-5a691b23" in rolled_back
    assert not board.root.exists()


@pytest.mark.slow
def test_small_net_from_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_faces: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    faces = draw_faces(tmp_path / "faces", {"train": 70, "val": 28, "test": 28})
    with tarfile.open(tmp_path / "fer2013.tar.gz", "w:gz") as archive:
        archive.add(faces, "faces")
    save_votes(faces, tmp_path / "ferplus_votes.csv")
    printed = Walk(tmp_path).follow(TUTORIALS["small-from-large"])
    assert "150 frames" in printed["run --model student.onnx --source demo"]
    assert "150 frames" in printed["run --model moods.onnx --source demo"]
