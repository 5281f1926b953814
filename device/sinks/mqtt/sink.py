"""Sends events to an MQTT broker, at least once and in order, and the current state; the run never waits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from edgekit.contract import Contract
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.events import Event
from edgekit.device.sinks.monitor import Monitor
from edgekit.device.sinks.mqtt.discovery import NOT_PAUSED, PAUSED, discovery_messages
from edgekit.device.sinks.mqtt.session import Commands, MqttSettings, Session, check_certificates, lock_topic
from edgekit.device.sinks.mqtt.spool import Spool
from edgekit.device.stages import Worker
from edgekit.text import counted

# Largest number of unconfirmed events: enough for a slow network, few to resend after the connection was lost.
_MAX_UNCONFIRMED = 20
_MIN_STATE_PERIOD_S = 1.0
MAX_STATE_PERIOD_S = 10.0
_RECONNECT_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
# After a connection that was lost sooner, the pauses continue to grow. Otherwise two clients with one id would close
# each other's connection every second.
_STABLE_S = 10.0
_FLUSH_TIMEOUT_S = 0.8
_MOST_EVENTS = 10_000


class MqttSink(Sink):
    """Sends every event when it occurs, and state and health regularly.

    A thread sends the events of the buffer and removes those that the broker has confirmed. State and health are not
    buffered, because old values are useless after an outage.
    """

    def __init__(
        self,
        settings: MqttSettings,
        run: RunContext,
        commands: Commands | None = None,
        pauses_s: Sequence[float] = _RECONNECT_PAUSES_S,
    ) -> None:
        """Open the buffer; entering the `with` block connects.

        Args:
            settings: Address, credentials and topics.
            run: The run.
            commands: Executes the commands that arrive; None: none are received.
            pauses_s: Pauses between attempts to connect; the last one repeats.

        Raises:
            InputError: A certificate cannot be loaded.
            TemporaryError: Another run uses the topic or the buffer.
        """
        check_certificates(settings)
        self._settings = settings
        self._run = run
        self._commands = commands
        self._pauses_s = pauses_s
        self._notify = run.notify
        self._snapshot: str | None = None  # name of the image of the latest event
        self._wake = threading.Event()  # set when the thread has something to do
        self._closing = threading.Event()  # set when the run ends
        self._account = run.account("mqtt")
        self._topic_lock = lock_topic(settings)
        try:
            self._spool = Spool(settings.buffer_path, _MOST_EVENTS, self._account, run.notify)
        except BaseException:
            self._topic_lock.close()
            raise
        # Reasons that were reported in the current outage.
        self._reasons: set[str] = set()
        self._thread = Worker(self._connect, "mqtt")
        run.shutdown.add(self._end)

    def __enter__(self) -> Self:
        """Start sending."""
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait up to about one second for the delivery of buffered events; the next run sends the rest.

        Raises the exception of the sink's thread, if there was one.
        """
        self._run.shutdown.begin()
        self._thread.join(self._run.shutdown.left_s)
        self._spool.close()
        # After the buffer is closed: the next run with this topic opens it.
        self._topic_lock.close()
        self._thread.check()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Raise the exception of the sink's thread, if there was one. It reads results from the monitor."""
        del frame, result
        self._thread.check()

    def post(self, event: Event) -> None:
        """Add an event to the buffer."""
        self._snapshot = event.snapshot or self._snapshot
        self._spool.append(f"{self._settings.topic}/event", json.dumps(event.as_document(), allow_nan=False))
        self._wake.set()

    def _end(self) -> None:
        self._closing.set()
        self._wake.set()

    def _connect(self) -> None:
        """Connect, send until the connection is lost, and repeat."""
        attempt = 0
        while not self._closing.is_set():
            connected_s = float("inf")  # not yet
            try:
                with Session(self._settings, self._wake, self._commands) as session:
                    connected_s = time.monotonic()
                    self._report_connected()
                    self._send(session)
            except OSError as error:
                self._report_outage(str(error) or type(error).__name__)
            else:
                if not self._closing.is_set():
                    self._report_loss(time.monotonic() - connected_s)
            # Only a connection that lasted starts the pauses anew; one that is closed at once does not.
            if time.monotonic() - connected_s >= _STABLE_S:
                attempt = 0
            self._closing.wait(self._pauses_s[min(attempt, len(self._pauses_s) - 1)])
            attempt += 1

    def _send(self, session: Session) -> None:
        """Send over a connection until it is lost, or the run ends."""
        topic = self._settings.topic
        announced = self._announce(session, None)  # the contract that the discovery messages describe
        session.publish(f"{topic}/availability", "online", retain=True)
        unconfirmed: dict[int, int] = {}  # numbers of the events that the broker has not confirmed, by message id
        published: dict[str, str] = {}  # for `_publish_changed`
        schedule = _StateSchedule(self._run.monitor, [zone.name for zone in self._run.zones])
        while not session.lost:
            self._wake.clear()  # before the work, so that what arrives meanwhile wakes the wait below
            if self._closing.is_set():
                self._flush(session, unconfirmed)
                break
            self._send_events(session, unconfirmed)
            announced = self._announce(session, announced)
            self._publish_changed(session, published)
            for name, document in schedule.due():
                # Without a confirmation (qos 0), because a newer one follows soon.
                session.publish(f"{topic}/{name}", json.dumps(document, allow_nan=False), qos=0)
            self._wake.wait(_MIN_STATE_PERIOD_S)
        self._confirm(session, unconfirmed)  # what arrived just before the loss is not sent again

    def _send_events(self, session: Session, unconfirmed: dict[int, int]) -> None:
        """Remove confirmed events from the buffer, and send the next ones."""
        self._confirm(session, unconfirmed)
        # All events up to this number were sent over this connection, or are confirmed and removed.
        sent_number = max(unconfirmed.values(), default=0)
        for message in self._spool.after(sent_number, _MAX_UNCONFIRMED - len(unconfirmed)):
            message_id = session.publish(message.topic, message.payload)
            if message_id is None:  # the connection is lost: the event stays in the buffer for the next one
                return
            unconfirmed[message_id] = message.number

    def _flush(self, session: Session, unconfirmed: dict[int, int]) -> None:
        """Send the events that are left, and wait for a limited time until the broker has confirmed them."""
        give_up_s = time.monotonic() + _FLUSH_TIMEOUT_S
        while not session.lost:
            self._wake.clear()
            self._send_events(session, unconfirmed)
            if not unconfirmed or time.monotonic() >= give_up_s:
                # After a proper disconnect the broker does not publish the last will, which is this message.
                session.publish(f"{self._settings.topic}/availability", "offline", retain=True)
                return
            self._wake.wait(0.1)  # seconds, or less: until something is confirmed

    def _announce(self, session: Session, announced: Contract | None) -> Contract:
        """Publish the discovery messages if another model than `announced` is in use; return the contract in use."""
        contract = self._run.contract_in_use
        # Compared by identity: each model that is loaded has a contract object of its own.
        if contract is announced or not self._settings.options.mqtt_discovery:
            return contract
        messages = discovery_messages(
            self._settings,
            contract,
            images=[topic for topic, _ in self._images()],
            commands=() if self._commands is None else self._commands.allowed,
            zones=[zone.name for zone in self._run.zones],
        )
        for message in messages:
            session.publish(message.topic, message.payload, retain=message.retain)
        return contract

    def _images(self) -> list[tuple[str, str | None]]:
        """Return the last part of the topic of each published image, and the name of the image; None: none yet."""
        snapshots = self._run.links.snapshots
        if snapshots is None or not self._run.links.sends_snapshots:
            return []
        images = [("snapshot", self._snapshot)]  # of the latest event
        if self._commands is not None and "snapshot" in self._commands.allowed:
            images.append(("command-snapshot", snapshots.latest))  # of the latest command
        return images

    def _publish_changed(self, session: Session, published: dict[str, str]) -> None:
        """Publish, retained, the pause and the images that have changed.

        `published` has what was published over this connection: "ON", "OFF" or the name of an image, by the last part
        of the topic.
        """
        topic = self._settings.topic
        if self._commands is not None and "pause" in self._commands.allowed:
            paused = PAUSED if self._commands.controls.paused else NOT_PAUSED
            if paused != published.get("paused"):
                published["paused"] = paused
                session.publish(f"{topic}/paused", paused, retain=True)
        snapshots = self._run.links.snapshots
        for name, latest in self._images():
            if snapshots is not None and latest is not None and latest != published.get(name):
                published[name] = latest  # also of an image that is missing: it is requested once only
                jpeg = snapshots.jpeg(latest)
                if jpeg is not None:
                    session.publish(f"{topic}/{name}", jpeg, qos=0, retain=True)

    def _confirm(self, session: Session, unconfirmed: dict[int, int]) -> None:
        """Remove the events that the broker has confirmed, from `unconfirmed` and from the buffer."""
        delivered = []
        while session.confirmed:
            number = unconfirmed.pop(session.confirmed.popleft(), None)
            if number is not None:  # it was an event, not a state or a discovery message
                delivered.append(number)
        if delivered:
            self._spool.remove(delivered)

    def _report_connected(self) -> None:
        """Report the end of an outage, if one was reported."""
        if self._reasons:
            self._reasons.clear()
            buffered = f", {counted(len(self._spool), 'buffered event')}" if len(self._spool) else ""
            dropped = self._account.lost
            lost = f", {counted(dropped, 'event')} dropped so far" if dropped else ""
            self._notify(f"MQTT broker reconnected{buffered}{lost}")

    def _report_loss(self, lasted_s: float) -> None:
        cause = "(if this repeats: another run, or a machine with the same host name, uses this --mqtt-topic)"
        hint = f" after {lasted_s:.0f} s {cause}" if lasted_s < _STABLE_S else ""
        self._report_outage(f"the connection was lost{hint}")

    def _report_outage(self, reason: str) -> None:
        if reason not in self._reasons:
            self._reasons.add(reason)
            self._notify(f"MQTT broker {self._settings.address}: {reason}; events are buffered")


