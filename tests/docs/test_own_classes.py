"""The commands of docs/tutorials/own-classes.md exist, and both walks run from first to last at small size."""

from __future__ import annotations

import http.client
import json
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

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
from tests.edgekit.remote.commands import call, ssh_words
from tests.edgekit.remote.conftest import Sshd
from tests.edgekit.remote.conftest import board as board
from tests.edgekit.remote.conftest import sshd as sshd
from tests.edgekit.remote.release_board import Board

PAGE = (Path(__file__).parents[2] / "docs/tutorials/own-classes.md").read_text()
_FENCE = re.compile(r"^( *)```(sh|toml)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks(kind: str, text: str = PAGE) -> list[str]:
    """Return the blocks of that language."""
    return [textwrap.dedent(body) for _, language, body in _FENCE.findall(text) if language == kind]


def commands(text: str = PAGE) -> list[list[str]]:
    """Return the words of each command, without `edgekit`."""
    lines = [line for block in blocks("sh", text) for line in block.splitlines()]
    words = [shlex.split(line) for line in lines]
    assert all(line[0] == "edgekit" for line in words)
    return [line[1:] for line in words]


def path_of(command: list[str]) -> tuple[str, ...]:
    """Return the command without arguments: ("data", "crop") or ("run",)."""
    return tuple(command[: 2 if command[0] == "data" else 1])


@pytest.mark.parametrize("path", sorted({path_of(command) for command in commands()}), ids=" ".join)
def test_commands_and_options_of_the_page_exist(path: tuple[str, ...]) -> None:
    shown = call(*path, "--help")
    assert shown.returncode == 0, shown.stderr
    for command in commands():
        if path_of(command) == path:
            options = [word for word in command if re.match("--?[a-z]", word)]
            missing = [option for option in options if not re.search(rf"(?m)^ .*{option}\b", shown.stdout)]
            assert missing == [], command


def section(title: str) -> str:
    """Return the text below a heading, up to the next one."""
    (found,) = re.findall(rf"^## {title}.*?\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return found


class Walk:
    """Runs the page's commands in a folder, with fewer epochs and with substitutes for the camera and the board."""

    def __init__(self, folder: Path, camera: str, stream: str, host: Sshd, collected_every: str = "every:1s") -> None:
        self._camera, self._stream, self._host, self._every = camera, stream, host, collected_every
        self._folder = folder

    def run(self, command: list[str]) -> str:
        """Run one command and return what it prints."""
        if path_of(command) == ("data", "label"):
            return label(command, self._folder)
        done = call(*self._small(command))
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def _small(self, command: list[str]) -> list[str]:
        words = [self._every if word == "every:10s" else word for word in command]
        if words[0] == "train":
            words += ["--epochs", "3", "--threads", "1", "--precision", "fp32"]
        if "--camera" in words:
            words[words.index("--camera") : words.index("--camera") + 1] = ["--source", self._camera]
        if "--web" in words:
            words.insert(words.index("--web") + 1, "127.0.0.1:0")
        faces = words[0] == "run" and not {"parts.onnx"} & set(words)
        if faces or "--photos" in words or words[:2] == ["data", "crop"]:
            words += ["--detector", "haar"]  # YuNet's file would be downloaded
        if "--host" in words:
            words[words.index("--host") + 1] = self._host.address
            words += ["--user", *ssh_words(self._host)]  # also where the tests run as root
        if words[0] == "deploy":
            words += ["--settle", "0.2", "--no-install"]
        return words

    def save_settings(self, text: str) -> None:
        """Write the settings file of the page; its first line has the name."""
        name = text.splitlines()[0].removeprefix("# ")
        detector = "" if name == "parts.toml" else '\ndetector = "haar"'
        (self._folder / name).write_text(text.replace("camera = true", f'source = "{self._stream}"{detector}'))


def label(command: list[str], folder: Path) -> str:
    """Run `data label` and decide every group over HTTP; crops that are no face are discarded."""
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
                if decided not in state["classes"]:
                    decided = group["suggestion"] if group["suggestion"] in PARTS else None
                fetch(address, "/api/decide", {"files": names, "label": decided})
        finally:
            page.send_signal(signal.SIGINT)
        rest = page.stdout.read()
    assert page.returncode == 0
    return first + rest


def fetch(address: str, path: str, body: dict[str, Any] | None = None) -> bytes:
    """Return the answer to GET, or to POST of a JSON document."""
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
    pages = [section("Walk 1"), section("When accuracy is low"), section("More pixels")]
    for text in blocks("toml", pages[0]):
        walk.save_settings(text)
    printed = {" ".join(command): walk.run(command) for page in pages for command in commands(page)}
    assert (board.root / "current/model.onnx").read_bytes() == (tmp_path / "parts.onnx").read_bytes()
    assert len((tmp_path / "nuts.csv").read_text().splitlines()) == 1 + 4
    (inspected,) = (text for command, text in printed.items() if command.startswith("inspect"))
    assert re.search(r"labels +3: bolt, nut, washer", inspected)
    assert re.search(r"crop +padded to a square", inspected)
    assert len(list((tmp_path / "parts/train").rglob("*.png"))) == len(
        (tmp_path / "uncertain-parts/crops.jsonl").read_text().splitlines()
    )


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
    cropped = call("data", "crop", "later/photos", "-o", "later/faces", "--detector", "haar")
    assert cropped.returncode == 0, cropped.stderr
    walk = Walk(tmp_path, "camera.mp4", play([("pictures", 1_000_000, (64, 48))]).url, sshd)
    page = section("Walk 2")
    for text in blocks("toml", page):
        walk.save_settings(text)
    printed = {" ".join(command): walk.run(command) for command in commands(page)}
    collected = len((tmp_path / "collected/crops.jsonl").read_text().splitlines())
    (labelled,) = (text for command, text in printed.items() if command.startswith("data label"))
    assert collected >= 18
    assert f"0 of {collected} crops wait" in labelled
    assert (board.root / "current/model.onnx").read_bytes() == (tmp_path / "faces.onnx").read_bytes()


def test_every_option_that_the_text_names_exists() -> None:
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    helps = [call(*path, "--help").stdout for path in {path_of(command) for command in commands()}]
    assert sorted(option for option in options if not any(re.search(rf"{option}\b", text) for text in helps)) == []
