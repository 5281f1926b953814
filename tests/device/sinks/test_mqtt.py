"""Events over a real broker: arrival, order, outages, restarts, TLS, and the discovery of Home Assistant."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.device.sinks.events import Event
from edgekit.device.sinks.mqtt import MqttOptions
from edgekit.device.sinks.mqtt.discovery import Message, discovery_messages
from edgekit.device.sinks.mqtt.session import MqttSettings
from edgekit.device.sinks.mqtt.sink import MqttSink
from edgekit.device.zones import parse_zone
from edgekit.errors import TemporaryError
from tests.runs import HOT, LABELS, Images, contract, counts, run_of
from tests.waiting import wait_until

OPENSSL = shutil.which("openssl")


class Opener:
    """Opens sinks; `waiting` is the number of events of the last one that the broker has not confirmed."""

    def __init__(self, port: int, notices: list[str], feed, stack: ExitStack) -> None:
        self._port, self._notices, self._feed, self._stack = port, notices, feed, stack

    def __call__(self, url: str = "mqtt://127.0.0.1", credentials: str | None = None, images=None, zones=(), **options):
        named = {f"mqtt_{name}": value for name, value in ({"topic": "edgekit/test"} | options).items()}
        settings = MqttSettings(MqttOptions(mqtt=f"{url}:{self._port}", **named), credentials)
        self.run = replace(run_of(self._notices.append, health=lambda: HOT), zones=zones)
        result = self._feed.next("happy", "sad")[1]
        faces = replace(result.faces, zones=tuple(zones), zone_indices=np.zeros(2, np.int64)) if zones else result.faces
        self.run.monitor.write(None, replace(result, faces=faces))
        if images is not None:
            self.run.links.snapshots, self.run.links.sends_snapshots = Images(images), True
        return self._stack.enter_context(MqttSink(settings, self.run, pauses_s=(0.1,)))

    @property
    def waiting(self) -> int:
        return int(counts(self.run, "mqtt")["waiting"])


@pytest.fixture
def open_sink(broker, tmp_path: Path, notices: list[str], feed, monkeypatch) -> Iterator[Opener]:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    with ExitStack() as stack:
        yield Opener(broker.port, notices, feed, stack)


def event(sequence: int, track_id: int = 1) -> Event:
    return Event(f"run-{sequence}", track_id, LABELS[sequence % 3], None, 0.9, 1.0, sequence, float(sequence), 1.7e9)


def first_arrivals(sequences: list[int]) -> list[int]:
    return list(dict.fromkeys(sequences))


def test_events_arrive_once_and_in_order_with_state_and_health(listen, open_sink, notices):
    listener = listen()
    sink = open_sink()
    for sequence in range(200):
        sink.post(event(sequence, track_id=sequence % 3))
    wait_until(lambda: len(listener.sequences()) >= 200)
    assert listener.sequences() == list(range(200))
    assert json.loads(listener.on("edgekit/test/event")[4]) == event(4, track_id=1).as_document()
    wait_until(lambda: listener.on("edgekit/test/health"))
    state = json.loads(listener.on("edgekit/test/state")[0])
    assert (state["faces"], state["label"], state["labels"]) == (2, "happy", ["happy", "sad"])
    assert json.loads(listener.on("edgekit/test/health")[0])["temperature_c"] == 71.5
    wait_until(lambda: open_sink.waiting == 0)
    assert notices == []


def test_the_latest_image_is_retained_and_shown_by_home_assistant(listen, open_sink):
    images = {"a.jpg": b"\xff\xd8 first", "b.jpg": b"\xff\xd8 second"}
    live = listen()
    sink = open_sink(images=images)
    for name, image in images.items():
        sink.post(replace(event(0), snapshot=name))
        wait_until(lambda image=image: image in live.on("edgekit/test/snapshot"))
    late = listen()
    wait_until(lambda: ("edgekit/test/snapshot", images["b.jpg"], True) in late.messages)
    image = late.entities()["snapshot"]
    assert (image["image_topic"], image["content_type"]) == ("edgekit/test/snapshot", "image/jpeg")


def test_availability_is_retained_and_is_offline_after_the_end_and_after_a_kill(broker, listen, open_sink):
    live = listen()
    sink = open_sink()
    wait_until(lambda: live.on("edgekit/test/availability") == [b"online"])
    late = listen()
    wait_until(lambda: ("edgekit/test/availability", b"online", True) in late.messages)
    sink.__exit__(None, None, None)
    wait_until(lambda: live.on("edgekit/test/availability")[-1] == b"offline")

    # A killed process cannot publish "offline", so the broker publishes its last will.
    code = (
        "import time\nfrom edgekit.device.sinks.mqtt import MqttOptions\n"
        "from edgekit.device.sinks.mqtt.session import MqttSettings\n"
        "from edgekit.device.sinks.mqtt.sink import MqttSink\nfrom tests.runs import run_of\n"
        f"settings = MqttSettings(MqttOptions(mqtt='mqtt://127.0.0.1:{broker.port}', mqtt_topic='edgekit/dies'))\n"
        "MqttSink(settings, run_of(print)).__enter__()\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3]) as child:
        wait_until(lambda: live.on("edgekit/dies/availability") == [b"online"])
        child.kill()
    wait_until(lambda: live.on("edgekit/dies/availability") == [b"online", b"offline"])


def test_a_broker_that_is_killed_and_comes_back_gets_every_event_in_order(broker, open_sink, notices):
    broker.remember()
    broker.start()
    sink = open_sink()
    in_outages: list[int] = []
    with ExitStack() as stack:
        listener = broker.listen(stack, client_id="remembered")
        posted = 0
        for _ in range(3):
            for _ in range(100):
                sink.post(event(posted))
                posted += 1
            broker.kill()
            wait_until(lambda: notices and "events are buffered" in notices[-1])
            for _ in range(50):
                in_outages.append(posted)
                sink.post(event(posted))
                posted += 1
            wait_until(lambda: open_sink.waiting >= 50)
            broker.start()
            wait_until(lambda: "reconnected" in notices[-1])
        wait_until(lambda: listener.sequences()[-1:] == [posted - 1])
        wait_until(lambda: open_sink.waiting == 0)
        arrived = first_arrivals(listener.sequences())
    assert arrived == sorted(arrived)
    # A killed broker can lose events that it has just confirmed. The sink delivers all other events.
    assert set(in_outages) <= set(arrived)
    assert sum("reconnected" in line for line in notices) == 3
    assert all("events are buffered" in line or "reconnected" in line for line in notices)


def test_events_survive_a_restart_of_the_run_and_go_before_new_ones(broker, open_sink):
    first = open_sink()
    for sequence in range(5):
        first.post(event(sequence))
    wait_until(lambda: open_sink.waiting == 5)
    first.__exit__(None, None, None)
    broker.start()
    with ExitStack() as stack:
        listener = broker.listen(stack)
        open_sink().post(event(5))
        wait_until(lambda: len(listener.sequences()) == 6)
    assert listener.sequences() == [0, 1, 2, 3, 4, 5]


def test_home_assistant_gets_one_message_with_the_device_and_all_entities(listen, open_sink):
    listener = listen()
    open_sink(device_name="Front door", discovery_prefix="home/discovery")
    entities = listener.entities(prefix="home/discovery")
    (document,) = map(json.loads, listener.on("home/discovery/device/edgekit_test/config"))
    assert (document["dev"]["identifiers"], document["dev"]["name"]) == (["edgekit_test"], "Front door")
    assert document["o"]["name"] == "edgekit"
    assert document["availability"] == [{"topic": "edgekit/test/availability"}]
    shown = {name: entity for name, entity in entities.items() if entity}
    # Home Assistant keeps its settings by these ids.
    assert {name: entity["unique_id"] for name, entity in shown.items()} == {
        name: f"edgekit_test_{name}" for name in shown
    }
    assert len(shown) == 10
    assert shown["changed"]["event_types"] == list(LABELS)
    assert shown["label"]["options"] == [*LABELS, "uncertain"]
    assert shown["temperature"]["device_class"] == "temperature"


def test_the_discovery_messages_of_edgekit_0_2_are_migrated_and_removed(listen, open_sink):
    old = "homeassistant/event/edgekit_test/changed/config"
    listener = listen()
    open_sink()
    wait_until(lambda: len(listener.on(old)) == 2)
    assert [json.loads(body or b"null") for body in listener.on(old)] == [{"migrate_discovery": True}, None]
    topics = [topic for topic, _, _ in listener.messages if topic.endswith("/config")]
    assert topics.index("homeassistant/device/edgekit_test/config") > topics.index(old)
    late = listen()
    late.entities()
    assert old not in {topic for topic, _, _ in late.messages}


def test_home_assistant_gets_the_labels_of_a_model_that_was_taught_meanwhile(listen, open_sink):
    listener = listen()
    open_sink()
    assert listener.entities()["label"]["options"] == [*LABELS, "uncertain"]
    open_sink.run.links.contract = contract(("bolt", "mug"), "image")
    wait_until(lambda: listener.entities()["label"]["options"] == ["bolt", "mug", "uncertain"])


def test_each_zone_has_a_state_and_entities(listen, open_sink, feed):
    zones = [parse_zone("door=0,0,0.5,0,0,1"), parse_zone("bed-2=1,1,0.5,1,1,0")]
    listener = listen()
    open_sink(zones=zones)
    wait_until(lambda: listener.on("edgekit/test/state"))
    (state,) = map(json.loads, listener.on("edgekit/test/state"))
    nobody = {"faces": 0, "label": None, "probability": None}
    assert state["zones"] == {"door": {"faces": 2, "label": "happy", "probability": 0.8}, "bed-2": nobody}
    result = feed.next("happy", "sad")[1]
    moved = replace(result.faces, zones=tuple(zones), zone_indices=np.array([0, 1]))
    open_sink.run.monitor.write(None, replace(result, faces=moved))
    # Nothing has changed but the zones.
    wait_until(lambda: len(listener.on("edgekit/test/state")) == 2)


def zone_entities(messages: Iterable[Message]) -> dict[str, dict]:
    """Return the descriptions of the entities of zones."""
    (document,) = (json.loads(message.payload) for message in messages if "/device/" in message.topic)
    found = {name.removeprefix("edgekit_test_"): entity for name, entity in document["cmps"].items()}
    return {name: entity for name, entity in found.items() if name.startswith("zone_")}


def test_home_assistant_gets_entities_of_each_zone():
    settings = MqttSettings(MqttOptions(mqtt="mqtt://broker", mqtt_topic="edgekit/test"))
    entities = zone_entities(discovery_messages(settings, contract(), zones=["door", "bed-2"]))
    names = ("faces", "label", "present", "changed")
    assert list(entities) == [f"zone_{zone}_{name}" for zone in ("door", "bed-2") for name in names]
    label, changed = entities["zone_bed-2_label"], entities["zone_door_changed"]
    assert (label["name"], label["unique_id"]) == ("Expression bed-2", "edgekit_test_zone_bed-2_label")
    assert "get('bed-2'" in label["value_template"]
    assert (changed["event_types"], "value_json.zone == 'door'" in changed["value_template"]) == (list(LABELS), True)
    of_images = discovery_messages(settings, contract(subject="image"), zones=["door"])
    assert list(zone_entities(of_images)) == ["zone_door_label", "zone_door_changed"]


def test_home_assistant_gets_no_faces_of_whole_images():
    settings = MqttSettings(MqttOptions(mqtt="mqtt://broker", mqtt_topic="edgekit/door"))
    messages = {message.topic: message.payload for message in discovery_messages(settings, contract(subject="image"))}
    entities = json.loads(messages["homeassistant/device/edgekit_door/config"])["cmps"]
    absent = [name.removeprefix("edgekit_door_") for name, entity in entities.items() if set(entity) == {"p"}]
    assert absent == ["faces", "present", "pause", "take_snapshot", "snapshot", "command_snapshot"]
    assert entities["edgekit_door_label"]["name"] == "Label"
    assert entities["edgekit_door_changed"]["name"] == "Label changed"


def test_discovery_can_be_left_out(listen, open_sink):
    # The listener subscribes before the first state, because the next state follows after ten seconds.
    listener = listen()
    open_sink(discovery=False)
    wait_until(lambda: listener.on("edgekit/test/state"))
    assert not any(name.startswith("homeassistant/") for name, _, _ in listener.messages)


def test_a_password_is_accepted_and_a_wrong_one_is_reported_without_it(broker, open_sink, notices, tmp_path):
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    passwords.chmod(0o600)
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("no mosquitto_passwd here: apt install mosquitto")
    subprocess.run([tool, "-b", str(passwords), "door", "right:word"], check=True, capture_output=True)
    broker.lines = [f"listener {broker.port} 127.0.0.1", f"password_file {passwords}", "user root"]
    broker.start()
    wrong = open_sink(credentials="door:wrong-word")
    wait_until(lambda: notices != [])
    assert "connection rejected: Not authorized" in notices[0]
    assert "wrong-word" not in str(notices)
    wrong.__exit__(None, None, None)
    sink = open_sink(credentials="door:right:word")
    sink.post(event(0))
    wait_until(lambda: open_sink.waiting == 0)
    assert len(notices) == 1


@pytest.fixture
def certify(broker, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that gives the broker a self-signed certificate for a host name."""
    if OPENSSL is None:
        pytest.skip("no openssl here: apt install openssl")
    certificate, key = tmp_path / "broker.pem", tmp_path / "broker.key"
    broker.lines += [f"certfile {certificate}", f"keyfile {key}"]

    def certify(name: str = "localhost") -> Path:
        command = [OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"]
        command += ["-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
        return certificate

    return certify


# paho does not close the socket of a failed handshake; the garbage collector closes it.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("name", "is_trusted", "reason"),
    [("elsewhere", True, "Hostname mismatch"), ("localhost", False, "certificate verify failed")],
)
def test_a_certificate_that_is_not_valid_is_reported_and_its_successor_accepted(
    broker, certify, open_sink, notices, tmp_path, name, is_trusted, reason
):
    trusted, other = tmp_path / "trusted.pem", certify().read_bytes()
    wrong = certify(name).read_bytes()
    trusted.write_bytes(wrong if is_trusted else other)
    broker.start()
    sink = open_sink("mqtts://localhost", ca=trusted)
    sink.post(event(0))
    wait_until(lambda: notices != [])
    assert reason in notices[0]
    assert "events are buffered" in notices[0]
    sink.write(None, None)
    broker.kill()
    trusted.write_bytes(certify().read_bytes())
    broker.start()
    wait_until(lambda: open_sink.waiting == 0)
    assert notices[-1] == "MQTT broker reconnected, 1 buffered event"


def test_another_client_with_the_same_id_that_takes_the_connection_is_reported(broker, notices):
    broker.start()
    settings = MqttSettings(MqttOptions(mqtt=f"mqtt://127.0.0.1:{broker.port}", mqtt_topic="edgekit/pi"))
    with ExitStack() as stack:
        # The listener connects again whenever its connection is closed.
        broker.listen(stack, client_id=settings.client_id)
        stack.enter_context(MqttSink(settings, run_of(notices.append), pauses_s=(0.1,)))
        wait_until(lambda: any("same host name" in line for line in notices))


def test_a_second_run_with_the_same_topic_may_try_again_later(open_sink, monkeypatch, tmp_path):
    first = open_sink()
    with pytest.raises(TemporaryError):
        open_sink()
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "other"))
    with pytest.raises(TemporaryError):
        open_sink()
    first.__exit__(None, None, None)
    open_sink()
