"""Commands over a real broker: executed and ignored commands, and the entities of Home Assistant."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgekit.device.controls import Controls
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.mqtt import MqttOptions
from edgekit.device.sinks.mqtt.session import Commands, MqttSettings
from edgekit.device.sinks.mqtt.sink import MqttSink
from edgekit.device.sinks.snapshots import SnapshotWriter
from tests.runs import run_of
from tests.waiting import wait_until

TOPIC = "edgekit/test"


@pytest.fixture
def run(notices: list[str]) -> RunContext:
    return run_of(notices.append)


@pytest.fixture
def controls(run: RunContext) -> Controls:
    return run.controls


@pytest.fixture
def snapshots(tmp_path: Path, run: RunContext) -> Iterator[SnapshotWriter]:
    with SnapshotWriter(tmp_path / "snapshots", run) as sink:
        yield sink


@pytest.fixture
def open_sink(broker, tmp_path, feed, run, snapshots, monkeypatch) -> Iterator[Callable[..., MqttSink]]:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    with ExitStack() as stack:

        def start(*allowed: str, sends: bool = False) -> MqttSink:
            settings = MqttSettings(MqttOptions(mqtt=f"mqtt://127.0.0.1:{broker.port}", mqtt_topic=TOPIC))
            run.monitor.write(None, feed.next("happy")[1])
            run.links.snapshots, run.links.sends_snapshots = snapshots, sends
            commands = Commands(allowed, run) if allowed else None
            return stack.enter_context(MqttSink(settings, run, commands, pauses_s=(0.1,)))

        yield start


@pytest.fixture
def send(broker) -> Callable[..., None]:
    """Publish a payload to the run's command topic."""
    return lambda payload, retain=False: broker.publish(f"{TOPIC}/command", payload, retain)


def configs(listener) -> dict[str, dict | None]:
    """Return the discovery documents by component and object id; None for a removed entity."""
    found = [(topic.split("/"), body) for topic, body, _ in list(listener.messages) if topic.endswith("/config")]
    return {f"{parts[1]}/{parts[3]}": json.loads(body) if body else None for parts, body in found}


def test_pause_and_resume_are_executed_and_their_state_is_retained(listen, open_sink, send, controls, notices):
    live = listen()
    open_sink("pause")
    wait_until(lambda: live.on(f"{TOPIC}/paused") == [b"OFF"])
    send(b"pause")
    wait_until(lambda: live.on(f"{TOPIC}/paused") == [b"OFF", b"ON"])
    assert controls.paused
    late = listen()
    wait_until(lambda: (f"{TOPIC}/paused", b"ON", True) in late.messages)
    wait_until(lambda: json.loads(live.on(f"{TOPIC}/state")[-1])["paused"])
    state = json.loads(live.on(f"{TOPIC}/state")[-1])
    assert (state["faces"], state["label"]) == (0, None)
    send(b"resume")
    wait_until(lambda: live.on(f"{TOPIC}/paused")[-1] == b"OFF")
    wait_until(lambda: json.loads(live.on(f"{TOPIC}/state")[-1])["faces"] == 1)
    assert controls.commands == {"pause": 1, "resume": 1}
    assert notices == []


def test_a_retained_command_is_ignored_by_the_next_run(broker, open_sink, send, controls, notices):
    broker.start()
    send(b"pause", retain=True)
    open_sink("pause")
    wait_until(lambda: controls.commands["ignored"] == 1)
    assert not controls.paused
    assert len(notices) == 1


def test_what_is_no_allowed_command_is_counted_and_reported_once(listen, open_sink, send, controls, notices):
    payloads = (b"\xff\x1b[2J\n", b"PAUSE", b"", b"snapshot", b'{"command": "pause"}', b"pause" * 100_000)
    live = listen()
    open_sink("pause")
    wait_until(lambda: live.on(f"{TOPIC}/paused"))
    for payload in payloads:
        send(payload)
    send(b"pause")
    wait_until(lambda: controls.paused)
    assert controls.commands == {"ignored": len(payloads), "pause": 1}
    (line,) = notices
    assert line.isprintable()


def test_without_allowed_commands_nothing_is_subscribed_or_announced(listen, open_sink, send, controls):
    live = listen()
    open_sink()
    wait_until(lambda: live.on(f"{TOPIC}/state"))
    send(b"pause")
    wait_until(lambda: live.on(f"{TOPIC}/command"))
    entities = live.entities()
    assert [entities[name] for name in ("pause", "take_snapshot", "command_snapshot")] == [{}] * 3
    assert "availability" not in entities["faces"]
    assert not live.on(f"{TOPIC}/paused")
    assert controls.commands == {}


def test_home_assistant_gets_a_switch_a_button_and_what_is_unavailable_in_a_pause(listen, open_sink):
    live = listen()
    open_sink("pause", "snapshot", sends=True)
    wait_until(lambda: live.on(f"{TOPIC}/availability"))
    entities = live.entities()
    switch, button = entities["pause"], entities["take_snapshot"]
    assert switch["command_topic"] == f"{TOPIC}/command"
    assert (switch["payload_on"], switch["payload_off"]) == ("pause", "resume")
    assert (switch["state_topic"], switch["state_on"], switch["state_off"]) == (f"{TOPIC}/paused", "ON", "OFF")
    # A run ignores retained commands, and a paused run must accept "resume".
    assert (switch["retain"], "availability" in switch) == (False, False)
    assert (button["command_topic"], button["payload_press"]) == (f"{TOPIC}/command", "snapshot")
    for name in ("take_snapshot", "faces", "label", "present", "fps"):
        assert entities[name]["availability_mode"] == "all"
        topics = [entry["topic"] for entry in entities[name]["availability"]]
        assert topics == [f"{TOPIC}/availability", f"{TOPIC}/paused"]
    assert "availability" not in entities["temperature"]
    assert entities["command_snapshot"]["image_topic"] == f"{TOPIC}/command-snapshot"


@pytest.mark.parametrize("sends", [False, True])
def test_a_snapshot_is_taken_after_the_command_and_published_only_by_option(
    listen, open_sink, send, snapshots, feed, controls, tmp_path, sends
):
    live = listen()
    open_sink("snapshot", sends=sends)
    wait_until(lambda: live.on(f"{TOPIC}/availability"))
    snapshots.write(*feed.next("happy"))
    send(b"snapshot")
    wait_until(lambda: controls.commands["snapshot"] == 1)
    wait_until(lambda: snapshots.write(*feed.next("happy")) or [*tmp_path.glob("snapshots/[!.]*.jpg")])
    (path,) = tmp_path.glob("snapshots/[!.]*.jpg")
    if sends:
        wait_until(lambda: live.on(f"{TOPIC}/command-snapshot") == [path.read_bytes()])
        late = listen()
        wait_until(lambda: any(name == f"{TOPIC}/command-snapshot" and kept for name, _, kept in late.messages))
    send(b"nothing")
    wait_until(lambda: controls.commands["ignored"] == 1)
    assert len(live.on(f"{TOPIC}/command-snapshot")) == sends
