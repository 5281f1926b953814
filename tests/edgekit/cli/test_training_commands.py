"""`edgekit train`, `eval` and `import` from the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

import edgekit
from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.nets.registry import create_model
from tests.authors_file import save_as_authors


@pytest.fixture(scope="module")
def faces(draw_faces: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data set with 28 training, 14 validation and 14 test images."""
    return draw_faces(tmp_path_factory.mktemp("faces"), {"train": 28, "val": 14, "test": 14})


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(edgekit: Callable[..., tuple[int, str, str]]) -> Callable[..., Done]:
    """Return a function that runs the command line in this process."""
    return lambda *arguments: Done(*edgekit(*arguments))


@pytest.fixture(scope="module")
def trained(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a training of one epoch through the Python API, with the options of the commands below."""
    output = tmp_path_factory.mktemp("runs") / "mine"
    result = edgekit.train(data=str(faces), output=str(output), epochs=1, batch_size=14)
    assert result.checkpoint == output / "best.safetensors"
    assert result.curves.exists()
    assert (result.validation_name, result.best_epoch, len(result.history)) == ("val", 1, 1)
    assert 0 <= result.validation_accuracy <= 1
    return output


def test_train_writes_one_json_document(run: Callable[..., Done], faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    short = ("--model", "mini-xception", "--epochs", 1, "--batch-size", 14)
    done = run("train", "--data", faces, "-o", output, *short, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["checkpoint"] == str(output / "best.safetensors")
    assert document["validation"] == "val"
    assert document["best"] == document["epochs"][0]


@pytest.mark.parametrize(
    "values",
    [{"precision": "fp64"}, {"batch_size": 1}, {"max_lr": 0}],
)
def test_train_options_are_checked_in_python_too(faces: Path, tmp_path: Path, values: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(values))):
        edgekit.train(data=faces, output=tmp_path / "run", **values)  # type: ignore[arg-type]


def test_merged_classes_are_trained_and_measured_as_such(run: Callable[..., Done], faces: Path, tmp_path: Path) -> None:
    merges = ("--merge", "good=happy,surprise", "--merge", "bad=sad,angry,fear")
    short = ("--model", "mini-xception", "--epochs", 1, "--batch-size", 10)
    done = run("train", "--data", faces, "-o", tmp_path / "run", *short, *merges, "--resume")
    assert done.returncode == 0, done.stderr
    model = tmp_path / "run/best.safetensors"
    checkpoint = load_checkpoint(model)
    assert checkpoint.contract.labels == ("good", "bad")
    assert checkpoint.training["merged"] == list(merges[1::2])
    done = run("eval", model, "--data", faces, "--split", "test", *merges, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["total"], document["labels"]) == (10, ["good", "bad"])
    done = run("train", "--data", faces, "-o", tmp_path / "other", "--merge", "good=joy")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_eval_gives_figures_and_a_picture_and_its_function_the_same_figures(
    run: Callable[..., Done], faces: Path, trained: Path, tmp_path: Path
) -> None:
    model, plot = trained / "best.safetensors", tmp_path / "confusion.png"
    done = run("eval", model, "--data", faces, "--split", "test", "--plot", plot, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["accuracy"] == document["correct"] / document["total"] == document["correct"] / 14
    assert 0 <= document["calibration_error"] <= 1
    assert np.sum(document["confusion"]) == 14
    assert min(cv2.imread(str(plot)).shape[:2]) > 400
    result = edgekit.evaluate(model, faces, split="test")
    assert (result.dataset, result.split) == (document["dataset"], document["split"])
    assert (result.accuracy, result.confusion.tolist()) == (document["accuracy"], document["confusion"])


def test_a_training_starts_from_given_weights(
    run: Callable[..., Done], faces: Path, trained: Path, tmp_path: Path
) -> None:
    start = trained / "best.safetensors"
    tiny_step = ["--epochs", 1, "--batch-size", 14, "--max-lr", 1e-9, "--init", start]
    done = run("train", "--data", faces, "-o", tmp_path / "again", *tiny_step)
    assert done.returncode == 0, done.stderr
    before, after = (load_checkpoint(path) for path in (start, tmp_path / "again/best.safetensors"))
    assert after.training["initial_sha256"] == sha256_of(start)
    assert after.training["recipe"]["max_lr"] == 1e-9
    weight = "blocks.0.0.expand.weight"
    assert after.state[weight].allclose(before.state[weight], atol=1e-6)
    for arguments in (["--model", "mini-xception"], ["--init", "absent.safetensors"], ["--init", ""]):
        done = run("train", "--data", faces, "-o", tmp_path / "no", *tiny_step, *arguments)
        assert done.returncode == 2
        assert not (tmp_path / "no").exists()


def test_a_training_with_other_labels_starts_from_the_body(
    run: Callable[..., Done], trained: Path, tmp_path: Path
) -> None:
    start, two = trained / "best.safetensors", _two_classes(tmp_path)
    tiny_step = ["--epochs", 1, "--batch-size", 2, "--max-lr", 1e-9, "--init", start]
    done = run("train", "--data", two, "-o", tmp_path / "two-classes", *tiny_step)
    assert done.returncode == 0, done.stderr
    assert "edgecnn starts from it except for the last layer" in done.stderr + done.stdout
    before, after = (load_checkpoint(path) for path in (start, tmp_path / "two-classes/best.safetensors"))
    assert after.training["initial_sha256"] == sha256_of(start)
    assert after.contract.labels == ("a", "b")
    weight = "blocks.0.0.expand.weight"
    assert after.state[weight].allclose(before.state[weight], atol=1e-6)


def _two_classes(folder: Path) -> Path:
    for split in ("train", "val"):
        for name in ("a", "b"):
            file = folder / "two" / split / name / "1.png"
            file.parent.mkdir(parents=True)
            assert cv2.imwrite(str(file), np.zeros((48, 48), np.uint8))
    return folder / "two"


def test_resume_with_other_splits_is_refused(run: Callable[..., Done], faces: Path, trained: Path) -> None:
    same = ["train", "--data", faces, "-o", trained, "--epochs", 1, "--batch-size", 14, "--resume"]
    for flag, name in (("--val-split", "validation"), ("--train-split", "training_split")):
        done = run(*same, flag, "test")
        assert done.returncode == 2
        assert f"its {name} was" in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_training_keeps_the_finished_epochs(faces: Path, tmp_path: Path, sent: int) -> None:
    output = tmp_path / "run"
    command = [sys.executable, "-m", "edgekit.cli", "train", "--data", faces, "-o", output]
    process = subprocess.Popen(
        [*command, "--model", "mini-xception", "--epochs", "9999", "--batch-size", "14"],
        stderr=subprocess.PIPE,
        text=True,
        # A test run under nohup or in the background ignores these signals, and the child would inherit that.
        preexec_fn=lambda: signal.signal(sent, signal.SIG_DFL),
    )
    while not (output / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert {path.name for path in output.iterdir()} == {
        "best.safetensors",
        "curves.png",
        "last.pt",
        "metrics.jsonl",
    }


def test_a_full_disk_ends_a_training_with_its_own_code_and_nothing_half_written(
    run: Callable[..., Done], faces: Path, small_disk: Path
) -> None:
    done = run("train", "--data", faces, "-o", small_disk / "run", "--epochs", 1, "--batch-size", 14, "-q")
    assert done.returncode == 74, done.stderr
    assert "No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (small_disk / "run").exists()


def test_import_writes_a_checkpoint_that_evaluates(run: Callable[..., Done], faces: Path, tmp_path: Path) -> None:
    target = tmp_path / "authors.safetensors"
    source = save_as_authors(tmp_path / "authors.t7", create_model("edgecnn", 7))
    done = run("import", source, "-o", target, "--json")
    assert json.loads(done.stdout)["architecture"] == "edgecnn"
    assert run("eval", target, "--data", faces, "--split", "test").returncode == 0
