"""JSON lines and CSV: their contents, restarts, rotation, the disk reserve, and whole lines after errors."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.contract import DistanceSpec
from edgekit.device.detections import Face, FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.csv import CsvOptions
from edgekit.device.sinks.file_series import Rotation, is_older_name, parse_limits
from edgekit.device.sinks.jsonl import JsonLinesOptions
from edgekit.device.sinks.records import RecordSink
from edgekit.errors import StorageError
from tests.runs import Source, counts, run_of

LABELS = ("calm", 'odd, "quoted"')
FACE = Face(
    (1.234, 2, 30.5, 40),
    0.98761,
    LABELS[1],
    0.75,
    dict(zip(LABELS, (0.25, 0.75), strict=True)),
    3,
    detected=False,
    raw_probabilities=dict(zip(LABELS, (0.1, 0.9), strict=True)),
    classified=False,
)


def frame(sequence: int = 7, at_s: float = 12.3456789) -> Frame:
    return Frame(sequence, at_s, 1.7e9, np.zeros((48, 64, 3), np.uint8))


def result(*faces: Face, sequence: int = 7) -> FrameResult:
    return FrameResult(sequence, 12.3456789, 1.7e9, (64, 48), faces, {"capture": 1.23456, "detect": 2.0}, 3.5)


@pytest.fixture
def new_run(notices) -> Callable[..., RunContext]:
    def make(*, live: bool = False, **rules: Any) -> RunContext:
        return run_of(notices.append, Source(live), labels=LABELS, **rules)

    return make


def jsonl(target: Path | str, run: RunContext) -> RecordSink:
    sink = JsonLinesOptions(jsonl=str(target)).open(run)
    assert sink is not None
    return sink


def csv_sink(path: Path, run: RunContext) -> RecordSink:
    sink = CsvOptions(csv=path).open(run)
    assert sink is not None
    return sink


def record(sink: RecordSink, *sequences: int) -> None:
    with sink:
        for sequence in sequences:
            sink.write(frame(sequence), result(FACE, sequence=sequence))


def sequences(path: Path) -> list[int]:
    return [json.loads(line)["sequence"] for line in path.read_text().splitlines()]


def test_a_line_of_json_holds_everything_about_a_frame(tmp_path, new_run):
    path = tmp_path / "new folder" / "results.jsonl"
    with jsonl(path, new_run()) as sink:
        sink.write(frame(), result(FACE))
        sink.write(frame(8), replace(result(sequence=8), file="a.png"))
        assert len(path.read_text().splitlines()) == 2, "a reader follows the file while it grows"
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {
        "sequence": 7,
        "monotonic_s": 12.345679,
        "wall_s": 1.7e9,
        "frame_wh": [64, 48],
        "age_ms": 3.5,
        "stage_ms": {"capture": 1.235, "detect": 2.0},
        "faces": [
            {
                "track_id": 3,
                "detected": False,
                "classified": False,
                "xyxy": [1.23, 2, 30.5, 40],
                "score": 0.9876,
                "label": LABELS[1],
                "probability": 0.75,
                "probabilities": {LABELS[0]: 0.25, LABELS[1]: 0.75},
                "raw_probabilities": {LABELS[0]: 0.1, LABELS[1]: 0.9},
            }
        ],
    }
    assert (second["sequence"], second["file"], second["faces"]) == (8, "a.png", [])


def test_the_distance_of_a_model_that_has_one_is_recorded(tmp_path, new_run):
    face, run = replace(FACE, distance=0.1234567), new_run()
    run = replace(run, contract=replace(run.contract, distance=DistanceSpec("distance", 0.5)))
    with jsonl(tmp_path / "r.jsonl", run) as lines, csv_sink(tmp_path / "r.csv", run) as rows:
        for sink in (lines, rows):
            sink.write(frame(), result(face))
    (found,) = json.loads((tmp_path / "r.jsonl").read_text())["faces"]
    with (tmp_path / "r.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (found["distance"], row["distance"], row["file"]) == (0.123457, "0.123457", "")


def test_a_row_of_csv_per_face_with_a_header_once(tmp_path, new_run):
    path, run = tmp_path / "faces.csv", new_run()
    with csv_sink(path, run) as sink:
        sink.write(frame(5), result(sequence=5))
        assert path.read_text().startswith("sequence,monotonic_s,")
        sink.write(frame(), result(FACE, FACE))
        sink.write(frame(8), replace(result(FACE, sequence=8), file='=a "b"\n,c.png'))
    assert counts(run, "csv") == {"produced": 3, "written": 3, "dropped": {}, "waiting": 0}
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == ["", "", '\'=a "b"\n,c.png'], "a spreadsheet evaluates no formula"
    assert [(row["sequence"], row["face"]) for row in rows] == [("7", "0"), ("7", "1"), ("8", "0")]
    assert (rows[0]["track_id"], rows[0]["label"], rows[0]["x0"]) == ("3", LABELS[1], "1.23")
    assert rows[0]["classified"] == "0"
    assert (rows[0][f"p_{LABELS[1]}"], rows[0][f"raw_p_{LABELS[1]}"]) == ("0.750000", "0.900000")


@pytest.mark.parametrize("live", [False, True])
def test_a_restart_continues_the_files(tmp_path, new_run, live):
    for sequence in (1, 2):
        record(jsonl(tmp_path / "r.jsonl", new_run(live=live)), sequence)
        record(csv_sink(tmp_path / "r.csv", new_run(live=live)), sequence)
    assert sequences(tmp_path / "r.jsonl") == [1, 2]
    assert [line.split(",")[0] for line in (tmp_path / "r.csv").read_text().splitlines()] == ["sequence", "1", "2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.csv", "r.jsonl"]


def test_a_csv_file_with_other_columns_is_renamed_with_its_time(tmp_path, new_run):
    path = tmp_path / "r.csv"
    path.write_text("sequence,another\n1,2\n")
    os.utime(path, (1_700_000_000,) * 2)
    record(csv_sink(path, new_run()), 1)
    assert (tmp_path / "r.20231114T221320Z.csv").read_text() == "sequence,another\n1,2\n"
    assert len(path.read_text().splitlines()) == 2


def test_a_partial_line_of_a_power_cut_is_removed(tmp_path, new_run):
    path = tmp_path / "r.jsonl"
    path.write_text('{"sequence": 1}\n{"sequence": 2, "wal')
    record(jsonl(path, new_run()), 3)
    assert sequences(path) == [1, 3]


def test_rotation_numbers_older_files_and_keeps_some(tmp_path, new_run):
    path = tmp_path / "r.jsonl"
    with jsonl(path, new_run(rotate_files="10KB,keep=2")) as sink:
        for sequence in range(100):
            sink.write(frame(sequence), result(FACE, sequence=sequence))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["r.1.jsonl", "r.2.jsonl", "r.jsonl"]
    kept = [number for name in reversed(names[:-1]) for number in sequences(tmp_path / name)] + sequences(path)
    assert kept == list(range(kept[0], 100))
    assert (tmp_path / "r.1.jsonl").stat().st_size >= 10_000


def test_an_old_file_is_rotated_by_the_age_of_its_first_record(tmp_path, new_run):
    path = tmp_path / "r.jsonl"
    record(jsonl(path, new_run(rotate_files="1d")), 1, 2)  # the records are of 2023
    record(jsonl(path, new_run(rotate_files="1d")), 3, 4)
    assert (sequences(tmp_path / "r.1.jsonl"), sequences(path)) == ([1, 2, 3], [4])


def test_changes_are_recorded_and_one_record_per_second(tmp_path, new_run):
    path, other = tmp_path / "r.jsonl", replace(FACE, label=LABELS[0])
    with jsonl(path, new_run(live=True, records="changes")) as sink:
        for number in range(40):
            faces = [other] if number == 33 else [FACE]
            sink.write(frame(number, at_s=number / 10), result(*faces, sequence=number))
    assert sequences(path) == [0, 10, 20, 30, 33, 34]


def test_a_file_that_is_deleted_or_moved_begins_again(tmp_path, new_run):
    path = tmp_path / "out" / "r.jsonl"
    with jsonl(path, new_run()) as sink:
        sink.write(frame(), result(sequence=1))
        path.unlink()
        sink.write(frame(), result(sequence=2))
        path.rename(tmp_path / "moved")
        sink.write(frame(), result(sequence=3))
    assert (sequences(tmp_path / "moved"), sequences(path)) == ([2], [3])


def test_a_full_disk_ends_the_run_of_a_recording_with_whole_lines(small_disk, new_run):
    path, run = small_disk / "r.jsonl", new_run()
    with pytest.raises(StorageError):
        record(jsonl(path, run), *range(100_000))
    document = counts(run, "jsonl")
    assert sequences(path) == list(range(document["written"]))
    assert document["dropped"] == {"disk full": 1}


def test_limits_of_files_are_a_size_a_time_or_both():
    assert [parse_limits(text) for text in ("10MB", "1d", "1GiB, 12h", "keep=20,1d")] == [
        Rotation(10_000_000),
        Rotation(None, 86_400.0),
        Rotation(1 << 30, 43_200.0),
        Rotation(None, 86_400.0, 20),
    ]
    for text in ("", "10", "soon", "10MB;1d", "0s", "100B", "keep=3", "1d,keep=0"):
        with pytest.raises(ValueError, match=re.compile("")):
            parse_limits(text)
    assert is_older_name(Path("r.12.jsonl"), Path("r.jsonl"))
    assert not is_older_name(Path("r.2024x.jsonl"), Path("r.jsonl"))
