"""A run that is left alone shows losses, a full disk, a bad camera and a wrong clock."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.errors import EXIT_OK
from tests.edgekit import conftest as commands

start = commands.start

# Shorter times than the defaults; the order of what happens is the same.
SOON = """
from edgekit.device.health import camera_watch
from edgekit.device.sinks.mqtt import sink
camera_watch.BEGINS_AFTER_S, sink.MAX_STATE_PERIOD_S = 1.0, 1.0
"""
RED, BLUE = (40, 40, 130), (130, 40, 40)


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))


class Camera:
    """Makes the images of a stream: what it shows, and its colour, can be changed at any time."""

    def __init__(self) -> None:
        self.shows = "noise"
        self.bgr = RED
        self._generator = np.random.default_rng(0)

    def __call__(self) -> bytes:
        generator = np.random.default_rng(1) if self.shows == "frozen" else self._generator
        image = generator.integers(0, 120, (12, 16, 1)) + np.asarray(self.bgr)
        if self.shows == "covered":
            image = np.full((12, 16, 3), self.bgr)
        if self.shows == "dark":
            image = np.zeros((12, 16, 3))
        large = cv2.resize(image.astype(np.uint8), (160, 120), interpolation=cv2.INTER_NEAREST)
        return cv2.imencode(".jpg", large)[1].tobytes()


class Topics:
    """The messages of a run below one topic."""

    def __init__(self, broker, stack: ExitStack) -> None:
        self._listener = broker.listen(stack)
        self.options = ("--mqtt", f"mqtt://127.0.0.1:{broker.port}", "--mqtt-topic", "edgekit/test")

    def __call__(self, topic: str) -> list[dict]:
        return [json.loads(message) for message in self._listener.on(f"edgekit/test/{topic}")]

    def latest(self, topic: str) -> dict:
        return next(reversed(self(topic)), {})

    def entity(self, name: str) -> dict:
        """Return what describes an entity in the discovery message, after its arrival."""
        return self._listener.entities()[name]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as response:
        return str(response.read().decode())


@pytest.mark.slow
def test_a_frozen_dark_or_covered_camera_is_shown_published_and_counted_and_gives_no_event(
    broker, start: Callable, play: Callable
) -> None:
    broker.start()
    camera, port = Camera(), free_port()
    server = play([("made", camera)])
    with ExitStack() as stack:
        topics = Topics(broker, stack)
        options = (*topics.options, "--web", port, "--event-hold", 1)
        run = start("--source", server.url, *options, before=SOON)
        run.until(lambda: topics.latest("health").get("camera") == "ok")
        run.until(lambda: topics.latest("event").get("label") == "red")
        for number, camera.shows in enumerate(("frozen", "dark", "covered")):
            run.until(lambda: topics.latest("health")["camera"] == camera.shows)
            assert f'edgekit_camera_state{{state="{camera.shows}"}} 1' in get(port, "/metrics")
            assert f'edgekit_camera_faults_total{{state="{camera.shows}"}} 1' in get(port, "/metrics")
            assert json.loads(get(port, "/api/state"))["health"]["camera"] == camera.shows
            assert f"camera is {camera.shows}" in run.stderr_text
            assert len(topics.latest("health")["camera_faults"]) == number + 1
        # Longer than --event-hold.
        camera.bgr, changed_s = BLUE, time.monotonic()
        run.until(lambda: topics.latest("state")["monotonic_s"] > changed_s + 2)
        camera.shows, usable_s = "noise", time.monotonic()
        run.until(lambda: topics.latest("health")["camera"] == "ok")
        run.until(lambda: len(topics("event")) == 2)
        assert topics.latest("event")["label"] == "blue"
        assert topics.latest("event")["monotonic_s"] - topics.latest("event")["held_s"] >= usable_s
        assert topics.entity("camera")["options"] == ["ok", "frozen", "dark", "covered", "lost"]
        run.process.send_signal(signal.SIGTERM)
        assert run.end() == EXIT_OK


def test_losses_and_a_full_disk_are_shown_and_published(
    broker, start: Callable, play: Callable, small_disk: Path, fill: Callable
) -> None:
    broker.start()
    port = free_port()
    fill(small_disk)
    with ExitStack() as stack:
        topics = Topics(broker, stack)
        options = (*topics.options, "--web", port, "--event-hold", 0)
        snapshots = ("--event-snapshots", small_disk / "events")
        run = start("--source", play([("made", Camera())]).url, *options, *snapshots, before=SOON)
        run.until(lambda: topics.latest("health").get("dropped") == 1)
        health = topics.latest("health")
        assert [name.split(":")[0] for name in health["dropped_by"]] == ["event snapshots"]
        assert health["disk_free_mib"] == 0
        for name in ("dropped", "disk_free"):
            entity = topics.entity(name)
            assert entity["state_topic"] == "edgekit/test/health"
            assert set(re.findall(r"value_json\.(\w+)", json.dumps(entity))) <= set(health)
        assert re.search(r'edgekit_output_dropped_total\{output="event snapshots",.*\} 1', get(port, "/metrics"))
        assert "edgekit_disk_free_bytes 0" in get(port, "/metrics")
        run.process.send_signal(signal.SIGTERM)
        assert run.end() == EXIT_OK


@pytest.fixture
def unsynchronised(tmp_path: Path) -> str:
    """Statements of a process whose clock is a year late and not synchronised until the file `synchronized` exists."""
    (tmp_path / "run/systemd/timesync").mkdir(parents=True)
    return f"""
import functools, pathlib, time
from edgekit.device import health
late_ns = 365 * 86_400 * 10**9
time.time = lambda now_ns=time.time_ns: (now_ns() - late_ns) / 1e9
time.time_ns = lambda now_ns=time.time_ns: now_ns() - late_ns
health.Clock = functools.partial(health.Clock, pathlib.Path("{tmp_path}"))
"""


def test_what_is_recorded_until_the_clock_is_synchronised_is_marked_and_not_deleted_first(
    start: Callable, play: Callable, unsynchronised: str, tmp_path: Path
) -> None:
    url, folder = play([("made", Camera())]).url, tmp_path / "events"

    def run(name: str, before: str = "") -> list[dict]:
        """Return the records of a run, which saves one snapshot; two are kept."""
        size = max((path.stat().st_size for path in folder.glob("*.jpg")), default=10_000)
        options = ("--event-snapshots", folder, "--pictures-max-mb", 2.5e-6 * size, "--event-hold", 0)
        running = start("--source", url, "--max-frames", 10, "--jsonl", tmp_path / name, *options, before=before)
        assert running.end() == EXIT_OK
        return [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]

    for name in ("first", "second"):
        assert not any("clock_synchronised" in record for record in run(name))
    before = {path.name for path in folder.iterdir()}
    assert all(record["clock_synchronised"] is False for record in run("late", unsynchronised))
    (late,) = {path.name for path in folder.iterdir()} - before
    assert "unsynchronised" in late
    assert late < min(before), "its time is earlier"
    running = start("--source", url, "--jsonl", tmp_path / "long", before=unsynchronised)
    running.until(lambda: (tmp_path / "long").exists() and "clock_synchronised" in (tmp_path / "long").read_text())
    (tmp_path / "run/systemd/timesync/synchronized").touch()
    running.until(lambda: "clock_synchronised" not in (tmp_path / "long").read_text().splitlines()[-1])
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == EXIT_OK
    run("last")
    assert late in {path.name for path in folder.iterdir()}
    assert len(list(folder.iterdir())) == 2
