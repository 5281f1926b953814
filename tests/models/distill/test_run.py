"""Recipe, class balance and subject of a student, from its options and its teachers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgekit.contract import Subject
from edgekit.errors import InputError
from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.distill.distillation import TARGETS_NAME, distill
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import create_model

LABELS = ("dark", "light")
OPTIONS: dict[str, Any] = {"epochs": 1, "batch_size": 8, "accelerator": "cpu", "precision": "fp32", "threads": 1}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder data set of noise, with 4 training pictures of class dark and 12 of class light."""
    generator = np.random.default_rng(0)
    for split, counts in (("train", (4, 12)), ("val", (4, 4))):
        for name, count in zip(LABELS, counts, strict=True):
            (tmp_path / "pictures" / split / name).mkdir(parents=True)
            for index in range(count):
                image = generator.integers(0, 256, (48, 48), dtype=np.uint8)
                assert cv2.imwrite(str(tmp_path / "pictures" / split / name / f"{index}.png"), image)
    return tmp_path / "pictures"


def _teacher(path: Path, subject: Subject = "face") -> str:
    contract = replace(contract_for("mini-xception", LABELS, "any", gray=True), subject=subject)
    save_checkpoint(path, Checkpoint(contract, create_model("mini-xception", 2).state_dict()))
    return str(path)


def test_adapt_takes_all_layers_for_new_classes_and_balances_them(pictures: Path, tmp_path: Path) -> None:
    notices: list[str] = []
    options = {"teachers": [_teacher(tmp_path / "teacher.safetensors")], "recipe": "adapt", "init": "fer2013"}
    distill(data=pictures, output=tmp_path / "run", **options, **OPTIONS, notify=notices.append)
    training = load_checkpoint(tmp_path / "run/best.safetensors").training
    assert any("the recipe is adapt-new-classes" in line for line in notices)
    assert training["recipe"]["depth_decay"] == 0.5
    assert training["balance"] == "sampler"


def test_the_student_of_a_model_of_whole_images_is_one(pictures: Path, tmp_path: Path) -> None:
    images, faces = (_teacher(tmp_path / f"{name}.safetensors", name) for name in ("image", "face"))
    options = {"data": pictures, "student": "mini-xception", **OPTIONS}
    result = distill(teachers=[images], output=tmp_path / "run", **options)
    assert load_checkpoint(result.training.checkpoint).contract.subject == "image"
    with pytest.raises(InputError, match=r"'face.safetensors' classifies faces, 'image.safetensors' whole images"):
        distill(teachers=[images, faces], output=tmp_path / "other", **options)


def test_the_teacher_classifies_once_and_a_resumed_training_reads_its_outputs(pictures: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": pictures, "output": tmp_path / "run", "student": "mini-xception", **OPTIONS}
    options["teachers"] = [_teacher(tmp_path / "teacher.safetensors")]
    stages: list[str] = []
    distill(**options, progress=lambda stage, _done, _total: stages.append(stage))
    assert "running the teacher" in stages
    stages.clear()
    distill(**options, resume=True, progress=lambda stage, _done, _total: stages.append(stage))
    assert "running the teacher" not in stages
    kept = tmp_path / "run" / TARGETS_NAME
    kept.write_bytes(kept.read_bytes()[:-4])
    distill(**options, resume=True, progress=lambda stage, _done, _total: stages.append(stage))
    assert "running the teacher" in stages, "a damaged file is replaced"
