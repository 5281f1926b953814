"""An out-of-fold target comes from a teacher that was not trained on the image; all folds must be present."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.contract import CropSpec
from edgekit.errors import InputError
from edgekit.models.callbacks import ignore_message
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.data import DataSet
from edgekit.models.data.folds import fold_numbers, pixel_facts
from edgekit.models.distill.classifiers import classifier_teacher
from edgekit.models.distill.out_of_fold import out_of_fold_targets, teachers_by_fold
from edgekit.models.distill.run import distill
from edgekit.models.distill.teachers import Teacher, TeacherOutputs, ensemble
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import create_model
from edgekit.models.train import train

CROP = CropSpec(0.0, True, (48, 48), (44, 44))


def constant_teacher(number: int, fold: dict[str, int] | None) -> Teacher:
    """Return a teacher whose logits are 5 for class `number` and 0 for all others."""

    def predict(crops: np.ndarray) -> TeacherOutputs:
        return TeacherOutputs(np.tile(np.eye(7, dtype=np.float32)[number] * 5, (len(crops), 1)))

    facts = {} if fold is None else {"fold": fold, "pixels": pixel_facts(CROP)}
    return Teacher("classifier", f"t{number}", tuple("abcdefg"), f"{number}" * 64, predict, facts=facts)


def of_folds(*folds: int, count: int = 3) -> Teacher:
    return ensemble([constant_teacher(number, {"folds": count, "fold": fold}) for number, fold in enumerate(folds)])


@pytest.mark.parametrize("views", ["center-flip", "all-crops"])
def test_each_image_has_the_teacher_that_has_not_seen_it(bars: DataSet, tmp_path: Path, views: Any) -> None:
    training = bars.splits["Training"]
    targets = out_of_fold_targets(
        teachers_by_fold(of_folds(2, 0, 1), CROP), training, views, tmp_path, lambda _done, _total: None, ignore_message
    ).logits
    assert len(targets) == len(training)
    best = targets.reshape(len(training), -1, 7).argmax(axis=-1)
    teacher_of = np.array([1, 2, 0])  # teacher 0 left out fold 2, and so on
    assert (best == teacher_of[fold_numbers(training, 3)][:, np.newaxis]).all()
    assert set(best.flatten()) == {0, 1, 2}


def test_several_teachers_of_a_fold_are_averaged(bars: DataSet, tmp_path: Path) -> None:
    training = bars.splits["Training"]
    targets = out_of_fold_targets(
        teachers_by_fold(of_folds(0, 1, 1, count=2), CROP),
        training,
        "center",
        tmp_path,
        lambda _done, _total: None,
        ignore_message,
    ).logits
    second = targets[fold_numbers(training, 2) == 1]
    assert np.allclose(second[:, 1], second[:, 2])
    assert (second[:, 1] > second[:, 0]).all()


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (
            ({"folds": 3, "fold": 0}, {"folds": 3, "fold": 1}),
            "without fold 2 of 3: add one of --fold 2",
        ),
        (({"folds": 2, "fold": 0}, {"folds": 3, "fold": 1}), "teachers of 2 and of 3 folds do not divide the data"),
        (({"folds": 2, "fold": 0}, None), "teacher 't1' was not trained with --folds"),
        (({"folds": 2, "fold": 7}, {"folds": 2, "fold": 1}), "fold is 7"),
    ],
)
def test_folds_that_do_not_divide_the_data_are_refused(folds: Sequence[dict[str, int] | None], message: str) -> None:
    teacher = ensemble([constant_teacher(number, fold) for number, fold in enumerate(folds)])
    with pytest.raises(InputError, match=message):
        teachers_by_fold(teacher, CROP)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize_hw": (96, 96)}, "with image_size 48, the student with 96"),
        ({"fit": "stretch"}, "with fit square, the student with stretch"),
        ({"grayscale": False}, "with grayscale True, the student with False"),
    ],
)
def test_teachers_of_other_pixels_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        teachers_by_fold(of_folds(0, 1, 2), replace(CROP, **changes))


def test_a_record_of_a_fold_that_is_none_is_ignored(tmp_path: Path) -> None:
    contract = contract_for("mini-xception", ("a", "b"), "noise", gray=True)
    state = create_model("mini-xception", 2).state_dict()
    save_checkpoint(tmp_path / "a.safetensors", Checkpoint(contract, state, {"fold": [1]}))
    teacher = classifier_teacher(tmp_path / "a.safetensors", torch.device("cpu"))
    with pytest.raises(InputError, match="was not trained with --folds"):
        teachers_by_fold(teacher, contract.crop)


def test_trained_folds_teach_a_student(bars: DataSet, bars_folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": bars_folder, "epochs": 1, "batch_size": 28, "accelerator": "cpu"}
    machine = {"precision": "fp32", "threads": 1}
    for fold in range(2):
        notices: list[str] = []
        output = tmp_path / f"fold{fold}"
        train(**options, **machine, model="mini-xception", folds=2, fold=fold, output=output, notify=notices.append)
        assert load_checkpoint(output / "best.safetensors").training["fold"] == {"folds": 2, "fold": fold}
        left_out = int((fold_numbers(bars.splits["Training"], 2) == fold).sum())
        assert f"fold {fold} of 2 is left out: {left_out} of 56 training images" in notices
        assert any(line.startswith(f"{56 - left_out} training images") for line in notices)
    teachers = [str(tmp_path / f"fold{fold}") for fold in range(2)]
    more = {"student": "mini-xception", "out_of_fold": True, "output": tmp_path / "student"}
    distill(**options, **machine, **more, teachers=teachers)
    training = load_checkpoint(tmp_path / "student/best.safetensors").training
    assert training["distillation"]["out_of_fold"] is True
    assert [member["fold"]["fold"] for member in training["teacher"]["members"]] == [0, 1]
    with pytest.raises(InputError, match=r"its fold\.fold was 1, now it is 0"):
        train(**options, **machine, model="mini-xception", folds=2, fold=0, output=tmp_path / "fold1", resume=True)
    with pytest.raises(InputError, match="with fit square, the student with stretch"):
        distill(**options, **(more | {"fit": "stretch", "output": tmp_path / "other"}), teachers=teachers)
    with pytest.raises(InputError, match="out-of-fold cannot be combined with on-the-fly"):
        distill(**options, teachers=teachers, out_of_fold=True, on_the_fly=True, output=tmp_path / "other")
