"""`edgekit data check` and `edgekit data label` from the command line."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.files import exclusive_folder

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Four valid images of two classes in two splits."""
    folder = tmp_path / "animals"
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            cv2.imwrite(str(folder / split / name / "0.png"), generator.integers(0, 255, (20, 30), dtype=np.uint8))
    return folder


def fields(text: str) -> list[list[str]]:
    """Return the labelled lines of a report, and the cells of its table."""
    return [re.split(" {2,}", line) for line in text.splitlines()]


def test_a_sound_data_set_passes(edgekit: Run, animals: Path) -> None:
    code, out, err = edgekit("data", "check", animals)
    assert (code, err) == (0, "")
    lines = fields(out)
    for line in (["images", "4, 4 distinct"], ["size", "30x20 (4)"], ["unreadable", "none"], ["blank", "none"]):
        assert line in lines
    assert [line.split() for line in out.splitlines()[-3:]] == [
        ["cat", "1", "1", "2"],
        ["dog", "1", "1", "2"],
        ["all", "2", "2", "4"],
    ]


def test_faults_are_one_line_on_stderr_and_exit_code_1(edgekit: Run, animals: Path) -> None:
    shutil.copy(animals / "train/cat/0.png", animals / "test/dog/1.png")
    (animals / "test/dog/2.png").write_text("text")
    cv2.imwrite(str(animals / "test/dog/3.png"), np.zeros((9, 9), np.uint8))
    code, out, err = edgekit("data", "check", animals)
    assert (code, len(err.splitlines())) == (1, 1)
    lines = fields(out)
    assert ["blank", "1: test/dog/3.png"] in lines
    assert ["", "1 in test and train"] in lines
    assert lines.count(["", "test/dog/1.png, train/cat/0.png"]) == 2  # crossing and conflicting


def test_a_folder_of_heic_images_only_is_an_error_with_the_cure(edgekit: Run, tmp_path: Path) -> None:
    (tmp_path / "phone/cat").mkdir(parents=True)
    (tmp_path / "phone/cat/IMG_1.HEIC").write_bytes(b"picture")
    code, out, err = edgekit("data", "check", tmp_path / "phone")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "cat/IMG_1.HEIC" in out


def test_the_document_states_the_same(edgekit: Run, animals: Path) -> None:
    shutil.copy(animals / "train/cat/0.png", animals / "test/dog/1.png")
    code, out, err = edgekit("data", "check", animals, "--json")
    assert code == 1
    document = json.loads(out)
    assert document["counts"] == {"test": {"cat": 1, "dog": 2}, "train": {"cat": 1, "dog": 1}}
    assert (document["images"], document["distinct"]) == (5, 4)
    assert document["crossing"]["names"] == document["conflicting"]["names"] == [["test/dog/1.png", "train/cat/0.png"]]
    assert document["crossing"]["pairs"] == [{"splits": ["test", "train"], "groups": 1}]
    assert document["crossing"]["groups_with_training"] == 1
    assert ["data", "animals"] in fields(err)


def test_hostile_file_names_cannot_pose_as_lines_of_ours(edgekit: Run, animals: Path) -> None:
    hostile = animals / "train" / "c\nblank       none\x1b[2J[red]"
    hostile.mkdir()
    (hostile / "\x1b]0;x\x07\nunreadable  \udc80none.png").write_text("text")
    code, out, err = edgekit("data", "check", animals)
    assert code == 1
    assert sum(line.startswith("blank") for line in out.splitlines()) == 1
    assert sum(line.startswith("unreadable") for line in out.splitlines()) == 1
    assert "\x1b" not in out + err
    assert "[red]" in out
    code, out, _ = edgekit("data", "check", animals, "--json")
    assert json.loads(out)["unreadable"][0]["name"].endswith("none.png")


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    """A folder with one collected crop."""
    folder = tmp_path / "collected"
    (folder / "crops").mkdir(parents=True)
    cv2.imwrite(str(folder / "crops" / "a.png"), np.zeros((20, 20, 3), np.uint8))
    (folder / "crops.jsonl").write_text('{"file": "crops/a.png", "probabilities": {"cat": 0.6, "dog": 0.4}}\n')
    return folder


def test_labelling_serves_a_page_until_ctrl_c_and_prints_what_was_done(collected: Path) -> None:
    command = [sys.executable, "-m", "edgekit.cli", "data", "label", str(collected), "--web", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        try:
            first = running.stderr.readline()
            address = re.search(r"http://([^/]+)/", first)
            assert address is not None, first
            page = http.client.HTTPConnection(address[1], timeout=60)
            body = json.dumps({"files": ["a.png"], "label": "dog"})
            page.request("POST", "/api/decide", body, {"Content-Type": "application/json"})
            assert json.load(page.getresponse())["waiting"] == 0
            page.close()
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 0, err
    assert json.loads(out)["counts"] == {"cat": 0, "dog": 1}
    assert f"labelled in {collected}/labelled: cat 0, dog 1; discarded 0" in err
    assert (collected / "labelled/dog/a.png").is_file()


@pytest.mark.parametrize(
    "options",
    [["--web", "0.0.0.0:0"], ["--classes", "cat,../dog"], ["-o", "collected/crops.jsonl"]],
)
def test_labelling_refuses_bad_options_in_one_line(
    edgekit: Run, collected: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.chdir(collected.parent)
    code, out, err = edgekit("data", "label", "collected", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_labelling_needs_a_folder_of_crops_that_no_other_process_labels(edgekit: Run, collected: Path) -> None:
    code, _, err = edgekit("data", "label", collected.parent)
    assert code == 2
    assert "collect crops with edgekit run --collect" in err
    with exclusive_folder(collected):
        code, _, err = edgekit("data", "label", collected, "--web", "0")
    assert code == 75
    assert "another process is writing to" in err