class _StateSchedule:
    """Selects what to send: state when faces or labels change, state and health after ten seconds at the latest."""

    def __init__(self, monitor: Monitor, zones: Sequence[str]) -> None:
        self._monitor = monitor
        self._zones = zones
        self._checked_s = float("-inf")  # when `due` last compared the state
        self._all_sent_s = float("-inf")  # when state and health were last sent together
        # What was sent last, for the comparison in `due`.
        self._sent: list[object] = []

    def due(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the last part of the topic and the document of each message to send now."""
        now_s = time.monotonic()
        if now_s - self._checked_s < _MIN_STATE_PERIOD_S:
            return []
        self._checked_s = now_s
        document = self._monitor.document()
        if document["latest"] is None:  # there is no state before the first result
            return []
        is_current = not self._monitor.is_latest_from_before_pause
        state = state_document(document, self._zones, is_current=is_current)
        # The pause, and number and label of the faces in the frame and in each zone.
        places = [state, *state.get("zones", {}).values()]
        compared = [state["paused"], *[(place["faces"], place["label"]) for place in places]]
        is_late = now_s - self._all_sent_s >= MAX_STATE_PERIOD_S
        if compared == self._sent and not is_late:  # after ten seconds, an unchanged state is sent, too
            return []
        self._sent = compared
        messages = [("state", state)]
        if is_late:
            self._all_sent_s = now_s
            messages.append(("health", (document["health"] or {}) | _losses(document["outputs"])))
        return messages


def state_document(document: dict[str, Any], zones: Sequence[str], *, is_current: bool) -> dict[str, Any]:
    """Return the message of the state of a run.

    Args:
        document: The state, as `Monitor.document`.
        zones: The names of the zones.
        is_current: False while the run is paused, and until its first frame afterwards: then it has no faces, because
            those of the latest frame are not there now.
    """
    latest = document["latest"] or {}
    # A model of whole images has "results" instead of "faces".
    faces = (latest.get("faces") or latest.get("results") or []) if is_current else []
    state = {
        **_seen(faces),
        "labels": [face["label"] for face in faces],
        "paused": document["paused"],
        "fps": document["fps"],
        "age_ms": document["age_ms"],
        "frames": document["frames"],
        "wall_s": latest.get("wall_s"),
        "monotonic_s": latest.get("monotonic_s"),
    }
    if zones:
        state["zones"] = {zone: _seen([face for face in faces if face["zone"] == zone]) for zone in zones}
    return state


def _seen(faces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the number of faces, and label and probability of the largest one."""
    largest: dict[str, Any] = max(faces, key=lambda face: _area(face["xyxy"]), default={})
    return {"faces": len(faces), "label": largest.get("label"), "probability": largest.get("probability")}


def _losses(outputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the number of items that the outputs have lost, and the number for each output and reason."""
    by_reason = {
        f"{output}: {reason}": count
        for output, account in outputs.items()
        for reason, count in account["dropped"].items()
    }
    return {"dropped": sum(by_reason.values()), "dropped_by": by_reason}


def _area(xyxy: Sequence[float]) -> float:
    return (xyxy[2] - xyxy[0]) * (xyxy[3] - xyxy[1])
