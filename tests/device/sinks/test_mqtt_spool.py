"""The buffer of MQTT: restarts, the file of edgekit 0.2, kills, full disks, and damaged files."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from edgekit.device.sinks.context import Account
from edgekit.device.sinks.mqtt import MqttOptions
from edgekit.device.sinks.mqtt.session import MqttSettings
from edgekit.device.sinks.mqtt.spool import Spool
from tests.device.mqtt_buffer import waiting_events
from tests.waiting import wait_until

Open = Callable[..., Spool]


@pytest.fixture
def open_spool(notices: list[str]) -> Iterator[Open]:
    with ExitStack() as stack:

        def start(path: Path, limit: int = 100, account: Account | None = None) -> Spool:
            spool = Spool(path, limit, account or Account("mqtt"), notices.append)
            stack.callback(spool.close)
            return spool

        yield start


def sequences(spool: Spool) -> list[int]:
    return [json.loads(message.payload)["sequence"] for message in spool.after(0, 10**6)]


def append(spool: Spool, *numbers: int) -> None:
    for number in numbers:
        spool.append("edgekit/door/event", json.dumps({"sequence": number}))


def test_events_survive_a_restart_in_their_order(tmp_path, open_spool, notices):
    spool = open_spool(tmp_path / "b.sqlite")
    append(spool, *range(5))
    spool.remove([message.number for message in spool.after(0, 2)])
    spool.close()
    account = Account("mqtt")
    second = open_spool(tmp_path / "b.sqlite", account=account)
    append(second, 5)
    assert sequences(second) == [2, 3, 4, 5]
    assert account.as_document() == {"produced": 4, "written": 0, "dropped": {}, "waiting": 4}
    assert notices == []


def test_the_buffer_of_an_earlier_version_is_continued_under_its_name(tmp_path, monkeypatch, open_spool):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    path = tmp_path / "mqtt-edgekit_door.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE waiting (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT, payload BLOB)")
        events = [("edgekit/door/event", json.dumps({"sequence": number}).encode()) for number in range(3)]
        database.executemany("INSERT INTO waiting (topic, payload) VALUES (?, ?)", events)
    settings = MqttSettings(MqttOptions(mqtt="mqtt://broker", mqtt_topic="edgekit/door"))
    assert settings.buffer_path == path
    spool = open_spool(settings.buffer_path)
    assert sequences(spool) == [0, 1, 2]
    assert [message.topic for message in spool.after(0, 9)] == ["edgekit/door/event"] * 3
    spool.remove([message.number for message in spool.after(0, 9)])
    spool.close()
    assert sequences(open_spool(path)) == []


def test_a_full_buffer_drops_the_oldest_events_and_reports_it_once(tmp_path, open_spool, notices):
    account = Account("mqtt")
    spool = open_spool(tmp_path / "b.sqlite", limit=10, account=account)
    append(spool, *range(25))
    assert sequences(spool) == list(range(15, 25))
    assert account.as_document() == {"produced": 25, "written": 0, "dropped": {"buffer full": 15}, "waiting": 10}
    spool.close()
    assert sequences(open_spool(tmp_path / "b.sqlite")) == list(range(15, 25))
    assert len(notices) == 1


_KILLED = """
import sys, time
from pathlib import Path
from edgekit.device.sinks.context import Account
from edgekit.device.sinks.mqtt.spool import Spool
spool = Spool(Path(sys.argv[1]), 1000, Account("mqtt"), print)
for number in range(50):
    spool.append("edgekit/door/event", '{"sequence": %d}' % number)
time.sleep(600)
"""


def test_a_killed_run_loses_no_event_that_was_written(tmp_path, open_spool, notices):
    path = tmp_path / "b.sqlite"
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(path)]) as run:
        wait_until(lambda: waiting_events(path, tmp_path) == 50)
        run.send_signal(signal.SIGKILL)
    assert sequences(open_spool(path)) == list(range(50))
    assert notices == []


def test_a_file_that_is_damaged_is_kept_beside_a_new_one(tmp_path, open_spool, notices):
    path = tmp_path / "b.sqlite"
    path.write_bytes(b"rubbish " * 1000)
    spool = open_spool(path)
    append(spool, 1)
    spool.close()
    assert sequences(open_spool(path)) == [1]
    assert (tmp_path / "b.sqlite.damaged").read_bytes() == b"rubbish " * 1000
    assert len(notices) == 1
