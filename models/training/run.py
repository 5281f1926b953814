"""Steps that all trainings share: recipe, data, initial weights, provenance, and the run itself.

`edgekit.models.train`, the training of prompts and distillation are built from these functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edgekit import __version__
from edgekit.contract import Fit
from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.model_store import BEST_NAME
from edgekit.models.callbacks import Notify, ignore_message, of_stage
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.data import DataSet, ImageSet, check_classes, identical_to, near_copies, train_and_validation
from edgekit.models.data.fer2013 import SIDE_PX
from edgekit.models.data.ferplus import majority_part, with_ferplus
from edgekit.models.data.groups import shared_groups
from edgekit.models.data.merging import merged
from edgekit.models.data.readers import load_dataset
from edgekit.models.training.init_weights import InitialWeights
from edgekit.models.training.loop import CURVES_NAME, STATE_NAME, EpochReport, saved_report, train_job
from edgekit.models.training.machine import choose_precision, is_first_process
from edgekit.models.training.options import EQUAL_WEIGHT, NetOptions, Precision, TrainingOptions
from edgekit.models.training.recipes import FROM_TRAINED, Recipe, get_recipe
from edgekit.models.training.record import TrainingRecord, state_fingerprint
from edgekit.models.training.task import MIN_CALIBRATION_IMAGES, NetTask, Task, TrainingJob
from edgekit.text import counted

# Share of the held-back images that are nearly equal to a training image.
_MOST_NEAR_COPIES = 0.3


@dataclass(frozen=True)
class TrainingData:
    """A data set with its training and validation images; the names describe where these come from.

    `training_name` is None where `dataset` contains sampled images only. `calibration` are the images that the
    temperature is fitted on. If the training targets are mostly FER+ votes, their labels are the majorities of the
    votes, because the temperature for the data's own labels would be too high.
    """

    dataset: DataSet
    training: ImageSet
    validation: ImageSet
    validation_name: str
    training_name: str | None = None
    calibration: ImageSet | None = None


@dataclass(frozen=True)
class TrainingResult:
    """A finished training: paths of the checkpoint and the learning curves, and the reports of all epochs.

    `best` is the report of the epoch whose weights are in the checkpoint: the one with the highest validation accuracy,
    or the last one if the recipe keeps the last. `validation_name` describes the validation images. The logits are
    divided by `temperature` (1: not calibrated). `stopped_early` is whether the recipe's patience ended the
    training before its number of epochs.
    """

    checkpoint: Path
    curves: Path
    best: EpochReport
    history: tuple[EpochReport, ...]
    validation_name: str
    temperature: float = 1.0
    stopped_early: bool = False

    @property
    def best_epoch(self) -> int:
        """Number of the epoch whose weights are in the checkpoint, counted from 1."""
        return self.best.epoch

    @property
    def validation_accuracy(self) -> float:
        """Validation accuracy of the weights in the checkpoint, 0..1."""
        return self.best.validation_accuracy

    def document(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {
            "checkpoint": str(self.checkpoint),
            "best": asdict(self.best),
            "validation": self.validation_name,
            "temperature": self.temperature,
            "stopped_early": self.stopped_early,
            "epochs": [asdict(report) for report in self.history],
        }


def net_recipe_of(
    options: NetOptions, initial: InitialWeights | None = None, notify: Notify = ignore_message
) -> Recipe:
    """Return the recipe of a net; see `recipe_of`.

    `adapt` becomes `adapt-new-classes` where the initial weights lack some of the classes.

    Raises:
        InputError: The recipe is not known or is one of CLIPs, or needs initial weights and there are none.
    """
    if options.recipe.startswith(("hicropl", "clip-mini")):
        raise InputError(f"recipe '{options.recipe}' is not for nets: use train-prompts or train-clip")
    if options.recipe in FROM_TRAINED and options.init is None:
        raise InputError(f"recipe '{options.recipe}' starts from a trained model: add --init default, or another model")
    if options.recipe == "adapt" and initial is not None and initial.new_classes:
        notify("the initial weights lack some of the classes: the recipe is adapt-new-classes, all layers learn")
        options = replace(options, recipe="adapt-new-classes")
    return recipe_of(options)


def recipe_of(options: TrainingOptions) -> Recipe:
    """Return the named recipe; number of epochs, batch size and learning rate are the options', if they are given.

    Raises:
        InputError: The recipe is not known.
    """
    recipe = get_recipe(options.recipe)
    return replace(
        recipe,
        epochs=options.epochs or recipe.epochs,
        batch_size=options.batch_size or recipe.batch_size,
        max_lr=options.max_lr or recipe.max_lr,
    )


def read_training_data(
    options: TrainingOptions, merges: Sequence[str] = (), size_px: int = SIDE_PX, fit: Fit = "square"
) -> TrainingData:
    """Read the data set, apply FER+ votes and merged classes, and split it into training and validation images.

    Raises:
        InputError: The data, the votes, a merge or a split is invalid, or the data has one class only.
    """
    dataset = load_dataset(
        options.data,
        size_px,
        of_stage(options.progress, "reading images"),
        contempt=options.contempt,
        notify=options.notify,
        fit=fit,
        cache_folder=options.output,  # for pixels that do not fit in memory
    )
    if isinstance(options, NetOptions) and options.ferplus:
        mode, train = options.ferplus_labels, options.train_split
        dataset = with_ferplus(dataset, options.ferplus, mode, train, options.notify, options.label_weight)
    unmerged = dataset  # FER+ votes are for FER-2013's own classes
    dataset = merged(unmerged, merges, options.notify)
    if len(dataset.classes) < 2:
        raise InputError(f"data '{options.data}' has one class only, '{dataset.classes[0]}': training needs two")
    training, validation, validation_name = train_and_validation(dataset, options.train_split, options.val_split)
    training_name = dataset.chosen_split(options.train_split, "train")
    calibration = _calibration_images(options, unmerged, validation_name, merges, validation)
    return TrainingData(dataset, training, validation, validation_name, training_name, calibration)


def _calibration_images(
    options: TrainingOptions, unmerged: DataSet, validation_name: str, merges: Sequence[str], validation: ImageSet
) -> ImageSet:
    """Return `TrainingData.calibration`: the validation images, with their labels or the majorities of FER+ votes.

    The training targets decide how confident the net is. If they are mostly votes, the majorities are used.

    `unmerged` is the data with its own classes. `validation_name` is a split, or describes held-back images.
    """
    if not isinstance(options, NetOptions) or options.ferplus is None or not options.calibrate:
        return validation
    # The targets are mostly labels. With `ferplus_labels` "majority", whose weight is EQUAL_WEIGHT, the labels of the
    # validation images are majorities already.
    if options.label_weight >= EQUAL_WEIGHT:
        return validation
    if validation_name not in unmerged.splits:
        options.notify("the calibration uses the labels of the held-back images, not their votes")
        return validation
    try:
        return majority_part(unmerged, options.ferplus, validation_name, merges)
    except InputError as error:
        options.notify(f"the calibration uses the labels of {validation_name}, not votes: {error}")
        return validation


def check_training_images(data: TrainingData, notify: Notify) -> None:
    """Check the images of each class; report classes without validation images, and images in both parts.

    Raises:
        InputError: A class has no training image, or its images are all identical.
    """
    check_classes(data.training, data.dataset.classes)
    unmeasured = set(range(len(data.dataset.classes))) - set(data.validation.labels.tolist())
    if unmeasured:
        missing = ", ".join(data.dataset.classes[label] for label in sorted(unmeasured))
        notify(
            f"validation images ({data.validation_name}) have no image of class {missing}: "
            "their accuracy does not count these classes"
        )
    _report_overlap(data, notify)


def _report_overlap(data: TrainingData, notify: Notify) -> None:
    """Report validation images that are nearly or exactly training images, or belong to the same persons."""
    training, validation = data.training, data.validation
    is_held_back = data.validation_name not in data.dataset.splits
    if is_held_back and training.groups is None:  # held back image by image
        share = near_copies(training.images, validation.images)
        if share > _MOST_NEAR_COPIES:
            notify(
                f"warning: {share:.0%} of the held-back images are nearly equal to a training image, as pictures of "
                "one recording are: their accuracy is too high; add a split 'val' with pictures of another day or place"
            )
    if shared := shared_groups(training.groups, validation.groups):
        found = counted(len(shared), "person or group", "persons or groups")
        notify(f"{found} in both training and validation images, such as '{shared[0]}': the accuracy is too high")
    is_leaked = identical_to(training.images, validation.images)
    if is_leaked.any():
        example = "" if training.names is None else f", such as {training.names[is_leaked.argmax()]}"  # the first one
        notify(f"{is_leaked.sum()} training images are validation images too{example}: their accuracy is too high")


def precision_for(options: TrainingOptions, architecture: str) -> Precision:
    """Return the options' precision; for "auto" the one of the training to resume, or `choose_precision`'s.

    Raises:
        InputError: The state to resume from is damaged.
    """
    if options.precision != "auto":
        return options.precision
    state = options.output / STATE_NAME
    if options.resume and state.exists() and (recorded := state_fingerprint(state).get("precision")):
        return recorded  # type: ignore[no-any-return] # edgekit wrote the file
    # `choose_precision` compares the precisions of CPUs only.
    precision = "fp32" if options.accelerator != "cpu" and torch.cuda.is_available() else choose_precision(architecture)
    options.notify(f"precision {precision}")
    return precision


def make_job(
    options: TrainingOptions, data: TrainingData, task: Task, recipe: Recipe, precision: Precision, /, **record: Any
) -> TrainingJob:
    """Return the training job of a task; `record` are further fields of its `TrainingRecord`.

    The arguments before them are positional, because fields of the record have the same names, such as `task`.
    """
    if isinstance(options, NetOptions) and options.ferplus:
        record["ferplus"] = options.ferplus_labels
        record["ferplus_sha256"] = sha256_of(options.ferplus)
        record["label_weight"] = options.label_weight if options.ferplus_labels == "mixed" else None
    training_record = TrainingRecord(
        recipe_name=options.recipe,
        recipe=asdict(recipe),
        seed=options.seed,
        precision=precision,
        data_name=data.dataset.name,
        data_sha256=data.dataset.checksum(),
        training_split=data.training_name,
        validation=data.validation_name,
        edgekit_version=__version__,
        torch_version=torch.__version__,
        threads=torch.get_num_threads(),
        settings=task.fingerprint(),
        **record,
    )
    return TrainingJob(task, recipe, training_record, options.accelerator)


def run_training(job: TrainingJob, options: TrainingOptions, data: TrainingData) -> TrainingResult:
    """Train a job and return its result; see `edgekit.models.training.loop.train_job` for the files it writes.

    Raises:
        InputError: As for `train_job`.
        StorageError: The disk is full or read-only.
    """
    recipe, notify = job.recipe, options.notify
    purpose = "choose the best epoch" if recipe.keep == "best" else "validate"
    notify(f"{len(data.training)} training images, {len(data.validation)} images to {purpose} ({data.validation_name})")
    early = f" at most, fewer if {recipe.patience} in a row are not better" if recipe.patience else ""
    notify(f"{recipe.epochs} epoch{'s' * (recipe.epochs > 1)}{early}, batch size {recipe.batch_size}")
    if options.resume and not (options.output / STATE_NAME).exists():
        notify(f"'{options.output}' contains no training to resume, so a new one starts")
    history = train_job(job, options.output, options.resume, options.on_step, options.on_epoch)
    best = saved_report(history, recipe.keep)
    stopped_early = len(history) < recipe.epochs
    if stopped_early:
        notify(
            f"stopped early, after {len(history)} of {recipe.epochs} epochs: none of the last {recipe.patience} was "
            f"better on {data.validation_name}"
        )
    checkpoint, curves = options.output / BEST_NAME, options.output / CURVES_NAME
    notify(f"{recipe.keep} epoch {best.epoch}: {best.validation_accuracy:.2%} on {data.validation_name}: {checkpoint}")
    return TrainingResult(checkpoint, curves, best, tuple(history), data.validation_name, stopped_early=stopped_early)


def train_net(
    options: NetOptions, data: TrainingData, task: NetTask, recipe: Recipe, /, **record: Any
) -> TrainingResult:
    """Train a net, return the result with the temperature in its checkpoint, and report the calibration.

    `record` are further fields of the `TrainingRecord`. The arguments before them are positional, because fields of the
    record have the same names.

    Raises:
        InputError: As for `train_job`.
        StorageError: The disk is full or read-only.
    """
    precision = precision_for(options, task.contract.architecture)
    result = run_training(make_job(options, data, task, recipe, precision, **record), options, data)
    if not is_first_process():
        return result  # another process writes the checkpoint
    checkpoint = load_checkpoint(result.checkpoint)
    found = TrainingRecord.read(checkpoint.training).calibration
    if found is not None:
        errors = f"calibration error {found.error_before:.3f} before, {found.error_after:.3f} after"
        options.notify(f"calibrated with temperature {found.temperature:.3f}: {errors}")
    elif options.calibrate:
        images = data.calibration or data.validation
        options.notify(f"not calibrated: {_why_not_calibrated(len(images), result.validation_accuracy)}")
    return replace(result, temperature=checkpoint.contract.temperature)


def _why_not_calibrated(images: int, accuracy: float) -> str:
    """Return which condition of `edgekit.models.training.task.calibrated` a training does not meet."""
    if images < MIN_CALIBRATION_IMAGES:
        return f"{counted(images, 'validation image')}, at least {MIN_CALIBRATION_IMAGES} are needed"
    if accuracy in (0, 1):
        return f"{'all' if accuracy else 'none'} of the validation images are classified correctly"
    return "the net's last layer is not linear"
