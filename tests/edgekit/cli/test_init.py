"""`edgekit init`: answers as options and in a terminal; the settings file is one that `edgekit run` accepts."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device.sources.opencv import DiscoveredCameras
from tests.device.http_client import request
from tests.waiting import wait_until


def test_a_run_accepts_the_settings(edgekit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert edgekit("init", "--source", "demo", "--region", "0.1,0,0.8,1", "--results", "records,clips")[0] == 0
    settings = tomllib.loads(Path("edgekit.toml").read_text())
    assert {key: settings[key] for key in ("source", "model", "roi", "event-clips")} == {
        "source": "demo",
        "model": "default",
        "roi": "0.1,0,0.8,1",
        "event-clips": "clips",
    }
    assert "web" not in settings
    assert edgekit("run", "--config", "edgekit.toml", "--max-frames", "5")[0] == 0
    assert Path("results.jsonl").read_text()


def test_settings_for_another_folder_name_the_same_files(
    edgekit, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.onnx").write_bytes(tiny_model.read_bytes())
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    assert edgekit("init", "-o", "there/edgekit.toml", "--model", "here.onnx", "--results", "records")[0] == 0
    settings = tomllib.loads(Path("there/edgekit.toml").read_text())
    assert settings["model"] == str(tmp_path / "here.onnx")


def test_own_things_are_taught_on_the_page(edgekit, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    _, stdout, _ = edgekit("init", "-o", path, "--model", "teach", "--results", "mqtt://broker.local", "--json")
    assert json.loads(stdout)["settings"] == tomllib.loads(path.read_text())
    settings = tomllib.loads(path.read_text())
    assert settings["teach"] is True
    assert settings["camera"] == "auto"
    assert settings["mqtt"] == "mqtt://broker.local"
    assert re.fullmatch(r"0\.0\.0\.0:80[89]\d", settings["web"])
    assert (tmp_path / settings["web-token-file"]).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "line",
    ["--zone 'mat=0,0,1,0,1,1'", 'zone = ["mat=0,0,1,0,1,1"]', 'zone = ["mat=0,0,1,0,1,1", "bench=0,0,0,1,1,1"]'],
)
def test_the_lines_of_the_page_are_regions(edgekit, line: str, tmp_path: Path) -> None:
    path = tmp_path / "edgekit.toml"
    assert edgekit("init", "-o", path, "--results", "records", "--region", line)[0] == 0
    zones = tomllib.loads(path.read_text())["zone"]
    assert zones == ["mat=0,0,1,0,1,1", "bench=0,0,0,1,1,1"][: len(zones)]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--results", "fax"),
        ("--results", ","),
        ("--results", "web,mqtt://"),
        ("--results", "mqtt://user:password@broker.local"),
        ("--region", "0,0,2,2"),
        ("--region", "zone = []"),
        ("--model", "teach", "--region", "0,0,1,1"),
        ("--region", "zone = 5"),
        ("--model", "nowhere.onnx"),
    ],
)
def test_a_wrong_answer_writes_nothing(edgekit, wrong: tuple[str, str], tmp_path: Path) -> None:
    assert edgekit("init", "-o", tmp_path / "edgekit.toml", *wrong)[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_without_a_camera_the_default_answer_is_a_warning(
    edgekit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.device.sources.opencv.list_cameras", lambda: DiscoveredCameras((), ()))
    code, _, err = edgekit("init", "-o", tmp_path / "edgekit.toml", "--results", "records", "--quiet")
    assert code == 0
    assert "no camera found" in err


def test_existing_settings_are_kept(edgekit, tmp_path: Path) -> None:
    path = tmp_path / "edgekit.toml"
    path.write_text("camera = true")
    assert edgekit("init", "-o", path)[0] == 2
    assert path.read_text() == "camera = true"


class Dialogue:
    """A command in a terminal: texts that it prints are waited for and answered."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self.text = ""

    def answer(self, question: str, answer: str) -> None:
        self.wait(question)
        os.write(self._terminal, f"{answer}\n".encode())
        self.text = self.text.partition(question)[2]

    def wait(self, text: str) -> None:
        while text not in self.text:
            chunk = os.read(self._terminal, 4096)  # raises OSError after the end of the command
            self.text += chunk.decode()


@contextmanager
def dialogue(*arguments: object, cwd: Path) -> Iterator[Dialogue]:
    primary, secondary = pty.openpty()
    words = [sys.executable, "-m", "edgekit.cli", *map(str, arguments)]
    with subprocess.Popen(words, cwd=cwd, stdin=secondary, stdout=secondary, stderr=secondary) as process:
        os.close(secondary)
        try:
            yield Dialogue(primary)
        except BaseException:
            process.terminate()
            raise
        assert process.wait() == 0
    os.close(primary)


def is_served(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):  # noqa: S310 - the address is of this test
            return True
    except OSError:
        return False


def page_of(terminal: Dialogue) -> str:
    """Return the address of the page that the command has printed, on this machine."""
    terminal.wait("3. Region")
    port = re.search(r"page: http://[^:]+:(\d+)/", terminal.text)
    assert port is not None
    return f"http://127.0.0.1:{port.group(1)}"


def test_a_terminal_is_asked_and_the_page_shows_the_camera_meanwhile(tmp_path: Path) -> None:
    with dialogue("init", cwd=tmp_path) as terminal:
        terminal.answer("1. Camera", "nonsense")
        terminal.answer("1. Camera", "demo")
        terminal.answer("2. Recognise", "nowhere.onnx")
        terminal.answer("2. Recognise", "")
        address = f"{page_of(terminal)}/healthz"
        assert is_served(address)
        terminal.answer("3. Region", "0.1,0,0.5,1")
        terminal.answer("4. Results", "records")
        terminal.answer("5. Start at boot", "n")
    settings = tomllib.loads((tmp_path / "edgekit.toml").read_text())
    assert settings["source"] == "demo"
    assert settings["roi"] == "0.1,0,0.5,1"
    assert not is_served(address)


@pytest.mark.parametrize("name", ["short.avi", "picture.png"])
def test_the_page_repeats_a_recording_until_the_region_is_chosen(tmp_path: Path, name: str) -> None:
    picture = np.full((48, 64, 3), 128, np.uint8)
    cv2.imwrite(str(tmp_path / "picture.png"), picture)
    video = cv2.VideoWriter(str(tmp_path / "short.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for _ in range(3):
        video.write(picture)
    video.release()
    with dialogue("init", "--source", name, "--results", "records", "--no-service", cwd=tmp_path) as terminal:
        terminal.answer("2. Recognise", "default")
        address = page_of(terminal)
        token = (tmp_path / "web-token").read_text().strip()
        login = {"Authorization": f"Bearer {token}"}
        wait_until(lambda: json.loads(request(address, "GET", "/api/state", **login)[2])["frames"] > 10)
        terminal.answer("3. Region", "")


def test_a_camera_that_cannot_be_opened_is_reported_before_the_region_is_asked_for(tmp_path: Path) -> None:
    with dialogue("init", "--source", "gone.mp4", "--results", "records", "--no-service", cwd=tmp_path) as terminal:
        terminal.answer("2. Recognise", "default")
        terminal.wait("3. Region")
        assert "gone.mp4" in terminal.text.partition("3. Region")[0]
        assert "page: http" not in terminal.text
        terminal.answer("3. Region", "")
