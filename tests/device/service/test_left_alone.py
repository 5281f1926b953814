"""A service that nobody looks after: locks, restarts, a disk that fills, an SD card. Each row is an `edgekit run`."""

from __future__ import annotations

import csv
import json
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import pytest

from edgekit.errors import EXIT_OK, EXIT_TEMPORARY
from tests.faults.disks import tmpfs
from tests.waiting import wait_until

SMALL = (64, 48)
ENDLESS = [("pictures", 100_000, SMALL)]
# A label for half a second, then another one.
RED, GREEN = (0, 0, 250), (0, 250, 0)
CHANGING = [("pictures", 25, SMALL, colour) for colour in (RED, GREEN)] * 1000
NOBODY = "mqtt://127.0.0.1:9"
_MB = 10**6


@pytest.fixture
def run_briefly(start, play) -> Callable[..., int]:
    """Return a function that runs edgekit for ten frames of a camera and returns the exit code."""
    server = play(ENDLESS)

    def run(*arguments: object, before: str = "") -> int:
        return start("--source", server.url, "--max-frames", 10, *arguments, before=before).end()

    return run


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "disk", "24m") as folder:
        yield folder


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def frame_count(video: Path) -> int:
    capture, count = cv2.VideoCapture(str(video)), 0
    while capture.read()[0]:
        count += 1
    return count


@pytest.mark.parametrize("option", ["--jsonl", "--csv", "--save", "--collect", "--event-snapshots"])
def test_a_run_whose_output_is_in_use_tries_again_later(start, play, run_briefly, tmp_path, option):
    server = play(ENDLESS)
    output = tmp_path / {"--save": "r.mp4"}.get(option, "r")
    other = start("--source", server.url, option, output)
    other.until(lambda: server.served)
    assert run_briefly(option, output) == EXIT_TEMPORARY
    other.process.send_signal(signal.SIGTERM)
    assert other.end() == EXIT_OK
    assert run_briefly(option, output) == EXIT_OK


@pytest.mark.parametrize("shares_folder", [True, False])
def test_a_run_whose_topic_or_buffer_is_in_use_tries_again_later(
    start, play, run_briefly, broker, tmp_path, monkeypatch, shares_folder
):
    broker.start()
    server = play(ENDLESS)
    options = ("--mqtt", f"mqtt://127.0.0.1:{broker.port}", "--mqtt-topic", "home/door")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "a"))
    other = start("--source", server.url, *options)
    other.until(lambda: server.served)
    wait_until(lambda: list(tmp_path.glob("a/*")))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / ("a" if shares_folder else "b")))
    assert run_briefly(*options) == EXIT_TEMPORARY
    other.process.kill()
    other.end()
    assert run_briefly(*options) == EXIT_OK


@pytest.mark.parametrize("option", ["--jsonl", "--event-snapshots", "--detector"])
def test_a_run_whose_disk_is_not_mounted_tries_again_later(run_briefly, tmp_path, option):
    place, table = tmp_path / "usb", tmp_path / "fstab"
    table.write_text(f"proc /proc proc defaults 0 0\n# comment\nUUID=1 {place} ext4 defaults,nofail 0 2\n")
    before = f"from pathlib import Path; from edgekit import files; files._FSTAB = Path({str(table)!r})"
    file = place / ("r.onnx" if option == "--detector" else "r")
    assert run_briefly(option, file, before=before) == EXIT_TEMPORARY
    assert not place.exists()
    if option != "--detector":
        with tmpfs(place):
            assert run_briefly(option, file, before=before) == EXIT_OK


def test_a_restart_continues_the_records(start, play, run_briefly, tmp_path):
    server = play(ENDLESS)
    jsonl, table = tmp_path / "r.jsonl", tmp_path / "r.csv"
    killed = start("--source", server.url, "--jsonl", jsonl, "--csv", table)
    killed.until(lambda: all(path.exists() and path.read_text().count("\n") >= 20 for path in (jsonl, table)))
    killed.process.kill()
    killed.end()
    before = {path: path.read_text() for path in (jsonl, table)}
    for path in before:
        # What a power cut leaves of a line.
        path.write_text(before[path] + before[path].splitlines()[-1][:20])
    assert run_briefly("--jsonl", jsonl, "--csv", table) == EXIT_OK
    assert all(path.read_text().startswith(text) for path, text in before.items())
    assert len(records(jsonl)) == before[jsonl].count("\n") + 10
    rows = rows_of(table)
    assert len(rows) == before[table].count("\n") - 1 + 10
    assert {row["label"] for row in rows} <= {"red", "green", "blue"}


def test_a_table_with_other_columns_is_kept_under_another_name(run_briefly, tmp_path):
    table, theirs = tmp_path / "r.csv", "sequence,p_happy,p_sad\n1,0.1,0.9\n"
    table.write_text(theirs)
    assert run_briefly("--csv", table) == EXIT_OK
    (older,) = tmp_path.glob("r.*Z.csv")
    assert older.read_text() == theirs
    assert len(rows_of(table)) == 10


@pytest.mark.parametrize("rotation", [(), ("--rotate-files", "1d", "--rotate-keep", "1")])
def test_each_start_begins_a_video_of_its_own(run_briefly, tmp_path, rotation):
    video = tmp_path / "r.mp4"
    for _ in range(3):
        assert run_briefly("--save", video, *rotation) == EXIT_OK
    files = list(tmp_path.iterdir())
    assert len(files) == 3
    assert len(list(tmp_path.glob("r.*Z*.mp4"))) == 2
    assert all(frame_count(file) > 0 for file in files)


