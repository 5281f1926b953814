"""Home Assistant itself, with its MQTT integration and a real broker.

Needs a Python 3.13 with `pip install homeassistant paho-mqtt`, whose path is in EDGEKIT_HOME_ASSISTANT.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.contract import Contract
from edgekit.device.health.sampler import read_health
from edgekit.device.sinks.events import Event
from edgekit.device.sinks.mqtt import MqttOptions
from edgekit.device.sinks.mqtt.session import Commands, MqttSettings
from edgekit.device.sinks.mqtt.sink import MqttSink
from edgekit.device.sinks.snapshots import SnapshotWriter
from edgekit.device.zones import Zone, parse_zone
from tests.runs import LABELS, contract, run_of
from tests.waiting import wait_until

PYTHON = os.environ.get("EDGEKIT_HOME_ASSISTANT")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="no Python with Home Assistant: set EDGEKIT_HOME_ASSISTANT"),
]
# The entities of edgekit 0.2.
OLD = ("sensor/faces", "sensor/label", "binary_sensor/present", "sensor/fps", "sensor/temperature",
       "binary_sensor/throttled", "event/changed")  # fmt: skip
FACES = "sensor.edgekit_test_faces"


class HomeAssistant:
    """The process of `tests/home_assistant.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, command: str = "") -> dict[str, Any]:
        """Execute a command; return the entities by id, and the logged warnings."""
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def entities(self) -> dict[str, Any]:
        return self.ask()["entities"]

    def until(self, condition: Callable[[dict[str, Any]], object]) -> None:
        wait_until(lambda: condition(self.entities()), poll_s=0.2)


@pytest.fixture
def home_assistant(broker, tmp_path: Path) -> Callable[[], Any]:
    """Return a context manager in which Home Assistant runs; a second one continues with the same folder."""
    broker.start()

    @contextmanager
    def start() -> Iterator[HomeAssistant]:
        (tmp_path / "home").mkdir(exist_ok=True)
        command = [PYTHON, Path(__file__).parents[2] / "home_assistant.py", tmp_path / "home", str(broker.port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield HomeAssistant(process)
            process.stdin.close()

    return start


class Camera:
    """A run with MQTT, which sees two faces."""

    def __init__(self, stack: ExitStack, port: int, folder: Path, notify: Callable[[str], None], feed) -> None:
        self._stack, self._folder, self._notify = stack, folder, notify
        self._frame, self._result = feed.next("happy", "sad")
        self._settings = MqttSettings(MqttOptions(mqtt=f"mqtt://127.0.0.1:{port}", mqtt_topic="edgekit/test"))

    def start(
        self,
        model: Contract | None = None,
        commands: tuple[str, ...] = (),
        images: bool = False,
        zones: tuple[Zone, ...] = (),
    ) -> None:
        health = replace(read_health(self._folder), camera="ok")
        self.run = run = replace(run_of(self._notify, health=lambda: health), contract=model or contract(), zones=zones)
        faces = self._result.faces
        if zones:
            faces = replace(faces, zones=zones, zone_indices=np.arange(len(faces)))
        run.monitor.write(self._frame, replace(self._result, faces=faces))
        if images:
            run.links.snapshots = self._stack.enter_context(SnapshotWriter(self._folder / "snapshots", run))
            run.links.sends_snapshots = True
        self.sink = self._stack.enter_context(MqttSink(self._settings, run, Commands(commands, run), pauses_s=(0.1,)))

    def post(self) -> None:
        event = Event("run-1", 1, "happy", None, 0.9, 1.0, 1, 1.0, 1.7e9, clip="a.mp4")
        self.sink.post(self.run.links.snapshots.take(event, self._frame, self._result))

    def stop(self) -> None:
        self.sink.__exit__(None, None, None)


@pytest.fixture
def camera(broker, tmp_path, feed, notices, monkeypatch) -> Iterator[Camera]:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    with ExitStack() as stack:
        yield Camera(stack, broker.port, tmp_path, notices.append, feed)


def warnings_of_mqtt(home: HomeAssistant) -> list[str]:
    return [line for line in home.ask()["log"] if "edgekit" in line or "discovery" in line]


def test_the_device_and_its_entities_appear_and_are_there_again_after_a_restart(home_assistant, camera):
    with home_assistant() as home:
        camera.start(commands=("pause", "snapshot"), images=True)
        home.until(lambda found: found.get(FACES, {}).get("state") == "2")
        home.until(lambda found: found["switch.edgekit_test_pause"]["state"] == "off")
        camera.post()
        home.until(lambda found: "T" in found["image.edgekit_test_latest_event"]["state"])
        found = home.entities()
        assert len(found) == 14
        assert found["sensor.edgekit_test_expression"]["state"] == "happy"
        assert found["sensor.edgekit_test_camera"]["state"] == "ok"
        assert found["sensor.edgekit_test_expression"]["attributes"]["options"] == [*LABELS, "uncertain"]
        changed = found["event.edgekit_test_expression_changed"]["attributes"]
        assert (changed["event_type"], changed["clip"]) == ("happy", "a.mp4")
        assert changed["snapshot"].endswith("run-1.jpg")
        assert warnings_of_mqtt(home) == []
    with home_assistant() as home:
        home.until(lambda again: again[FACES]["state"] == "2")
        assert home.entities().keys() == found.keys()
        camera.stop()
        home.until(lambda again: again[FACES]["state"] == "unavailable")


def test_what_a_run_does_not_have_is_removed(home_assistant, camera):
    with home_assistant() as home:
        camera.start(commands=("pause",))
        home.until(lambda found: len(found) == 11)
        camera.stop()
        camera.start(contract(("open", "shut"), "image"))
        home.until(lambda found: len(found) == 8)
        assert not {"switch.edgekit_test_pause", FACES} & home.entities().keys()
        home.until(lambda found: found["sensor.edgekit_test_expression"]["attributes"]["options"][0] == "open")


def test_each_zone_has_its_state_and_its_events(home_assistant, camera):
    with home_assistant() as home:
        camera.start(zones=(parse_zone("door=0,0,1,0,1,1"), parse_zone("bed-2=0,0,0,1,1,1")))
        home.until(lambda found: found.get("sensor.edgekit_test_expression_bed_2", {}).get("state") == "sad")
        camera.sink.post(Event("run-1", 1, "happy", None, 0.9, 1.0, 1, 1.0, 1.7e9, zone="door"))
        home.until(lambda found: found["event.edgekit_test_expression_changed_door"]["state"] != "unknown")
        found = home.entities()
        assert found["sensor.edgekit_test_expression_door"]["state"] == "happy"
        assert found["sensor.edgekit_test_faces_bed_2"]["state"] == "1"
        assert found["binary_sensor.edgekit_test_face_present_door"]["state"] == "on"
        assert found["event.edgekit_test_expression_changed_bed_2"]["state"] == "unknown"
        assert found["event.edgekit_test_expression_changed"]["attributes"]["zone"] == "door"
        camera.stop()
        camera.start()  # without zones
        home.until(lambda found: found["binary_sensor.edgekit_test_face_present_door"]["state"] == "off")
        assert home.entities()["sensor.edgekit_test_expression_door"]["state"] == "unknown"
        assert [line for line in home.ask()["log"] if "edgekit" in line or "Error" in line] == []


def test_entities_of_edgekit_0_2_keep_their_ids_and_the_settings_of_the_user(home_assistant, camera, broker):
    for entity in OLD:
        component, name = entity.split("/")
        device = {"identifiers": ["edgekit_test"], "name": "edgekit/test"}
        document = {"name": name.title(), "unique_id": f"edgekit_test_{name}", "state_topic": "edgekit/test/state",
                    "device": device, "event_types": ["happy"]}  # fmt: skip
        broker.publish(f"homeassistant/{component}/edgekit_test/{name}/config", json.dumps(document), retain=True)
    with home_assistant() as home:
        home.until(lambda found: len(found) == len(OLD))
        home.ask(f"rename {FACES} Visitors")
        before = {entity["unique_id"]: name for name, entity in home.entities().items()}
        camera.start()
        home.until(lambda found: len(found) == 10 and found[FACES]["state"] == "2")
        after = {entity["unique_id"]: name for name, entity in home.entities().items()}
        assert before.items() <= after.items()
        assert home.entities()[FACES]["name"] == "Visitors"
        assert warnings_of_mqtt(home) == []
