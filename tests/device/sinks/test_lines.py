"""JSON lines and CSV: their contents, and complete lines after errors."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.device.detections import Face, FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sinks.csv import CsvSink
from edgekit.device.sinks.jsonl import JsonLinesSink
from edgekit.device.sinks.line_file import LineFile
from edgekit.device.sinks.rotation import Rotation
from edgekit.errors import InputError, StorageError

LABELS = ("calm", 'odd, "quoted"')
PROBABILITIES = dict(zip(LABELS, (0.25, 0.75), strict=True))
RAW = dict(zip(LABELS, (0.1, 0.9), strict=True))
FACE = Face(
    (1.234, 2, 30.5, 40),
    0.98761,
    LABELS[1],
    0.75,
    PROBABILITIES,
    3,
    detected=False,
    raw_probabilities=RAW,
    classified=False,
)


def frame(sequence: int = 7) -> Frame:
    return Frame(sequence, 12.3456789, 1.7e9, np.zeros((48, 64, 3), np.uint8))


def result(*faces: Face, sequence: int = 7) -> FrameResult:
    return FrameResult(sequence, 12.3456789, 1.7e9, (64, 48), faces, {"capture": 1.23456, "detect": 2.0}, 3.5)


def test_a_line_of_json_holds_everything_about_a_frame(tmp_path):
    path = tmp_path / "new folder" / "results.jsonl"
    with JsonLinesSink(LineFile(str(path))) as sink:
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


def test_json_lines_go_to_stdout(capsys):
    with JsonLinesSink(LineFile("-")) as sink:
        sink.write(frame(), result())
    assert json.loads(capsys.readouterr().out)["sequence"] == 7


def test_a_csv_row_a_face_with_a_header_once(tmp_path):
    path = tmp_path / "faces.csv"
    with CsvSink(LineFile(str(path)), LABELS) as sink:
        sink.write(frame(5), result(sequence=5))
        sink.write(frame(6), result(sequence=6))
        sink.write(frame(), result(FACE, FACE))
        sink.write(frame(8), replace(result(FACE, sequence=8), file='a "b"\n,c.png'))
    assert sink.accounts[0].as_document() == {"produced": 3, "written": 3, "dropped": {}, "waiting": 0}
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == ["", "", 'a "b"\n,c.png']
    assert [(row["sequence"], row["face"]) for row in rows] == [("7", "0"), ("7", "1"), ("8", "0")]
    assert (rows[0]["track_id"], rows[0]["label"], rows[0]["x0"]) == ("3", LABELS[1], "1.23")
    assert rows[0]["classified"] == "0"
    assert (rows[0][f"p_{LABELS[1]}"], rows[0][f"raw_p_{LABELS[1]}"]) == ("0.750000", "0.900000")


def test_an_existing_file_is_continued(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text("old\n" * 1000)
    with JsonLinesSink(LineFile(str(path))) as sink:
        sink.write(frame(), result())
    lines = path.read_text().splitlines()
    assert lines[:-1] == ["old"] * 1000
    assert json.loads(lines[-1])


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        JsonLinesSink(LineFile(str(tmp_path)))


def test_a_full_device_is_a_storage_error():
    with JsonLinesSink(LineFile("/dev/full")) as sink, pytest.raises(StorageError, match="'/dev/full': No space left"):
        sink.write(frame(), result())


def test_a_place_that_cannot_be_created_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        JsonLinesSink(LineFile(str(tmp_path / "file" / "x.jsonl"))) as sink,
        pytest.raises(StorageError, match=r"x\.jsonl"),
    ):
        sink.write(frame(), result())


def test_a_line_that_does_not_fit_is_taken_back(small_disk: Path):
    path = small_disk / "results.jsonl"
    lines = LineFile(str(path))
    line = "x" * 65_000 + "\n"

    def fill() -> None:
        for _ in range(100):
            lines.write(line)

    with pytest.raises(StorageError, match="No space left"):
        fill()
    lines.close()
    assert set(path.read_text().splitlines(keepends=True)) == {line}
    assert path.stat().st_size > 10 * len(line)


def test_closing_twice_is_harmless(tmp_path):
    lines = LineFile(str(tmp_path / "x"))
    lines.write("a\n")
    lines.close()
    lines.close()


def test_a_pipe_can_be_written(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        with JsonLinesSink(LineFile(str(pipe))) as sink:
            sink.write(frame(), result())
        assert json.loads(reader.communicate(timeout=10)[0])["sequence"] == 7


def test_a_file_that_is_deleted_is_written_again(tmp_path, notices):
    path = tmp_path / "out" / "r.csv"
    lines = LineFile(str(path), notify=notices.append)
    lines.header = "head\n"
    lines.write("1\n")
    path.unlink()
    lines.write("2\n")
    assert path.read_text() == "head\n2\n"
    shutil.rmtree(path.parent)
    lines.write("3\n")
    assert path.read_text() == "head\n3\n"
    path.rename(tmp_path / "moved")
    lines.write("4\n")
    lines.close()
    assert (path.read_text(), (tmp_path / "moved").read_text()) == ("head\n4\n", "head\n3\n")
    assert notices == [f"'{path}' was deleted or moved: a new file was begun"] * 3
    assert lines.account.as_document() == {"produced": 4, "written": 4, "dropped": {}, "waiting": 0}


def test_a_file_that_another_program_empties_gets_its_header_again(tmp_path, notices):
    path = tmp_path / "r.csv"
    lines = LineFile(str(path), notify=notices.append)
    lines.header = "head\n"
    lines.write("1\n")
    path.write_text("")
    lines.write("2\n")
    lines.close()
    assert (path.read_text(), notices) == ("head\n2\n", [])


def test_rows_that_cannot_be_written_are_counted_by_reason():
    lines = LineFile("/dev/full")
    with pytest.raises(StorageError):
        lines.write("1\n2\n", records=2)
    assert lines.account.as_document()["dropped"] == {"disk full": 2}


def _fail(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("moved", [False, True], ids=["file stays", "file moved"])
def test_a_part_of_lines_that_cannot_be_removed_is_not_there_twice(small_disk, fill, monkeypatch, notices, moved):
    path, aside = small_disk / "r.txt", small_disk / "aside.txt"
    text = "".join(f"{number}{'x' * 3000}\n" for number in range(5))
    lines = LineFile(str(path), notify=notices.append)
    lines.write("first\n")
    ballast = fill(small_disk, but_bytes=8192)

    with monkeypatch.context() as patched:
        patched.setattr("edgekit.device.sinks.line_file.os.ftruncate", _fail)
        with pytest.raises(StorageError, match="No space left"):
            lines.append(text)
    assert path.stat().st_size > len("first\n") + 3000, "a whole line of them is in the file"
    ballast.unlink()
    if moved:
        path.rename(aside)
    lines.append(text)
    lines.close()
    assert [file.read_text() for file in (aside, path) if file.exists()] == (
        ["first\n", text] if moved else [f"first\n{text}"]
    )
    assert len(notices) == moved


@pytest.mark.parametrize("call", ["pread", "ftruncate", "fstat"])
def test_an_error_before_the_first_write_leaves_the_file_as_it_is(tmp_path, monkeypatch, call):
    path = tmp_path / "r.txt"
    path.write_text("first\nsecond\nthi")  # a power cut
    lines = LineFile(str(path), Rotation(size_bytes=10**6, keep=2))
    with monkeypatch.context() as patched:
        patched.setattr(f"edgekit.device.sinks.line_file.os.{call}", _fail)
        with pytest.raises(StorageError, match="Input/output error"):
            lines.append("third\n")
    assert path.read_text().startswith("first\nsecond\n")
    lines.append("third\n")
    lines.close()
    assert path.read_text() == "first\nsecond\nthird\n"


def test_an_error_between_writes_keeps_what_another_program_appended(tmp_path, monkeypatch):
    path = tmp_path / "r.txt"
    lines = LineFile(str(path))
    lines.append("one\n")
    with path.open("a") as other:
        other.write("foreign\n")
    with monkeypatch.context() as patched:
        patched.setattr("edgekit.device.sinks.line_file.os.path.samestat", _fail)
        with pytest.raises(StorageError, match="Input/output error"):
            lines.append("two\n")
    lines.append("two\n")
    lines.close()
    assert path.read_text() == "one\nforeign\ntwo\n"


def test_a_part_of_lines_is_removed_at_the_end_of_the_run(small_disk, fill, monkeypatch):
    path = small_disk / "r.txt"
    lines = LineFile(str(path))
    lines.write("first\n")
    ballast = fill(small_disk, but_bytes=8192)
    with monkeypatch.context() as patched:
        patched.setattr("edgekit.device.sinks.line_file.os.ftruncate", _fail)
        with pytest.raises(StorageError, match="No space left"):
            lines.append(f"{'x' * 3000}\n" * 5)
    ballast.unlink()
    lines.close()
    assert path.read_text() == "first\n"


@pytest.mark.parametrize("header", ["", "a,b\n"])
def test_a_pipe_is_written_to_for_longer_than_a_file_and_is_never_renamed(tmp_path, header):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        lines = LineFile(str(pipe), Rotation(size_bytes=1))
        lines.header = header
        for _ in range(3):
            lines.write("1,2\n")
        assert reader.read() == f"{header}1,2\n1,2\n1,2\n".encode()
        assert [path.is_fifo() for path in tmp_path.iterdir()] == [True]
        # The file is closed and opened again, as after an error of the pipe.
        lines.close()
        lines.write("3,4\n")
        lines.close()
    assert [path.is_fifo() for path in tmp_path.iterdir()] == [True]
