"""Events and state to an MQTT broker: at least once, in order, and without the pipeline ever waiting."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from edgekit.device.detections import FrameResult
from edgekit.device.events import Event
from edgekit.device.frame import Frame
from edgekit.device.sinks.monitor import Monitor
from edgekit.device.sinks.mqtt.discovery import discovery_messages
from edgekit.device.sinks.mqtt.session import Session, check_certificates
from edgekit.device.sinks.mqtt.settings import MqttSettings
from edgekit.device.sinks.mqtt.spool import Spool
from edgekit.device.sinks.worker import Worker

# Confirmations outstanding at a time: enough for a slow network, few enough to be sent again.
_WINDOW = 20
_STATE_S = 1.0
_STATE_AT_LEAST_S = 10.0
_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
_INBOX_EVENTS = 10_000
_FLUSH_S = 0.8
_LEAVE_S = 1.2


class MqttSink:
    """Sends every event once it happens, and state and health now and then.

    Two threads work for it: one puts events on the disk, one talks to the broker and takes what has arrived off the
    disk. State is not kept: when the broker is away, old state is worth nothing.
    """

    def __init__(
        self,
        settings: MqttSettings,
        labels: Sequence[str],
        monitor: Monitor,
        notify: Callable[[str], None],
        pauses_s: Sequence[float] = _PAUSES_S,
    ) -> None:
        """Open the buffer; nothing is connected before the `with` block.

        Args:
            settings: The broker.
            labels: The model's, for Home Assistant.
            monitor: Where state and health come from.
            notify: Called with one line where the user should know something.
            pauses_s: Waits between attempts to connect; the last one repeats.

        Raises:
            InputError: Another run uses the buffer, or a certificate cannot be used.
        """
        check_certificates(settings)
        self._settings = settings
        self._labels = labels
        self._monitor = monitor
        self._notify = notify
        self._pauses_s = pauses_s
        self._wake = threading.Event()
        self._leaving = threading.Event()
        self._inbox: queue.Queue[tuple[str, bytes] | None] = queue.Queue(_INBOX_EVENTS)
        self._spool = Spool(settings.buffer_path, settings.buffer_events, notify)
        self._in_trouble = False
        self._threads = (Worker(self._keep, "mqtt buffer"), Worker(self._talk, "mqtt"))
        self.lost = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Give what waits a moment to arrive, and leave; the rest is sent by the next run."""
        keeper, talker = self._threads
        end_s = time.monotonic() + _LEAVE_S
        try:
            self._inbox.put(None, timeout=_FLUSH_S)
        except queue.Full:
            return
        keeper.join(max(0.0, end_s - time.monotonic()))
        self._leaving.set()
        self._wake.set()
        talker.join(max(0.0, end_s - time.monotonic()))
        if not keeper.is_alive() and not talker.is_alive():
            self._spool.close()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Do nothing but tell of a defect: results come by way of the monitor, images are never sent."""
        del frame, result
        for thread in self._threads:
            thread.check()

    def post(self, event: Event) -> None:
        """Take an event."""
        payload = json.dumps(event.as_document(), allow_nan=False).encode()
        try:
            self._inbox.put_nowait((f"{self._settings.topic}/event", payload))
        except queue.Full:
            self.lost += 1

    def _keep(self) -> None:
        """Put events on the disk, as many at a time as there are."""
        leaving = False
        while not leaving:
            batch = [self._inbox.get()]
            while not self._inbox.empty():
                batch.append(self._inbox.get())
            leaving = None in batch
            self._spool.append([message for message in batch if message is not None])
            self._wake.set()

    def _talk(self) -> None:
        """Connect, serve until the connection is lost, and again."""
        attempt = 0
        while not self._leaving.is_set():
            try:
                with Session(self._settings, self._wake) as session:
                    attempt = 0
                    self._tell_connected()
                    self._serve(session)
            except OSError as error:
                self._tell_trouble(str(error) or type(error).__name__)
            else:
                if not self._leaving.is_set():
                    self._tell_trouble("the connection is lost")
            self._leaving.wait(self._pauses_s[min(attempt, len(self._pauses_s) - 1)])
            attempt += 1

    def _serve(self, session: Session) -> None:
        topic = self._settings.topic
        if self._settings.discovery:
            for discovery_topic, payload in discovery_messages(self._settings, self._labels):
                session.publish(discovery_topic, payload, retain=True)
        session.publish(f"{topic}/availability", "online", retain=True)
        unconfirmed: dict[int, int] = {}
        sent_id = 0
        state = _State(self._monitor)
        leave_at_s = float("inf")
        while not session.lost:
            self._wake.clear()
            self._confirm(session, unconfirmed)
            for waiting in self._spool.after(sent_id, _WINDOW - len(unconfirmed)):
                number = session.publish(waiting.topic, waiting.payload)
                if number is None:
                    return
                unconfirmed[number] = waiting.row_id
                sent_id = waiting.row_id
            if self._leaving.is_set():
                leave_at_s = min(leave_at_s, time.monotonic() + _FLUSH_S)
                if not unconfirmed or time.monotonic() >= leave_at_s:
                    session.publish(f"{topic}/availability", "offline", retain=True)
                    return
                self._wake.wait(0.1)
                continue
            for name, document in state.due():
                session.publish(f"{topic}/{name}", json.dumps(document, allow_nan=False), qos=0)
            self._wake.wait(_STATE_S)

    def _confirm(self, session: Session, unconfirmed: dict[int, int]) -> None:
        arrived = []
        while session.confirmed:
            row_id = unconfirmed.pop(session.confirmed.popleft(), None)
            if row_id is not None:
                arrived.append(row_id)
        if arrived:
            self._spool.remove(arrived)

    def _tell_connected(self) -> None:
        if self._in_trouble:
            self._in_trouble = False
            waiting = f", {len(self._spool)} events waited" if len(self._spool) else ""
            dropped = self._spool.dropped + self.lost
            self._notify(f"MQTT broker is back{waiting}{f', {dropped} were dropped' if dropped else ''}")

    def _tell_trouble(self, reason: str) -> None:
        if not self._in_trouble:
            self._in_trouble = True
            self._notify(f"MQTT broker {self._settings.host}:{self._settings.port}: {reason}; events wait for it")


class _State:
    """Decides what is news: a change of faces at once, everything else now and then."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._looked_s = float("-inf")
        self._told_s = float("-inf")
        self._told: tuple[object, ...] = ()

    def due(self) -> list[tuple[str, dict[str, Any]]]:
        """Return (topic's last part, document) of what is to be sent now."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _STATE_S:
            return []
        self._looked_s = now_s
        document = self._monitor.document()
        state = _state_document(document)
        key = (state["faces"], state["label"])
        old = now_s - self._told_s >= _STATE_AT_LEAST_S
        if document["latest"] is None or (key == self._told and not old):
            return []
        self._told = key
        if not old:
            return [("state", state)]
        self._told_s = now_s
        return [("state", state), ("health", document["health"] or {})]


def _state_document(document: dict[str, Any]) -> dict[str, Any]:
    faces = (document["latest"] or {}).get("faces", [])
    largest = max(faces, key=lambda face: _area(face["xyxy"]), default=None)
    return {
        "faces": len(faces),
        "label": None if largest is None else largest["label"],
        "probability": None if largest is None else largest["probability"],
        "labels": [face["label"] for face in faces],
        "fps": document["fps"],
        "age_ms": document["age_ms"],
        "frames": document["frames"],
        "wall_s": None if document["latest"] is None else document["latest"]["wall_s"],
        "monotonic_s": None if document["latest"] is None else document["latest"]["monotonic_s"],
    }


def _area(xyxy: Sequence[float]) -> float:
    return (xyxy[2] - xyxy[0]) * (xyxy[3] - xyxy[1])
