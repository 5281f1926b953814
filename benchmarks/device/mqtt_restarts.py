"""Stress test of MQTT events: the broker is restarted again and again while every frame makes an event.

    python benchmarks/device/mqtt_restarts.py --frames 20000 --restart-s 4 -o restarts.json

Starts its own mosquitto, which keeps sessions over a restart (SIGTERM), and a subscriber with a persistent session.
Each frame makes one event of the real sink. At the end the account of the sink is compared with what the subscriber
received: every event must be there, in order of first arrival. The number of second deliveries is printed. The exit
code is 3 if an event is missing, out of order or not counted.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import paho.mqtt.client as paho

from edgekit.boards import read_board
from edgekit.device.controls import Controls
from edgekit.device.events import Event
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.monitor import Monitor
from edgekit.device.sinks.mqtt.session import MqttSettings
from edgekit.device.sinks.mqtt.sink import MqttSink
from edgekit.device.sinks.output_options import OutputOptions
from edgekit.errors import EXIT_GATE, InputError
from edgekit.files import write_atomic

TOPIC = "edgekit/stress"
_DELIVERY_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Verdict:
    """Result of a run; `failed` names the requirements that are not met."""

    frames: int
    seconds: float
    restarts: int
    reported_outages: int
    account: dict[str, Any]
    received: int
    received_twice: int
    missing: int
    failed: tuple[str, ...]


class Broker:
    """A mosquitto on a free port of this machine that keeps its sessions in `folder`."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            raise InputError("there is no mosquitto on this machine: apt install mosquitto")
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port: int = server.getsockname()[1]
        settings = folder / "broker.conf"
        settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\n"
            f"persistence_location {folder}/\nmax_queued_messages 0\n"
        )
        self._command = [program, "-c", str(settings)]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def restart(self, pause_s: float) -> None:
        """Stop the broker, which saves its state, and start it again after a pause."""
        self.stop()
        time.sleep(pause_s)
        self._process = self._start()

    def stop(self) -> None:
        """Stop the broker."""
        self._process.terminate()
        self._process.wait()


@contextmanager
def subscribed(port: int) -> Iterator[list[str]]:
    """Yield a list to which the id of each event that arrives is appended."""
    received: list[str] = []
    ready = threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "recorder", clean_session=False)
    client.reconnect_delay_set(0.1, 0.2)  # type: ignore[no-untyped-call]
    client.on_connect = lambda client, *_: client.subscribe(f"{TOPIC}/event", qos=1)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _, __, message: received.append(json.loads(message.payload)["event_id"])
    wait_until(lambda: _is_connected(client, port), "the broker does not start")
    client.loop_start()
    ready.wait(_DELIVERY_TIMEOUT_S)
    try:
        yield received
    finally:
        client.disconnect()
        client.loop_stop()


def stress(frames: int, rate_hz: float, restart_s: float, folder: Path) -> Verdict:
    """Post one event per frame while the broker is restarted; return the verdict."""
    broker = Broker(folder)
    notices: list[str] = []
    restarts = 0
    os.environ["STATE_DIRECTORY"] = str(folder)
    settings = MqttSettings.parse(f"mqtt://127.0.0.1:{broker.port}", None, topic=TOPIC, discovery=False)
    unused: Any = None
    run = RunContext(
        rules=OutputOptions(),
        notify=notices.append,
        source=unused,
        contract=unused,
        controls=Controls(),
        monitor=Monitor("stress", lambda: None),
    )
    try:
        with subscribed(broker.port) as received:
            started_s = time.monotonic()
            restarted_s = started_s
            with MqttSink(settings, run, pauses_s=(0.1, 0.2)) as sink:
                for sequence in range(frames):
                    now_s = time.monotonic()
                    sink.post(Event(f"{sequence}", 1, "a", None, 0.9, 1.0, sequence, now_s, time.time()))
                    if now_s - restarted_s >= restart_s:
                        restarts += 1
                        threading.Thread(target=broker.restart, args=(restart_s / 4,)).start()
                        restarted_s = now_s
                    time.sleep(max(0.0, started_s + sequence / rate_hz - time.monotonic()))
                (account,) = run.accounts
                wait_until(lambda: account.waiting == 0, "the events do not arrive")
            seconds = time.monotonic() - started_s
            wait_until(lambda: len(set(received)) >= account.as_document()["written"], "the subscriber misses events")
    finally:
        broker.stop()
    return _judge(frames, seconds, restarts, notices, account.as_document(), received)


def _judge(
    frames: int, seconds: float, restarts: int, notices: list[str], account: dict[str, Any], received: list[str]
) -> Verdict:
    first_arrivals = list(dict.fromkeys(received))
    missing = frames - len(first_arrivals)
    failed = {
        f"{missing} events are missing": missing != 0,
        "events arrived out of order": first_arrivals != sorted(first_arrivals, key=int),
        f"the account {account} is not {frames} written": (account["produced"], account["written"]) != (frames, frames),
    }
    return Verdict(
        frames=frames,
        seconds=round(seconds, 1),
        restarts=restarts,
        reported_outages=sum("events are buffered" in notice for notice in notices),
        account=account,
        received=len(received),
        received_twice=sum(count - 1 for count in Counter(received).values()),
        missing=missing,
        failed=tuple(text for text, holds in failed.items() if holds),
    )


def _is_connected(client: paho.Client, port: int) -> bool:
    try:
        client.connect("127.0.0.1", port)
    except OSError:
        return False
    return True


def wait_until(holds: Callable[[], bool], problem: str) -> None:
    """Wait until `holds()`; print the problem if it takes too long, which the verdict then shows."""
    end_s = time.monotonic() + _DELIVERY_TIMEOUT_S
    while not holds():
        if time.monotonic() > end_s:
            print(problem, file=sys.stderr)
            return
        time.sleep(0.05)


@click.command()
@click.option("--frames", default=20_000, show_default=True, type=click.IntRange(1), help="Frames, each with an event.")
@click.option("--rate", "rate_hz", default=250.0, show_default=True, help="Frames per second.")
@click.option("--restart-s", default=4.0, show_default=True, help="Seconds between restarts of the broker.")
@click.option("-o", "report", type=click.Path(path_type=Path), help="Write the verdict to this file.")
def main(frames: int, rate_hz: float, restart_s: float, report: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="edgekit-mqtt-") as folder:
        verdict = stress(frames, rate_hz, restart_s, Path(folder))
    document = json.dumps({"board": asdict(read_board()), "verdict": asdict(verdict)}, indent=2)
    if report is not None:
        write_atomic(report, document + "\n")
    print(json.dumps(asdict(verdict), indent=2))
    if verdict.failed:
        sys.exit(EXIT_GATE)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"mqtt_restarts: {error}")
