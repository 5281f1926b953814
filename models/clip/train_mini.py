"""Pretrain a small CLIP on labelled images, so that prompts can be trained without a download.

result = train_mini(data="fer2013.tar.gz", output="runs/mini", precision="bf16")
clip = load_clip(result.checkpoint)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekit.contract import Fit
from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.model_store import CHECKPOINT_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.callbacks import Notify, StageProgress, ignore_message, of_stage
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.clip.mini import CLIP_MINI, MiniClipTask, TeacherTargets, hybrid_config
from edgekit.models.clip.trunk import TRUNKS, read_trunk
from edgekit.models.clip.vote_captions import Contents, contents_of
from edgekit.models.data.ferplus import vote_counts
from edgekit.models.data.few_shot import of_classes, report_known, without_classes
from edgekit.models.evaluation.evaluate import CropClassifier, evaluate, open_classifier, with_contract_channels
from edgekit.models.model_loading import contract_for
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.classification import ClassificationTask
from edgekit.models.training.loop import EpochCallback, StepCallback, check_output
from edgekit.models.training.options import TrainingOptions, options_from, refuse_fields, require_choice
from edgekit.models.training.recipes import DEFAULT_RECIPE
from edgekit.models.training.run import (
    TrainingData,
    TrainingResult,
    check_training_images,
    make_job,
    read_training_data,
    recipe_of,
    run_training,
    with_precision,
)
from edgekit.preprocess import FloatArray, softmax

Captions = Literal["classic", "votes"]
# Folder in the output folder for a trunk that is trained first.
TRUNK_FOLDER = "trunk"
_DEFAULT_LAYERS, _MAX_LAYERS = 4, 12
_MAX_TEACHER_WEIGHT = 100


@dataclass(frozen=True, kw_only=True)
class MiniClipOptions(TrainingOptions):
    """Options of `train_mini`; see `TrainingOptions` for those that all trainings share.

    - `descriptions`: JSON file of sentences per class for the zero-shot validation; default: the shipped ones.
    - `leave_out`: classes to train without; neither their images nor captions that name them are used.
    - `trunk`: model (name, checkpoint or folder of a training) whose trunk embeds the patches; or one of the
      architectures `TRUNKS`, which is trained first, on the same images, into the folder `trunk` of `output`; None: a
      plain ViT.
    - `trunk_epochs`: number of epochs of a trunk that is trained first; default: that of the recipe `fer2013`.
    - `layers`: layers of each tower above a trunk, by default 4.
    - `captions`: "classic" names the class with random traits; "votes" states the shares of the FER+ votes
      (`ferplus`) and what the picture shows; see `vote_captions`.
    - `teacher`: models whose mean class probabilities the CLIP learns through the descriptions; a model that is given
      twice has twice the weight. `teacher_weight` is the weight of that loss beside the contrastive one.

    Raises:
        InputError: A value is not allowed, or two options exclude each other.
    """

    recipe: str = ""
    fit: Fit = "square"
    descriptions: str | Path | None = None
    leave_out: Sequence[str] = ()
    trunk: str | None = None
    trunk_epochs: int | None = None
    layers: int | None = None
    captions: Captions = "classic"
    teacher: Sequence[str] = ()
    teacher_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("captions", self.captions, Captions)
        if not self.recipe:
            object.__setattr__(self, "recipe", "clip-mini" if self.trunk is None else "clip-mini-trunk")
        if self.init:
            raise InputError("a small CLIP is trained from random weights: leave init out")
        refuse_fields(self, ("fit", "mixup_alpha", "sam_radius", "prior_strength"), "a small CLIP")
        if self.captions == "votes":
            if self.ferplus is None:
                raise InputError("captions 'votes' are made from FER+ votes: give ferplus")
            refuse_fields(self, ("ferplus_labels", "label_weight"), "captions 'votes', which keep the labels")
        if not self.teacher:
            refuse_fields(self, ("teacher_weight",), "a training without teacher")
        if self.trunk_epochs is not None and self.trunk not in TRUNKS:
            raise InputError(f"trunk_epochs is for a trunk that is trained first: give trunk as {' or '.join(TRUNKS)}")
        if self.trunk_epochs is not None and self.trunk_epochs < 1:
            raise InputError(f"trunk_epochs is {self.trunk_epochs}: expected 1 or more")
        if self.layers is not None and self.trunk is None:
            raise InputError("layers is for a CLIP on a trunk: give trunk, or leave layers out")
        if self.layers is not None and not 1 <= self.layers <= _MAX_LAYERS:
            raise InputError(f"layers is {self.layers}: expected 1 to {_MAX_LAYERS}")
        if not 0 < self.teacher_weight <= _MAX_TEACHER_WEIGHT:
            raise InputError(
                f"teacher_weight is {self.teacher_weight}: expected more than 0, at most {_MAX_TEACHER_WEIGHT}"
            )


def train_mini(
    options: MiniClipOptions | None = None,
    *,
    notify: Notify = ignore_message,
    progress: StageProgress | None = None,
    on_step: StepCallback | None = None,
    on_epoch: EpochCallback | None = None,
    **values: Any,
) -> TrainingResult:
    """Train a small CLIP and save the weights of the epoch with the highest zero-shot validation accuracy.

    The output folder receives the files of `edgekit.train`; `load_clip` reads `best.safetensors`.

    Args:
        options: The options; None: made from `values`, which are the fields of `MiniClipOptions`.
        notify: Called with messages for the user.
        progress: Called with (stage, items done, items in total or None) before the first epoch.
        on_step: Called after every optimiser step.
        on_epoch: Called after every epoch.

    Raises:
        InputError: An option, the data or the descriptions are invalid, or the output folder contains another
            training.
        StorageError: The disk is full or read-only.
    """
    options = options_from(MiniClipOptions, options, values)
    recipe = recipe_of(options)
    set_torch_threads(options.threads)
    check_output(options.output, options.resume)
    is_trained_first = options.trunk in TRUNKS
    if is_trained_first:
        check_output(options.output / TRUNK_FOLDER, options.resume)
    trunk = None
    if options.trunk is not None and not is_trained_first:
        trunk = read_trunk(resolve_model(options.trunk, (CHECKPOINT_SUFFIX,)))
    teachers = [resolve_model(name, (CHECKPOINT_SUFFIX, ONNX_SUFFIX)) for name in options.teacher]
    # Captions of votes keep all images and labels; `with_ferplus` removes images without a majority.
    source = replace(options, ferplus=None, captions="classic") if options.captions == "votes" else options
    whole = read_training_data(source, (), notify, progress)
    data = _without(whole, options.leave_out)
    if options.leave_out:
        notify(f"classes left out, with their images and captions: {', '.join(options.leave_out)}")
        if trunk is not None:
            report_known(f"trunk '{options.trunk}'", trunk.labels, options.leave_out, notify)
    check_training_images(data, notify)
    dataset = data.dataset
    path = Path(options.descriptions) if options.descriptions else None
    descriptions = descriptions_for(dataset.classes, path, notify, dataset=dataset.name)
    architecture = options.trunk if trunk is None else trunk.architecture
    config = CLIP_MINI if architecture is None else hybrid_config(architecture, options.layers or _DEFAULT_LAYERS)
    make_task = partial(
        MiniClipTask,
        config,
        dataset.classes,
        descriptions,
        recipe,
        data.training,
        data.validation,
        dataset.name,
        contents=_contents(options, whole, data),
        teacher=_teacher_targets(teachers, options.teacher_weight, data, options.leave_out, notify, progress),
    )
    if is_trained_first:
        make_task()  # reports errors before the training of the trunk
        trunk = read_trunk(_trained_trunk(source, data, notify, on_step, on_epoch))
    task = make_task(trunk=trunk)
    job = make_job(options, data, task, recipe, {"left_out": list(options.leave_out)})
    return run_training(job, options, data, notify, on_step, on_epoch)


def _trained_trunk(
    options: MiniClipOptions,
    data: TrainingData,
    notify: Notify,
    on_step: StepCallback | None,
    on_epoch: EpochCallback | None,
) -> Path:
    """Train the net `options.trunk` on the labels of the images, and return its checkpoint."""
    name, dataset = str(options.trunk), data.dataset
    own = TrainingOptions(
        data=options.data,
        output=options.output / TRUNK_FOLDER,
        recipe=DEFAULT_RECIPE,
        epochs=options.trunk_epochs,
        ferplus=options.ferplus,
        ferplus_labels=options.ferplus_labels,
        label_weight=options.label_weight,
        fit=options.fit,
        seed=options.seed,
        precision=options.precision,
        accelerator=options.accelerator,
        resume=options.resume,
    )
    notify(f"first the trunk, an {name}, is trained: {own.output}")
    contract = contract_for(name, dataset.classes, dataset.name, dataset.is_gray, options.fit)
    recipe = recipe_of(own)
    task = ClassificationTask(contract, recipe, data.training, data.validation)
    precision = with_precision(own, contract, min(recipe.batch_size, len(data.training)), notify)
    job = make_job(own, data, task, recipe, {"left_out": list(options.leave_out)}, precision)
    return run_training(job, own, data, notify, on_step, on_epoch).checkpoint


def _contents(options: MiniClipOptions, whole: TrainingData, data: TrainingData) -> Contents | None:
    """Return what the captions of the training images state, or None for captions of the classes.

    `whole` is the data with all classes, `data` the data to train on.
    """
    if options.captions == "classic" or options.ferplus is None:
        return None
    name = whole.training_name
    if name is None or len(whole.training) != len(whole.dataset.split(name)):
        raise InputError("captions 'votes' need a validation split beside the training split: use FER-2013's")
    votes = vote_counts(whole.dataset, options.ferplus, name)[name]
    kept = [whole.dataset.classes.index(each) for each in data.dataset.classes]
    votes = votes[np.isin(whole.training.labels, kept)]
    return contents_of(data.dataset.classes, data.training.labels, votes, data.training.images)


def _teacher_targets(
    paths: Sequence[Path],
    weight: float,
    data: TrainingData,
    left_out: Sequence[str],
    notify: Notify,
    progress: StageProgress | None,
) -> TeacherTargets | None:
    """Return the mean probabilities of the teachers for the training images and their mirror images.

    A teacher that is given twice counts twice.
    """
    if not paths:
        return None
    classifiers = {path: _with_classes(open_classifier(path), path, data.dataset.classes) for path in paths}
    for path, (classifier, _) in classifiers.items():
        report_known(f"teacher '{path}'", classifier.contract.labels, left_out, notify)
    mirrored = replace(data.training, images=data.training.images[:, :, ::-1])
    found = {}
    for path, (classifier, chosen) in classifiers.items():
        notify(f"teacher {path.name} classifies {len(mirrored)} training images and their mirror images")
        views = []
        for part, what in ((data.training, "images"), (mirrored, "mirror images")):
            report = of_stage(progress, f"teacher {path.name}: {what}")
            result = evaluate(classifier, with_contract_channels(part, classifier.contract), "center-crop", report)
            views.append(softmax(result.logits[:, chosen]))
        agreement = (views[0].argmax(1) == data.training.labels).mean()
        notify(f"teacher {path.name} agrees with {agreement:.2%} of the training labels")
        found[path] = np.stack(views).mean(axis=0, dtype=np.float32)
    probabilities: FloatArray = np.stack([found[path] for path in paths]).mean(axis=0, dtype=np.float32)
    digest = sha256(" ".join(sha256_of(path) for path in paths).encode()).hexdigest()
    return TeacherTargets(probabilities, digest, weight)


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
