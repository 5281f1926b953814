"""Distillation targets from teachers that were not trained on the image: each image has those of its fold's teachers.

On its own training images, a teacher is overconfident. Teachers trained with
`edgekit train --folds K --fold N` leave one fold out each; together they have outputs for all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekit.contract import CropSpec
from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, Progress
from edgekit.models.data import ImageSet
from edgekit.models.data.folds import fold_numbers, pixel_facts, read_fold
from edgekit.models.distill.cache import distillation_targets
from edgekit.models.distill.teachers import Teacher, TeacherOutputs, ensemble
from edgekit.models.distill.views import Views


def teachers_by_fold(teacher: Teacher, crop: CropSpec) -> list[Teacher]:
    """Return for each fold the teacher that was trained without it; several of one fold are an ensemble.

    `crop` is that of the student's contract.

    Raises:
        InputError: A teacher has no fold, or was trained on other pixels, which have other folds; the teachers have
            different numbers of folds, or a fold has no teacher.
    """
    members, pixels = teacher.members or (teacher,), pixel_facts(crop)
    folds = []
    for member in members:
        if "fold" not in member.facts:
            raise InputError(f"teacher '{member.name}' was not trained with --folds and --fold: leave out-of-fold out")
        folds.append(read_fold(member.facts["fold"]))
        for name, value in member.facts["pixels"].items():
            if value != pixels[name]:
                raise InputError(
                    f"teacher '{member.name}' was trained with {name} {value}, the student with {pixels[name]}: images "
                    f"of other pixels have other folds, so train the teacher again with {name} {pixels[name]}"
                )
    count = folds[0].folds
    if different := [fold.folds for fold in folds if fold.folds != count]:
        raise InputError(f"teachers of {count} and of {different[0]} folds do not divide the data: choose one number")
    missing = sorted(set(range(count)) - {fold.fold for fold in folds})
    if missing:
        raise InputError(f"no teacher was trained without fold {missing[0]} of {count}: add one of --fold {missing[0]}")
    return [
        ensemble([member for member, fold in zip(members, folds, strict=True) if fold.fold == number])
        for number in range(count)
    ]


def out_of_fold_targets(
    by_fold: Sequence[Teacher],
    training: ImageSet,
    views: Views,
    folder: Path,
    progress: Progress,
    notify: Notify,
) -> TeacherOutputs:
    """Return the targets of each image from the teacher of its fold; see `teachers_by_fold`, `distillation_targets`.

    Raises:
        InputError: As for `distillation_targets`.
        StorageError: The cache cannot be written.
    """
    numbers = fold_numbers(training, len(by_fold))
    logits: dict[int, np.ndarray] = {}
    for number, one in enumerate(by_fold):
        chosen = np.flatnonzero(numbers == number)
        if not len(chosen):
            continue
        targets = distillation_targets(one, training.subset(chosen).images, views, folder, progress, notify)
        notify(f"fold {number}: {len(chosen)} images have the outputs of {one.name}, which was trained without them")
        logits |= dict(zip(chosen.tolist(), targets.logits, strict=True))
    return TeacherOutputs(np.stack([logits[index] for index in range(len(training))]))