def test_the_demo_can_be_made_again(tmp_path):
    """The Makefile removes its former outputs, because a run continues them."""
    root = Path(__file__).parents[3]
    commands = subprocess.run(
        ["make", "--dry-run", "demo", f"OUT={tmp_path}"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    assert commands.index(f"rm -f {tmp_path}/demo") < commands.index("edgekit run --source demo")


def buffered(path: Path, folder: Path) -> int:
    """Return the number of events in a copy of the buffer, which its run has locked; 0 while it is being written."""
    for suffix in ("", "-wal"):
        if path.with_name(path.name + suffix).exists():
            (folder / f"copy.sqlite{suffix}").write_bytes(path.with_name(path.name + suffix).read_bytes())
    try:
        with closing(sqlite3.connect(folder / "copy.sqlite")) as database:
            return int(database.execute("SELECT count(*) FROM waiting").fetchone()[0])
    except sqlite3.Error:
        return 0


def test_a_disk_that_fills_stops_video_then_images_then_records_and_no_event(
    start, play, disk, fill, tmp_path, monkeypatch
):
    monkeypatch.setenv("STATE_DIRECTORY", str(disk))
    jsonl, reserve = disk / "r.jsonl", ("--disk-reserve", "8MB")
    buffer = disk / "mqtt-home_door.sqlite"
    run = start(
        *("--source", play(CHANGING).url, *reserve, "--jsonl", jsonl, "--save", disk / "r.mp4"),
        *("--collect", disk / "crops", "--collect-when", "every:0.1s"),
        *("--mqtt", NOBODY, "--mqtt-topic", "home/door", "--event-hold", 0),
    )
    outputs = (disk / "r.mp4", disk / "crops", jsonl)
    run.until(lambda: all(path.exists() for path in (*outputs, buffer)))
    events_before = 0
    for index, but_bytes in enumerate((6 * _MB, 3 * _MB, _MB)):
        (disk / "ballast").unlink(missing_ok=True)
        fill(disk, but_bytes)
        run.until_printed(f"to '{outputs[index]}' stopped")
        for later in outputs[index + 1 :]:
            assert f"to '{later}' stopped" not in run.stderr_text
        events_before = buffered(buffer, tmp_path)
    run.until(lambda: buffered(buffer, tmp_path) > events_before + 2)
    (disk / "ballast").unlink()
    for path in outputs:
        run.until_printed(f"to '{path}' resumed")
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == EXIT_OK
    counts = json.loads(run.document)["outputs"]
    for name in ("save", "collect"):
        assert set(counts[name]["dropped"]) - {"encoder or disk too slow"} == {"disk reserve"}
    for path in outputs:
        assert run.stderr_text.count(f"to '{path}' stopped") == 1
        assert run.stderr_text.count(f"to '{path}' resumed") == 1
    assert counts["mqtt"]["dropped"] == {}
    # Records wait in memory.
    assert len(records(jsonl)) == counts["jsonl"]["written"] == json.loads(run.document)["frames"]
    assert [frame_count(file) > 0 for file in disk.glob("r*.mp4")] == [True, True]


def test_only_changes_and_one_record_per_second_are_written(start, play, tmp_path):
    jsonl, table = tmp_path / "r.jsonl", tmp_path / "r.csv"
    script = [*CHANGING[:4], ("pictures", 100_000, SMALL, RED)]
    run = start("--source", play(script).url, "--records", "changes", "--jsonl", jsonl, "--csv", table)
    run.until(lambda: jsonl.exists() and len(records(jsonl)) >= 8)
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == EXIT_OK
    written, frames = records(jsonl), json.loads(run.document)["frames"]
    assert frames > 4 * len(written)
    for one, other in pairwise(written):
        changes = one["faces"][0]["label"] != other["faces"][0]["label"]
        assert changes or "health" in other or other["monotonic_s"] - one["monotonic_s"] >= 1
    labels = [record["faces"][0]["label"] for record in written]
    assert [label for label, later in pairwise([*labels, ""]) if label != later] == ["red", "green"] * 2 + ["red"]
    sequences = [int(row["sequence"]) for row in rows_of(table)]
    assert sequences == [record["sequence"] for record in written]


SOON = "from edgekit.device.sinks import disk_reserve; disk_reserve._MEASURED_S = 2.0"


def test_a_run_that_wears_out_a_card_warns_once_with_the_figure(start, play, tmp_path):
    if not _counts_writes(tmp_path):
        pytest.skip("the kernel does not count writes to this file system, such as tmpfs")
    run = start("--source", play(ENDLESS).url, "--jsonl", tmp_path / "r.jsonl", before=SOON)
    run.until_printed(" MB per day")
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == EXIT_OK
    (line,) = (line for line in run.stderr_text.splitlines() if " MB per day" in line)
    assert int(line.partition(" MB per day")[0].split()[-1]) > 200


def test_a_run_that_writes_nothing_does_not_warn(start, play):
    run = start("--source", play(ENDLESS).url, "--max-frames", 150, before=SOON)
    assert run.end() == EXIT_OK
    assert " MB per day" not in run.stderr_text


def _counts_writes(folder: Path) -> bool:
    from edgekit.device.sinks.disk_reserve import _written_bytes

    before = _written_bytes()
    (folder / "trial").write_bytes(bytes(1 << 20))
    return _written_bytes() > before
