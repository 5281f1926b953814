"""The tasks for prompts: their data, resumption, tables and plots."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edgekit.errors import InputError
from edgekit.models.clip.architecture import Tower
from edgekit.models.clip.load import random_clip, save_clip
from edgekit.models.clip.mini import CLIP_MINI
from edgekit.models.data import EXPRESSIONS, ImageSet

FOLDER = Path(__file__).parents[2] / "benchmarks/models"
SMALL = replace(CLIP_MINI, vision=Tower(64, 2, 1), text=Tower(32, 2, 1), embed_dim=32)


@pytest.fixture(scope="module")
def tasks() -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(FOLDER))  # the scripts import each other
    try:
        yield runpy.run_path(str(FOLDER / "prompt_tasks.py"))
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture
def clip_path(tmp_path: Path) -> Path:
    clip = random_clip(SMALL)
    save_clip(tmp_path / "clip.safetensors", clip.model, SMALL)
    return tmp_path / "clip.safetensors"


@pytest.fixture
def fer_folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for split in ("Training", "PublicTest"):
        for name in EXPRESSIONS:
            folder = tmp_path / "fer" / split / name
            folder.mkdir(parents=True)
            for index in range(2 if name == "fear" else 3):
                cv2.imwrite(str(folder / f"{index}.png"), generator.integers(0, 255, (48, 48), np.uint8))
    return tmp_path / "fer"


def faces(persons: list[str]) -> ImageSet:
    count = len(persons)
    return ImageSet(np.zeros((count, 4, 4, 1), np.uint8), np.zeros(count, np.int64), groups=np.array(persons, np.str_))


def test_shots_beyond_a_class_give_what_it_has(tasks: dict[str, Any]) -> None:
    up_to_shots = tasks["up_to_shots"]
    labels = np.array([0, 0, 0, 1])
    chosen, short = up_to_shots(labels, ("many", "one"), 2, 0)
    assert np.bincount(labels[chosen]).tolist() == [2, 1]
    assert short == {"one": 1}
    more, _ = up_to_shots(labels, ("many", "one"), 3, 0)
    assert set(chosen) <= set(more)


def test_images_of_a_class_with_fewer_than_shots_are_repeated(tasks: dict[str, Any]) -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    chosen = tasks["repeated"](np.array([0, 2, 3, 4, 5]), labels, 2)
    assert sorted(chosen) == [0, 2, 3, 3, 4, 5]


@pytest.mark.usefixtures("tasks")
def test_no_person_is_on_both_sides() -> None:
    data = sys.modules["prompt_task_data"]
    training, test = data.persons_apart(faces(list("aabbccddee")), 0, "faces")
    assert not set(training.groups) & set(test.groups)
    assert len(training) + len(test) == 10
    with pytest.raises(InputError, match="persons on the images of 'faces' are not known"):
        data.persons_apart(replace(faces(["a"]), groups=None), 0, "faces")


@pytest.mark.usefixtures("tasks")
def test_ck_plus_is_read_without_neutral_and_with_its_subjects(tmp_path: Path) -> None:
    data = sys.modules["prompt_task_data"]
    for name in ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise"):
        (tmp_path / name).mkdir()
        for subject in ("S010", "S011"):
            cv2.imwrite(str(tmp_path / name / f"{subject}_001_00000014.png"), np.full((48, 48), 9, np.uint8))
    images = data._expressions(tmp_path, 48)
    assert sorted(images.labels) == [EXPRESSIONS.index(name) for name in EXPRESSIONS if name != "neutral" for _ in "ab"]
    training, test = data.persons_apart(images, 0, "CK+")
    assert len(training) == len(test) == 6
    (tmp_path / "bored").mkdir()
    cv2.imwrite(str(tmp_path / "bored/S010_001_00000014.png"), np.zeros((48, 48), np.uint8))
    with pytest.raises(InputError, match=r"has the classes .*bored.*: expected the seven expressions"):
        data._expressions(tmp_path, 48)


@pytest.mark.usefixtures("tasks")
def test_copies_are_darker_softer_and_coarser() -> None:
    data = sys.modules["prompt_task_data"]
    image = np.random.default_rng(0).integers(0, 255, (48, 48, 1), np.uint8)
    assert data.darkened(image).mean() < 0.3 * image.mean()
    assert data.blurred(image).std() < 0.5 * image.std()
    changed = {name: change(image) for name, change in data.COPIES.items()}
    assert {copy.shape for copy in changed.values()} == {(48, 48, 1)}
    assert np.array_equal(changed["photographs"], image)
    assert not np.array_equal(changed["compressed"], image)


@pytest.mark.slow
def test_a_run_measures_every_cell_once_and_continues(
    tasks: dict[str, Any], clip_path: Path, fer_folder: Path, tmp_path: Path
) -> None:
    arguments = ["--task", "classes", "--clip", clip_path, "--data", fer_folder, "--shots", "1", "--shots", "3"]
    arguments += ["--seeds", "1", "--weight", "0", "--only", "HiCroPL", "--epochs", "1", "--n-ctx", "2", "--repeat"]
    command = [str(each) for each in (*arguments, "-o", tmp_path / "out")]
    done = CliRunner().invoke(tasks["main"], command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    path = tmp_path / "out" / "cells.jsonl"
    cells = tasks["read_cells"](path)
    assert len(cells) == 4 * (1 + 2 * 3)  # 4 groupings, each with zero-shot and three rows for two numbers of shots
    assert {cell["row"] for cell in cells} == {"zero-shot", "bias per class", "linear probe", "HiCroPL, λ = 0"}
    page = (tmp_path / "out" / "tasks.md").read_text()
    assert "### mood" in page
    assert "HiCroPL, λ = 0" in page
    assert "Fewer images than shots, mood: positive has 3 images" not in page
    assert (tmp_path / "out" / "classes-PublicTest.png").stat().st_size > 10_000
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-2]) + "\n" + lines[-1][:20])  # an interruption left half a line
    again = CliRunner().invoke(tasks["main"], command, catch_exceptions=False)
    assert again.output.count(" shots, seed ") == 2
    assert len(tasks["read_cells"](path)) == len(cells)
    other = CliRunner().invoke(tasks["main"], [*command, "--report", "--n-ctx", "3"])
    assert "has no cell of this CLIP and data with these settings" in other.output
    unknown = CliRunner().invoke(tasks["main"], [*command, "--only", "MaPLe"])
    assert "only 'MaPLe' begins no row: the rows are HiCroPL, λ = 0, " in unknown.output


@pytest.mark.usefixtures("tasks")
def test_a_base_clip_must_have_been_trained_without_some_classes(tmp_path: Path, clip_path: Path) -> None:
    data = sys.modules["prompt_task_data"]
    sources = data.Sources(clip_path, tmp_path, base_clip=clip_path)
    with pytest.raises(InputError, match="was not trained without some classes: train it with --leave-out"):
        next(data.make_tasks(sources, ["classes"], "PublicTest"))
    base = tmp_path / "base.safetensors"
    save_clip(base, random_clip(SMALL).model, SMALL, {"left_out": ["sad"]})
    *_, last = data.make_tasks(replace(sources, base_clip=base), ["classes"], "PublicTest")
    assert (last.name, last.clip) == ("classes never seen", base)


@pytest.mark.usefixtures("tasks")
def test_the_table_and_the_verdict() -> None:
    report = sys.modules["prompt_task_report"]

    def cell(row: str, shots: int, seed: int, accuracy: float) -> dict[str, Any]:
        scores = {"accuracy": accuracy, "balanced": accuracy - 0.1, "images": 10}
        return {"source": "s", "row": row, "shots": shots, "seed": seed, "results": {"s": scores}}

    cells = [cell("zero-shot", 0, 0, 0.5)]
    for seed, accuracy in enumerate((0.7, 0.72)):
        cells += [cell("linear probe", 16, seed, accuracy), cell("HiCroPL, λ = 0", 16, seed, accuracy + 0.05)]
    series = report.panels_of(cells)["s"]
    table = report.table(series)
    assert "| zero-shot | 50.0 / 40.0 |" in table
    assert "| HiCroPL, λ = 0 | 76.0 ± 1.4 / 66.0 ± 1.4 |" in table
    assert "accuracy at 16 shots: HiCroPL, λ = 0 is higher than linear probe (+5.0 points)" in report.verdict(series)
    close = report.panels_of([*cells, cell("bias per class", 16, 0, 0.755)])["s"]
    assert "is higher, but within the spread, than bias per class (+0.5 points)" in report.verdict(close)


@pytest.mark.usefixtures("tasks")
def test_differences_are_those_of_the_same_draws() -> None:
    report = sys.modules["prompt_task_report"]
    method = {seed: {"accuracy": 0.6 + 0.1 * seed, "balanced": 0.5} for seed in (0, 1, 2)}
    other = {seed: {"accuracy": 0.58 + 0.12 * seed, "balanced": 0.4} for seed in (0, 1)}
    panels = [{("HiCroPL", 4): method, ("probe", 4): other}, {("HiCroPL", 4): method}]
    assert report.differences(panels)[2:] == [
        "| HiCroPL minus probe | +1.0 ± 1.0 / +10.0 ± 0.0 (higher in 1 / 2 of 2) |"
    ]


def test_cells_of_other_settings_are_measured_again(tasks: dict[str, Any]) -> None:
    cell = {"task": "labels", "source": "s", "row": "r", "shots": 1, "seed": 0, "split": "PublicTest", "epochs": 50}
    assert tasks["_identity"](cell) != tasks["_identity"]({**cell, "epochs": 10})
    assert json.loads(tasks["_identity"](cell))[0] == "labels"


@pytest.mark.slow
def test_cells_of_other_data_are_measured_again(
    tasks: dict[str, Any], clip_path: Path, fer_folder: Path, tmp_path: Path
) -> None:
    arguments = ["--task", "classes", "--clip", clip_path, "--data", fer_folder, "--shots", "1", "--seeds", "1"]
    command = [str(each) for each in (*arguments, "--only", "released", "--epochs", "1", "-o", tmp_path / "out")]
    path = tmp_path / "out" / "cells.jsonl"

    def measured() -> int:
        sys.modules["data_identity"].data_identity.cache_clear()
        done = CliRunner().invoke(tasks["main"], command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output.count(" seed ")

    count = measured()
    assert count > 0
    assert measured() == 0
    old = [{name: value for name, value in cell.items() if name != "data"} for cell in tasks["read_cells"](path)]
    (fer_folder / "Training/happy/0.png").unlink()
    assert measured() == count
    path.write_text("".join(json.dumps(cell) + "\n" for cell in old))  # cells without the identity of the data
    assert measured() == 0
