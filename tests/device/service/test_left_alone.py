"""A service that nobody looks after: a missing disk, a disk that fills, an SD card. Each row is an `edgekit run`."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import EXIT_OK, EXIT_TEMPORARY
from tests.device.mqtt_buffer import waiting_events
from tests.device.videos import video_frames
from tests.faults.disks import tmpfs

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


@pytest.mark.parametrize("option", ["--jsonl", "--detector"])
def test_a_run_whose_disk_is_not_mounted_tries_again_later(run_briefly, tmp_path, option):
    place, table = tmp_path / "usb", tmp_path / "fstab"
    table.write_text(f"proc /proc proc defaults 0 0\n# comment\nUUID=1 {place} ext4 defaults,nofail 0 2\n")
    before = f"from pathlib import Path; from edgekit import files; files.FSTAB = Path({str(table)!r})"
    file = place / ("r.onnx" if option == "--detector" else "r")
    assert run_briefly(option, file, before=before) == EXIT_TEMPORARY
    assert not place.exists()
    if option != "--detector":
        with tmpfs(place):
            assert run_briefly(option, file, before=before) == EXIT_OK


@pytest.mark.slow
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
        run.until_printed(f"to '{outputs[index]}' fails")
        for later in outputs[index + 1 :]:
            assert f"to '{later}' fails" not in run.stderr_text
        events_before = waiting_events(buffer, tmp_path)
    run.until(lambda: waiting_events(buffer, tmp_path) > events_before + 2)
    (disk / "ballast").unlink()
    for path in outputs:
        run.until_printed(f"to '{path}' resumed")
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == EXIT_OK
    counts = json.loads(run.document)["outputs"]
    assert set(counts["save"]["dropped"]) - {"encoder or disk too slow"} == {"disk reserve"}
    assert set(counts["collect"]["dropped"]) <= {"disk reserve"}, "some crops wait in memory, too"
    for path in outputs:
        assert run.stderr_text.count(f"to '{path}' fails") == 1
        assert run.stderr_text.count(f"to '{path}' resumed") == 1
    assert counts["mqtt"]["dropped"] == {}
    # Records wait in memory.
    assert len(records(jsonl)) == counts["jsonl"]["written"] == json.loads(run.document)["frames"]
    assert [len(video_frames(file)) > 0 for file in disk.glob("r*.mp4")] == [True, True]


SOON = "from edgekit.device.sinks import disk_reserve; disk_reserve.MEASURED_S = 2.0"


def test_a_run_that_wears_out_a_card_warns_once_with_the_figure(start, play, tmp_path):
    before = Path("/proc/self/io").read_text()
    (tmp_path / "trial").write_bytes(bytes(1 << 20))
    if before.partition("write_bytes")[2] == Path("/proc/self/io").read_text().partition("write_bytes")[2]:
        pytest.skip("the kernel does not count writes to this file system, such as tmpfs")
    run = start("--source", play(ENDLESS).url, "--jsonl", tmp_path / "r.jsonl", before=SOON)
    run.until_printed(" MB per day")
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == EXIT_OK
    (line,) = (line for line in run.stderr_text.splitlines() if " MB per day" in line)
    assert int(line.partition(" MB per day")[0].split()[-1]) > 200
