"""The buffer of MQTT events: damaged entries, disk errors and deleted files cost no other event and are counted."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from edgekit.device.accounting import Account
from edgekit.device.events import Event, EventRules
from edgekit.device.sinks.events import EventSink
from edgekit.device.sinks.monitor import Monitor
from edgekit.device.sinks.mqtt import MqttSettings, MqttSink
from edgekit.device.sinks.mqtt import journal as journal_module
from edgekit.device.sinks.mqtt import sink as sink_module
from edgekit.device.sinks.mqtt.spool import Spool
from edgekit.errors import InputError, TemporaryError
from tests.waiting import wait_until

TOPIC = "edgekit/test/event"


def payload(sequence: int) -> str:
    return json.dumps(Event(f"run-{sequence}", 1, "sad", "happy", 0.9, 1.0, sequence, 1.0, 1.7e9).as_document())


def sequences(spool: Spool) -> list[int]:
    return [json.loads(message.payload)["sequence"] for message in spool.after(0, 100_000)]


@pytest.fixture
def open_spool(tmp_path: Path, notices: list[str]) -> Iterator[Callable[..., Spool]]:
    """Open the buffer; its file is closed after the test."""
    opened: list[Spool] = []

    def start(path: Path = tmp_path / "buffer", limit: int = 10_000) -> Spool:
        opened.append(Spool(path, limit, Account("mqtt"), notices.append))
        return opened[-1]

    yield start
    for spool in opened:
        spool._journal.close()


@pytest.fixture
def open_sink(broker, tmp_path: Path, notices: list[str]) -> Iterator[Callable[..., MqttSink]]:
    """Start a run's sink; the broker may start later."""
    with ExitStack() as stack:

        def start(buffer: Path = tmp_path / "buffer") -> MqttSink:
            url = f"mqtt://127.0.0.1:{broker.port}"
            settings = MqttSettings.parse(url, None, topic="edgekit/test", buffer=buffer)
            monitor = Monitor("demo", lambda: None)
            return stack.enter_context(MqttSink(settings, ("sad",), monitor, notices.append, pauses_s=(0.1,)))

        yield start


def event(sequence: int) -> Event:
    return Event(f"run-{sequence}", 1, "sad", "happy", 0.9, 1.0, sequence, float(sequence), 1.7e9)


def counts(source: MqttSink | Spool) -> dict:
    account = source._account
    return account.as_document()


def kill(spool: Spool) -> None:
    """Close the file without the end of a run, like a killed process."""
    spool._journal.close()


