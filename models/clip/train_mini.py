"""Pretrain a small CLIP on labelled images, so that prompts can be trained without a download.

result = train_mini(data="fer2013.tar.gz", output="runs/mini", precision="bf16")
clip = load_clip(result.checkpoint)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.model_store import CHECKPOINT_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.callbacks import of_stage
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.clip.mini import CLIP_MINI, MiniClipTask, TeacherTargets, hybrid_config
from edgekit.models.clip.options import MiniClipOptions
from edgekit.models.clip.trunk import read_trunk
from edgekit.models.clip.vote_captions import Contents, contents_of
from edgekit.models.data.ferplus import vote_counts
from edgekit.models.data.few_shot import of_classes, report_known, without_classes
from edgekit.models.evaluation.evaluate import CropClassifier, evaluate, open_classifier, with_contract_channels
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.loop import check_output
from edgekit.models.training.run import (
    TrainingData,
    TrainingResult,
    check_training_images,
    make_job,
    read_training_data,
    recipe_of,
    run_training,
)
from edgekit.options import takes
from edgekit.preprocess import FloatArray, softmax


@takes(MiniClipOptions)
def train_mini(options: MiniClipOptions) -> TrainingResult:
    """Train a small CLIP and save the weights of the epoch with the highest zero-shot validation accuracy.

    The output folder receives the files of `edgekit.train`; `load_clip` reads `best.safetensors`.

    Raises:
        InputError: An option, the data or the descriptions are invalid, or the output folder contains another
            training.
        StorageError: The disk is full or read-only.
    """
    notify, recipe = options.notify, recipe_of(options)
    set_torch_threads(options.threads)
    check_output(options.output, options.resume)
    trunk = None if options.trunk is None else read_trunk(resolve_model(options.trunk, (CHECKPOINT_SUFFIX,)))
    teachers = [resolve_model(name, (CHECKPOINT_SUFFIX, ONNX_SUFFIX)) for name in options.teacher]
    whole = read_training_data(options)
    data = _without(whole, options.leave_out)
    if options.leave_out:
        notify(f"classes left out, with their images and captions: {', '.join(options.leave_out)}")
        if trunk is not None:
            report_known(f"trunk '{options.trunk}'", trunk.labels, options.leave_out, notify)
    check_training_images(data, notify)
    dataset = data.dataset
    task = MiniClipTask(
        CLIP_MINI if trunk is None else hybrid_config(trunk.architecture),
        dataset.classes,
        descriptions_for(dataset.classes, options.descriptions, notify, dataset=dataset.name),
        recipe,
        data.training,
        data.validation,
        dataset.name,
        trunk=trunk,
        contents=_contents(options, whole, data),
        teacher=_teacher_targets(teachers, data, options),
    )
    precision = "fp32" if options.precision == "auto" else options.precision
    votes = None if options.ferplus is None else sha256_of(options.ferplus)
    job = make_job(options, data, task, recipe, precision, left_out=tuple(options.leave_out), ferplus_sha256=votes)
    return run_training(job, options, data)


def _contents(options: MiniClipOptions, whole: TrainingData, data: TrainingData) -> Contents | None:
    """Return what the captions of the training images state, or None for captions of the classes.

    `whole` is the data with all classes, `data` the data to train on.
    """
    if options.ferplus is None:
        return None
    name = whole.training_name
    if name is None or len(whole.training) != len(whole.dataset.split(name)):
        raise InputError("captions of votes need a validation split beside the training split: use FER-2013's")
    votes = vote_counts(whole.dataset, options.ferplus, name)[name]
    kept = [whole.dataset.classes.index(each) for each in data.dataset.classes]
    votes = votes[np.isin(whole.training.labels, kept)]
    return contents_of(data.dataset.classes, data.training.labels, votes, data.training.images)


def _teacher_targets(paths: Sequence[Path], data: TrainingData, options: MiniClipOptions) -> TeacherTargets | None:
    """Return the mean probabilities of the teachers for the training images and their mirror images."""
    notify = options.notify
    if not paths:
        return None
    classifiers = {path: _with_classes(open_classifier(path), path, data.dataset.classes) for path in paths}
    for path, (classifier, _) in classifiers.items():
        report_known(f"teacher '{path}'", classifier.contract.labels, options.leave_out, notify)
    mirrored = replace(data.training, images=data.training.images[:, :, ::-1])
    found = {}
    for path, (classifier, chosen) in classifiers.items():
        notify(f"teacher {path.name} classifies {len(mirrored)} training images and their mirror images")
        views = []
        for part, what in ((data.training, "images"), (mirrored, "mirror images")):
            report = of_stage(options.progress, f"teacher {path.name}: {what}")
            result = evaluate(classifier, with_contract_channels(part, classifier.contract), "center-crop", report)
            views.append(softmax(result.logits[:, chosen]))
        agreement = (views[0].argmax(1) == data.training.labels).mean()
        notify(f"teacher {path.name} agrees with {agreement:.2%} of the training labels")
        found[path] = np.stack(views).mean(axis=0, dtype=np.float32)
    probabilities: FloatArray = np.stack([found[path] for path in paths]).mean(axis=0, dtype=np.float32)
    digest = sha256(" ".join(sha256_of(path) for path in paths).encode()).hexdigest()
    return TeacherTargets(probabilities, digest)


def _with_classes(teacher: CropClassifier, path: Path, classes: Sequence[str]) -> tuple[CropClassifier, list[int]]:
    """Return the teacher in a file and the indices of the data's classes among its labels.

    Raises:
        InputError: The teacher lacks one of the classes.
    """
    labels = teacher.contract.labels
    missing = [name for name in classes if name not in labels]
    if missing:
        raise InputError(f"teacher '{path}' lacks the data's class '{missing[0]}': its labels are {', '.join(labels)}")
    return teacher, [labels.index(name) for name in classes]


def _without(data: TrainingData, left_out: Sequence[str]) -> TrainingData:
    rest = without_classes(data.dataset, left_out)
    kept = [data.dataset.classes.index(name) for name in rest.classes]
    return replace(
        data, dataset=rest, training=of_classes(data.training, kept), validation=of_classes(data.validation, kept)
    )
