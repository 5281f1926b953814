"""Prompts and small CLIPs from the command line: training, evaluation, and messages for bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.load import save_clip, seeded_model
from edgekit.models.data import EXPRESSIONS

from ..conftest import Run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces in train, val and test, a small CLIP, and prompts trained for it."""
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for label, name in enumerate(EXPRESSIONS):
            for index in range(count):
                image = generator.integers(0, 60, (48, 48), dtype=np.uint8)
                image[6 + 5 * label : 10 + 5 * label] += 150
                file = folder / "faces" / split / name / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(file), image)
    for label, name in enumerate(("cat", "ape", "owl")):
        file = folder / "pets" / "test" / name / "0.png"
        file.parent.mkdir(parents=True)
        assert cv2.imwrite(str(file), np.full((30, 60, 3), (label * 90, 10, 200), np.uint8))
    for name in ("happy", "contempt"):
        file = folder / "moods" / "test" / name / "0.png"
        file.parent.mkdir(parents=True)
        assert cv2.imwrite(str(file), np.full((48, 48), len(name), np.uint8))
    config = ClipConfig(32, 16, Tower(64, 2, 1), Tower(64, 2, 1), 32, context_length=40)
    save_clip(folder / "clip.safetensors", seeded_model(config, 1), config)
    other = ClipConfig(32, 16, Tower(128, 2, 2), Tower(64, 2, 1), 32, context_length=40)
    save_clip(folder / "wide.safetensors", seeded_model(other, 1), other)
    (folder / "torn.safetensors").write_bytes((folder / "clip.safetensors").read_bytes()[:10_000])
    (folder / "short.json").write_text(json.dumps({"happy": ["a smile"]}))
    (folder / "long.json").write_text(json.dumps({"happy": ["a very long " * 20], "sad": ["sad"]}))
    (folder / "wrong.json").write_text("[]")
    command = [sys.executable, "-m", "edgekit.cli", "train-prompts", "--clip", "clip.safetensors"]
    arguments = ["--data", "faces", "--shots", "2", "--epochs", "2", "-o", "prompts", "--threads", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *arguments, "--json"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.slow
def test_training_reports_the_clip_and_writes_prompts_and_results(place: Path) -> None:
    messages, document = (place / "stderr").read_text(), json.loads((place / "stdout").read_text())
    assert "activation gelu" in messages
    assert "the CLIP has fewer layers than the preset's depth 12: depth 2, cross layer 1" in messages
    assert "14 training images, 14 images to validate" in messages
    assert document["task"] == "few-shot"
    assert document["scores"][0]["images"] == 21
    assert document["best"]["epoch"] == 2
    assert json.loads((place / "prompts/results.json").read_text()) == document
    names = {path.name for path in (place / "prompts").iterdir() if not path.name.startswith("events")}
    assert names == {"best.safetensors", "curves.png", "last.pt", "metrics.jsonl", "results.json"}
    assert (place / "prompts/best.safetensors").stat().st_size < (place / "clip.safetensors").stat().st_size / 2


def test_splits_by_other_names_are_trained_on(edgekit: Run, tmp_path: Path) -> None:
    shutil.copytree("faces/train", tmp_path / "odd/learn")
    shutil.copytree("faces/val", tmp_path / "odd/quiz")
    names = ("--train-split", "learn", "--val-split", "quiz")
    where = ("--data", tmp_path / "odd", "-o", tmp_path / "out", "--epochs", 1, "--batch-size", 8)
    code, _, stderr = edgekit("train-prompts", "--clip", "clip.safetensors", "--shots", 1, *where, *names)
    assert code == 0, stderr


@pytest.mark.parametrize(("model", "command"), [("hicropl", "train-prompts"), ("clip-mini", "train-clip")])
def test_train_names_the_commands_of_what_it_trained_before(edgekit: Run, model: str, command: str) -> None:
    code, _, stderr = edgekit("train", "--model", model, "--data", "faces", "-o", "out")
    assert (code, f"edgekit {command}" in stderr.splitlines()[-1]) == (2, True)


def test_eval_gives_what_training_reported(edgekit: Run) -> None:
    reported = json.loads(Path("prompts/results.json").read_text())["scores"][0]
    arguments = ("--clip", "clip.safetensors", "--data", "faces", "--split", "test", "--json")
    for model, key in (
        ("prompts", "accuracy"),
        ("prompts/best.safetensors", "accuracy"),
        ("zero-shot", "zero_shot_accuracy"),
    ):
        code, stdout, stderr = edgekit("eval", model, *arguments)
        assert code == 0, stderr
        assert json.loads(stdout)["accuracy"] == pytest.approx(reported[key])


def test_eval_takes_other_classes_with_descriptions_of_them(edgekit: Run) -> None:
    arguments = ("prompts/best.safetensors", "--clip", "clip.safetensors", "--data", "pets", "--split", "test")
    code, _, stderr = edgekit("eval", *arguments)
    assert code == 2
    assert "has the class 'ape', which the model does not have" in stderr
    code, stdout, stderr = edgekit("eval", *arguments, "--descriptions", "short.json", "--json")
    assert code == 0, stderr
    assert json.loads(stdout)["labels"] == ["ape", "cat", "owl"]
    assert "no description of ape, cat, owl: the template 'a photo of a {}.' is used instead" in stderr


def test_the_other_tasks_report_their_scores(edgekit: Run, tmp_path: Path) -> None:
    common = ("train-prompts", "--clip", "clip.safetensors", "--data", "faces", "--epochs", 1)
    few = ("--shots", 1, "--json")
    code, stdout, _ = edgekit(*common, *few, "--task", "base-to-novel", "-o", tmp_path / "novel")
    assert code == 0
    assert json.loads(stdout)["summary"].keys() >= {"base", "novel", "harmonic_mean"}
    others = ("--task", "cross-dataset", *(x for name in ("pets", "faces", "moods") for x in ("--eval-data", name)))
    code, stdout, stderr = edgekit(*common, *few, *others, "--contempt", "keep", "-o", tmp_path / "cross")
    assert code == 0
    assert [score["images"] for score in json.loads(stdout)["scores"]] == [21, 3, 21, 2]
    assert "the template" in stderr


def test_a_small_clip_is_pretrained_and_used(edgekit: Run, tmp_path: Path) -> None:
    train = ("train-clip", "--data", "faces", "--epochs", 1, "--batch-size", 14, "--threads", 1)
    code, stdout, stderr = edgekit(*train, "-o", tmp_path / "m", "--json")
    assert code == 0, stderr
    clip = json.loads(stdout)["checkpoint"]
    code, stdout, _ = edgekit("eval", "zero-shot", "--clip", clip, "--data", "faces", "--split", "test", "--json")
    assert code == 0
    assert json.loads(stdout)["total"] == 21
    merges = ("--merge", "good=happy", "--merge", "bad=sad,angry", "--json")
    code, stdout, stderr = edgekit("eval", "zero-shot", "--clip", clip, "--data", "faces", "--split", "test", *merges)
    assert code == 0, stderr
    assert (json.loads(stdout)["total"], list(json.loads(stdout)["per_class"])) == (9, ["good", "bad"])


@pytest.mark.slow
def test_prompts_are_exported_with_their_clip_and_run_and_are_measured_as_before(edgekit: Run, tmp_path: Path) -> None:
    prompts, model = "prompts/best.safetensors", tmp_path / "clip.onnx"
    code, out, err = edgekit("export", prompts, "--clip", "clip.safetensors", "-o", model)
    assert (code, err) == (0, "")
    assert ", ".join(EXPRESSIONS) in out
    test = ("--data", "faces", "--split", "test", "--json")
    found = [
        json.loads(edgekit("eval", *which, *test)[1]) for which in ((model,), (prompts, "--clip", "clip.safetensors"))
    ]
    assert found[0]["confusion"] == found[1]["confusion"]
    code, out, err = edgekit(
        "run", "--model", model, "--source", "faces/test/happy/0.png", "--detector", "none", "--json"
    )
    assert code == 0, err
    assert sum(json.loads(out)["labels"].values()) == 1


PROMPTS = "train-prompts --data faces -o out"
CLIP = "--clip clip.safetensors"
EXPORT = "export prompts/best.safetensors -o out/x.onnx"
DISTILL = "distill --data faces -o out --epochs 1 --teacher prompts"


@pytest.mark.parametrize(
    "words",
    [
        PROMPTS,
        f"{PROMPTS} --clip absent.pt",
        f"{PROMPTS} --clip torn.safetensors",
        f"{PROMPTS} --clip ViT-Z/none",
        f"{PROMPTS} {CLIP} --shots 1 --test-split x",
        f"{PROMPTS} {CLIP} --shots 1 --descriptions long.json",
        f"{PROMPTS} {CLIP} --shots 1 --descriptions wrong.json",
        f"{PROMPTS} {CLIP} --task domain",
        f"{PROMPTS} {CLIP} --eval-data pets",
        f"{PROMPTS} {CLIP} --merge a=sad",
        f"train --data faces -o out {CLIP}",
        EXPORT,
        f"{EXPORT} --clip wide.safetensors",
        f"{EXPORT} {CLIP} --classes long.json",
        f"{EXPORT} {CLIP} --target a53",
        f"{EXPORT} {CLIP} --no-ensemble --eval faces --max-drop 1",
        f"export default -o out/x.onnx {CLIP}",
        DISTILL,
        f"{DISTILL} --clip wide.safetensors",
        "eval prompts/best.safetensors --data faces",
        "eval zero-shot --data faces",
        f"eval zero-shot {CLIP} --data faces --split test --protocol ten-crop",
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(edgekit: Run, place: Path, words: str) -> None:
    code, stdout, stderr = edgekit(*words.split(), "-q")
    assert (code, stdout, stderr.count("\n")) == (2, "", 1), stderr
    assert not (place / "out").exists()