def write_sqlite(path: Path, number: int) -> None:
    """Write a buffer in the format of edgekit 0.2."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE waiting (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT, payload BLOB)")
        rows = [(TOPIC, payload(sequence).encode()) for sequence in range(number)]
        database.executemany("INSERT INTO waiting (topic, payload) VALUES (?, ?)", rows)


@pytest.mark.parametrize(
    "damage",
    ["UPDATE waiting SET topic = 'edgekit+test/event' WHERE id = 3",
     "UPDATE waiting SET topic = CAST(x'ff' AS TEXT) WHERE id = 3",
     "UPDATE waiting SET payload = NULL WHERE id = 3"],
)  # fmt: skip
def test_rows_of_an_earlier_version_that_cannot_be_sent_are_set_aside(broker, open_sink, notices, tmp_path, damage):
    path = tmp_path / "buffer"
    write_sqlite(path, 5)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(damage)
    before = path.read_bytes()
    broker.start()
    with ExitStack() as stack:
        listener = broker.listen(stack)
        sink = open_sink()
        sink.post(event(5))
        wait_until(lambda: len(listener.sequences()) == 5)
        assert listener.sequences() == [0, 1, 3, 4, 5]
        wait_until(lambda: len(sink._spool) == 0)
        sink.write(None, None)
    assert counts(sink) == {"produced": 6, "written": 5, "dropped": {"damaged": 1}, "waiting": 0}
    copy = tmp_path / "buffer.damaged-1"
    assert notices == [f"MQTT buffer '{path}' is damaged: 4 events could be read, 1 entry could not, kept in '{copy}'"]
    assert copy.read_bytes() == before


def test_the_buffer_of_an_earlier_version_is_continued_under_its_name(tmp_path, monkeypatch, open_spool, notices):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    settings = MqttSettings.parse("mqtt://broker", None, topic="edgekit/door")
    assert settings.buffer_path == tmp_path / "mqtt-edgekit_door.buffer"
    path = tmp_path / "mqtt-edgekit_door.sqlite"
    write_sqlite(path, 3)
    assert settings.buffer_path == path
    spool = open_spool(path)
    assert sequences(spool) == [0, 1, 2]
    spool.close()
    assert sequences(open_spool(path)) == [0, 1, 2]
    assert notices == []


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_loses_only_the_damaged_lines(tmp_path, open_spool, notices, seed):
    path = tmp_path / "buffer"
    spool = open_spool()
    spool.append((TOPIC, payload(sequence)) for sequence in range(63))
    spool.close()
    generator = random.Random(seed)  # noqa: S311 - not for cryptography
    data = bytearray(path.read_bytes())
    lines = bytes(data).splitlines(keepends=True)
    touched = set()
    for _ in range(generator.randrange(1, 6)):
        start = generator.randrange(len(data))
        length = min(generator.choice([1, 1, 7, 500]), len(data) - start)
        new = generator.choice([generator.randbytes(length), bytes(length)])
        touched.update(range(start, start + length))
        data[start : start + length] = new
    path.write_bytes(data)

    spool = open_spool()
    found = sequences(spool)
    ends = [sum(map(len, lines[: place + 1])) for place in range(63)]
    intact = [place for place, end in enumerate(ends) if touched.isdisjoint(range(end - len(lines[place]) - 1, end))]
    assert set(intact) <= set(found)
    assert found == sorted(found)
    assert [message.payload for message in spool.after(0, 100)] == [payload(sequence) for sequence in found]
    document = counts(spool)
    if len(found) < 63:
        assert document["dropped"]["damaged"] > 0
        assert "is damaged" in notices[0]
        assert (tmp_path / "buffer.damaged-1").read_bytes() == bytes(data)
    assert document["produced"] == document["waiting"] + sum(document["dropped"].values())
    spool.append([(TOPIC, payload(63))])
    spool.close()
    lines_before = len(notices)
    assert sequences(open_spool()) == [*found, 63]
    assert len(notices) == lines_before, "the file is new"


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_to_the_file_of_an_earlier_version_stops_nothing(tmp_path, open_spool, seed):
    path = tmp_path / "buffer"
    write_sqlite(path, 63)
    generator = random.Random(seed)  # noqa: S311 - not for cryptography
    data = bytearray(path.read_bytes())
    for _ in range(generator.randrange(1, 20)):
        # The first 16 bytes identify the type of the file.
        data[generator.randrange(16, len(data))] = generator.randrange(256)
    path.write_bytes(data)
    spool = open_spool()
    found = [message.payload for message in spool.after(0, 100)]
    if len(found) < 63:
        assert counts(spool)["dropped"]["damaged"] > 0
        assert (tmp_path / "buffer.damaged-1").read_bytes() == bytes(data)
    spool.append([(TOPIC, payload(99))])
    spool.close()
    assert [message.payload for message in open_spool().after(0, 100)] == [*found, payload(99)]


def test_another_file_given_by_mistake_is_kept(tmp_path, open_spool):
    path = tmp_path / "buffer"
    path.write_bytes(b"this is no buffer\n" * 3 + b"x" * 3_000_000)
    before = path.read_bytes()
    spool = open_spool()
    assert (len(spool), counts(spool)["dropped"]) == (0, {"damaged": 6})
    assert (tmp_path / "buffer.damaged-1").read_bytes() == before


def test_copies_of_damaged_files_are_limited_in_number(tmp_path, open_spool):
    for number in range(12):
        (tmp_path / "buffer").write_text(f"damage {number}\n")
        open_spool().close()
    copies = sorted(path.name for path in tmp_path.glob("buffer.damaged-*"))
    assert copies == [f"buffer.damaged-{number}" for number in range(1, 10)]
    assert (tmp_path / "buffer.damaged-9").read_text() == "damage 11\n"


def test_a_damaged_file_on_a_full_disk_is_continued(small_disk, fill, open_spool, notices):
    path = small_disk / "buffer"
    spool = open_spool(path)
    spool.append((TOPIC, payload(sequence)) for sequence in range(50))
    spool.close()
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    fill(small_disk)
    spool = open_spool(path)
    assert sequences(spool) == list(range(1, 50))
    assert notices == [f"MQTT buffer '{path}' is damaged: 49 events could be read, 1 entry could not"]
    spool.remove([message.number for message in spool.after(0, 100)])
    spool.sync()
    assert path.stat().st_size == 0


# `small_disk` stands first: it is unmounted after `open_sink` has closed the sinks, which would create the file again.
def test_events_confirmed_while_the_disk_is_full_are_not_sent_again(small_disk, broker, open_sink, fill, monkeypatch):
    monkeypatch.setattr(sink_module, "_RETRY_S", 0.05)
    buffer = small_disk / "buffer"
    first = open_sink(buffer)
    for sequence in range(73):
        first.post(event(sequence))
    wait_until(lambda: len(buffer.read_bytes().splitlines()) == 73)
    ballast = fill(small_disk)
    with ExitStack() as stack:
        broker.start()
        wait_until(lambda: len(first._spool) == 0)
        ballast.unlink()
        first.__exit__(None, None, None)
        listener = broker.listen(stack)
        second = open_sink(buffer)
        second.post(event(73))
        wait_until(lambda: 73 in listener.sequences())
        assert listener.sequences() == [73]
        wait_until(lambda: len(second._spool) == 0)
    assert counts(second) == {"produced": 1, "written": 1, "dropped": {}, "waiting": 0}


@pytest.fixture
def full_disk(small_disk: Path, fill) -> Callable[[Path], Path]:
    """Fill the disk and the last page of the buffer; the deletion of the returned file frees space."""

    def make(path: Path) -> Path:
        path.write_bytes(path.read_bytes() + b"\n" * (-path.stat().st_size % 4096))
        return fill(small_disk)

    return make


def test_confirmations_that_a_full_disk_refuses_are_written_later(small_disk, full_disk, open_spool, notices):
    path = small_disk / "buffer"
    spool = open_spool(path)
    spool.append((TOPIC, payload(sequence)) for sequence in range(83))
    spool.sync()
    ballast = full_disk(path)
    spool.remove(range(1, 74))
    spool.sync()
    spool.sync()
    problem = f"MQTT buffer '{path}' cannot be written (No space left on device)"
    assert notices == [f"{problem}: events are buffered in memory"]
    # After a kill at this moment, the next run delivers events a second time, but loses none.
    copy = path.with_name("killed")
    ballast.unlink()
    copy.write_bytes(path.read_bytes())
    assert sequences(open_spool(copy)) == list(range(83))
    spool.append([(TOPIC, payload(83))])
    spool.sync()
    assert notices[1:] == [f"MQTT buffer '{path}' can be written again"]
    kill(spool)
    assert sequences(open_spool(path)) == list(range(73, 84))
    assert counts(spool) == {"produced": 84, "written": 73, "dropped": {}, "waiting": 11}


def test_the_end_of_a_run_on_a_full_disk_counts_lost_and_repeated_events(small_disk, full_disk, open_spool, notices):
    path = small_disk / "buffer"
    spool = open_spool(path)
    spool.append((TOPIC, payload(sequence)) for sequence in range(20))
    spool.sync()
    full_disk(path)
    spool.append((TOPIC, payload(sequence)) for sequence in range(20, 32))
    spool.remove(range(1, 6))
    spool.close()
    assert counts(spool) == {"produced": 32, "written": 5, "dropped": {"buffer not writable": 12}, "waiting": 15}
    problem = f"MQTT buffer '{path}' cannot be written (No space left on device)"
    assert notices == [
        f"{problem}: events are buffered in memory",
        f"{problem}: 12 events lost, 5 delivered before are sent again by the next run",
    ]


def test_a_run_without_a_broker_on_a_full_disk_reports_its_losses_once(
    open_sink, small_disk, fill, notices, monkeypatch
):
    monkeypatch.setattr(sink_module, "_RETRY_S", 0.05)
    fill(small_disk)
    sink = open_sink(small_disk / "buffer")
    for sequence in range(20):
        sink.post(event(sequence))
    wait_until(lambda: sink._spool.outage)
    sink.__exit__(None, None, None)
    document = counts(sink)
    assert document["produced"] == 20 == document["waiting"] + document["dropped"]["buffer not writable"]
    assert sum("lost" in line for line in notices) == 1
    assert len(open_sink(small_disk / "buffer")._spool) == document["waiting"]


@pytest.mark.parametrize("work", ["_connect", "_save"])
def test_a_failure_of_a_thread_at_the_end_ends_the_run(tmp_path, notices, monkeypatch, work):
    def fail(sink: MqttSink) -> None:
        sink._ended.wait() if work == "_save" else sink._closing.wait()
        raise ZeroDivisionError

    monkeypatch.setattr(MqttSink, work, fail)
    settings = MqttSettings.parse("mqtt://127.0.0.1:1", None, topic="edgekit/test", buffer=tmp_path / "buffer")
    with (
        pytest.raises(ZeroDivisionError),
        MqttSink(settings, ("sad",), Monitor("demo", lambda: None), notices.append) as sink,
    ):
        pass
    sink._spool._journal.close()


def test_a_disk_that_stalls_at_the_end_is_not_waited_for(open_sink, notices, monkeypatch):
    stalled = threading.Event()
    write = journal_module.write_all

    def stall(write_some, data: bytes) -> None:
        assert stalled.wait(60)
        write(write_some, data)

    monkeypatch.setattr(journal_module, "write_all", stall)
    monkeypatch.setattr(sink_module, "_SAVE_TIMEOUT_S", 0.5)
    sink = open_sink()
    sink.post(event(0))
    sink.__exit__(None, None, None)
    assert counts(sink) == {"produced": 1, "written": 0, "dropped": {"buffer not writable": 1}, "waiting": 0}
    stalled.set()
    for thread in sink._threads:
        thread.join()
    # The stalled write succeeds later, and the next run sends the event.
    assert counts(sink)["dropped"] == {"buffer not writable": 1}
    assert sum("(the disk stalls): 1 event lost" in line for line in notices) == 1
    assert not any("again by the next run" in line for line in notices[1:] if "stalls" not in line)


@pytest.mark.parametrize("trouble", ["file deleted", "folder deleted", "folder moved"])
def test_a_buffer_that_is_deleted_is_written_again(tmp_path, open_spool, notices, trouble):
    folder = tmp_path / "state"
    path = folder / "buffer"
    spool = open_spool(path)
    spool.append((TOPIC, payload(sequence)) for sequence in range(5))
    spool.sync()
    if trouble == "file deleted":
        path.unlink()
    elif trouble == "folder deleted":
        shutil.rmtree(folder)
    else:
        folder.rename(tmp_path / "moved")
    spool.remove([1])
    spool.append([(TOPIC, payload(5))])
    spool.sync()
    kill(spool)
    assert sequences(open_spool(path)) == [1, 2, 3, 4, 5]
    assert notices == []


def test_a_folder_that_is_missing_at_the_start_and_appears_later_is_used(tmp_path, open_spool, notices):
    path = tmp_path / "disk" / "buffer"
    (tmp_path / "disk").write_text("nothing is mounted here")
    spool = open_spool(path)
    spool.append([(TOPIC, payload(7))])
    spool.sync()
    assert notices == [f"MQTT buffer '{path}' cannot be written (File exists): events are buffered in memory"]
    (tmp_path / "disk").unlink()
    earlier = open_spool(path)
    earlier.append([(TOPIC, payload(1)), (TOPIC, payload(2))])
    earlier.close()
    spool.sync()
    assert sequences(spool) == [7, 1, 2], "the events of the earlier run follow"
    spool.remove([1])
    spool.sync()
    kill(spool)
    assert sequences(open_spool(path)) == [1, 2]
    assert counts(spool) == {"produced": 3, "written": 1, "dropped": {}, "waiting": 2}


def test_events_of_an_earlier_run_are_sent_before_an_event_that_comes_while_they_are_read(
    tmp_path, open_spool, monkeypatch
):
    path = tmp_path / "disk" / "buffer"
    (tmp_path / "disk").write_text("nothing is mounted here")
    spool = open_spool(path)
    spool.append([(TOPIC, payload(7))])
    (tmp_path / "disk").unlink()
    earlier = open_spool(path)
    earlier.append([(TOPIC, payload(1)), (TOPIC, payload(2))])
    earlier.close()
    sent = []

    def send() -> None:
        for message in spool.after(sent[-1].number if sent else 0, 10):
            sent.append(message)

    write = journal_module.write_all

    def write_slowly(write_some, data: bytes) -> None:
        spool.append([(TOPIC, payload(8))])
        send()
        write(write_some, data)

    monkeypatch.setattr(journal_module, "write_all", write_slowly)
    spool.sync()
    monkeypatch.undo()
    send()
    assert [json.loads(message.payload)["sequence"] for message in sent] == [7, 1, 2, 8]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_fails_in_between_no_message_is_lost_or_counted_twice(tmp_path, open_spool, monkeypatch, seed):
    generator = random.Random(seed)  # noqa: S311 - not for cryptography
    monkeypatch.setattr("edgekit.device.sinks.mqtt.spool._MAX_OLD_ENTRIES", 5)
    write = journal_module.write_all
    is_full = False

    def unreliable(write_some, data: bytes) -> None:
        if is_full:
            write(write_some, data[: generator.randrange(len(data))])
            raise OSError(28, "No space left on device")
        write(write_some, data)

    monkeypatch.setattr(journal_module, "write_all", unreliable)
    spool = open_spool(limit=50)
    posted, confirmed = 0, 0
    for _ in range(300):
        action = generator.choice(["post", "post", "confirm", "sync", "fill", "free", "delete", "restart"])
        if action == "post":
            count = generator.randrange(1, 8)
            spool.append((TOPIC, payload(sequence)) for sequence in range(posted, posted + count))
            posted += count
        elif action == "confirm":
            some = spool.after(0, generator.randrange(1, 10))
            spool.remove(message.number for message in some)
            confirmed += len(some)
        elif action == "sync":
            spool.sync()
        elif action in ("fill", "free"):
            is_full = action == "fill"
        elif action == "delete":
            (tmp_path / "buffer").unlink(missing_ok=True)
        else:
            is_full = False
            waiting = sequences(spool)
            document = counts(spool)
            spool.close()
            assert waiting == sorted(waiting)
            assert (
                document["waiting"]
                == len(waiting)
                == document["produced"] - document["written"] - sum(document["dropped"].values())
            )
            spool = open_spool(limit=50)
            assert sequences(spool) == waiting
            assert counts(spool)["produced"] == len(waiting)


def test_a_kill_loses_no_event_that_the_file_has(tmp_path, open_spool, notices):
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom edgekit.device.events import Event\n"
        "from edgekit.device.sinks.monitor import Monitor\n"
        "from edgekit.device.sinks.mqtt import MqttSettings, MqttSink\n"
        "topic = f'edgekit/{os.getpid()}'\n"
        "settings = MqttSettings.parse('mqtt://127.0.0.1:9', None, topic=topic, buffer=Path(sys.argv[1]))\n"
        "with MqttSink(settings, ('a',), Monitor('x', lambda: None), lambda _: None) as sink:\n"
        "    for sequence in range(200):\n"
        "        sink.post(Event(f'run-{sequence}', 1, 'sad', 'happy', 0.9, 1.0, sequence, 1.0, 1.7e9))\n"
        "    while sink._spool._unsaved: time.sleep(0.01)\n"
        "    print('saved', flush=True)\n    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "buffer")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"saved\n"
        child.kill()
    assert sequences(open_spool()) == list(range(200))
    assert notices == []


def test_what_waits_for_longer_than_a_second_is_flushed_to_the_disk(open_sink, monkeypatch):
    monkeypatch.setattr(sink_module, "_FLUSH_S", 0.05)
    flush, sizes = os.fdatasync, []

    def note(handle: int) -> None:
        flush(handle)
        sizes.append(os.fstat(handle).st_size)

    monkeypatch.setattr(os, "fdatasync", note)
    sink = open_sink()
    sink.post(event(0))
    wait_until(lambda: sizes)
    sink.post(event(1))
    wait_until(lambda: len(sizes) > 1)
    wait_until(lambda: not sink._spool.unflushed)
    assert sizes[-1] == sink._settings.buffer_path.stat().st_size > sizes[0] > 0


def test_messages_removed_while_the_file_is_written_do_not_come_back(open_spool, monkeypatch):
    write = journal_module.write_all
    spool = open_spool()
    spool.append((TOPIC, payload(sequence)) for sequence in range(3))
    spool.sync()

    def write_slowly(write_some, data: bytes) -> None:
        spool.remove([2, 4])
        write(write_some, data)

    spool.append([(TOPIC, payload(3))])
    monkeypatch.setattr(journal_module, "write_all", write_slowly)
    spool.sync()
    monkeypatch.undo()
    spool.sync()
    kill(spool)
    assert sequences(open_spool()) == [0, 2]


def test_a_file_that_ends_without_a_line_break_is_continued_on_a_new_line(tmp_path, open_spool, notices):
    path = tmp_path / "buffer"
    spool = open_spool()
    spool.append([(TOPIC, payload(0))])
    spool.close()
    path.write_bytes(path.read_bytes()[:-1])
    spool = open_spool()
    spool.append([(TOPIC, payload(1))])
    spool.close()
    assert sequences(open_spool()) == [0, 1]
    assert notices == []


def test_the_file_stays_small_over_many_events(tmp_path, open_spool, monkeypatch):
    monkeypatch.setattr("edgekit.device.sinks.mqtt.spool._MAX_OLD_ENTRIES", 20)
    spool = open_spool(limit=10)
    for sequence in range(500):
        spool.append([(TOPIC, payload(sequence))])
        spool.sync()
    assert len((tmp_path / "buffer").read_bytes().splitlines()) <= 2 * 10 + 20 + 2
    spool.remove([message.number for message in spool.after(0, 10)])
    spool.sync()
    assert (tmp_path / "buffer").stat().st_size == 0


def test_a_full_buffer_drops_the_oldest_counts_them_and_reports_it_once(open_spool, notices):
    spool = open_spool(limit=10)
    for sequence in range(25):
        spool.append([(TOPIC, payload(sequence))])
    assert sequences(spool) == list(range(15, 25))
    assert counts(spool) == {"produced": 25, "written": 0, "dropped": {"buffer full": 15}, "waiting": 10}
    # The confirmation of a dropped event changes no count.
    spool.remove([1])
    assert counts(spool)["written"] == 0
    assert notices == ["the MQTT buffer is full (10 events): the oldest are dropped"]


def test_a_buffer_belongs_to_one_run(open_spool, notices):
    spool = open_spool()
    with pytest.raises(TemporaryError, match="in use by another run"):
        open_spool()
    spool.append([(TOPIC, payload(0))] * 5)
    spool.sync()
    # Also after the file was replaced.
    spool._journal.rewrite(spool.after(0, 5))
    with pytest.raises(TemporaryError, match="in use by another run"):
        open_spool()
    spool.close()
    assert len(open_spool()) == 5
    assert notices == []


def test_a_topic_belongs_to_one_run(open_sink, tmp_path):
    # Two services have different state folders; a broker closes the connection of one for that of the other.
    first = open_sink()
    with pytest.raises(TemporaryError, match="topic 'edgekit/test' is in use by another run"):
        open_sink(tmp_path / "other")
    first.__exit__()
    open_sink(tmp_path / "other")


def test_a_device_is_not_a_buffer(open_spool):
    with pytest.raises(InputError, match="'/dev/null' is not a file"):
        open_spool(Path("/dev/null"))


def test_a_clock_that_jumps_changes_neither_events_nor_their_order(broker, open_sink, feed, monkeypatch):
    """The clock of a board without a battery starts in the past and jumps in either direction when it is set."""
    wall_s = iter([1.7e9, 1.7e9, 0.0, 0.1, 1.8e9, 1.8e9, 1.6e9, 1.6e9])
    monkeypatch.setattr("time.time", lambda: next(wall_s))
    broker.start()
    with ExitStack() as stack:
        listener = broker.listen(stack)
        sink = open_sink()
        events = EventSink(EventRules(hold_s=0.5), [sink])
        for place in range(8):
            events.write(*feed.next(("happy", "sad")[place // 2 % 2], at_s=1000.0 + place * 0.9))
        wait_until(lambda: len(listener.sequences()) == 4)
        assert listener.sequences() == [2, 4, 6, 8]
        assert [document["wall_s"] for document in listener.events()] == [1.7e9, 0.1, 1.8e9, 1.6e9]
        assert [document["held_s"] for document in listener.events()] == [0.9] * 4
