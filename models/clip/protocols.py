"""The four tasks of the paper (arXiv 2507.14976, section 4), few-shot sampling, and base and novel classes.

The sampling is that of the benchmarks of prompt learning (arXiv 2109.01134, 2203.05557).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.classifier import prompted_classifier, zero_shot_classifier
from edgekit.models.clip.descriptions import Describe
from edgekit.models.clip.hicropl import PRESETS, PromptConfig, PromptedClip
from edgekit.models.clip.load import description_tokens
from edgekit.models.clip.options import TRANSFER_TASKS, TaskName
from edgekit.models.data import DataSet, ImageSet, chosen_split, held_back, usual_split
from edgekit.models.data.groups import shared_groups
from edgekit.models.data.merging import renumbered
from edgekit.models.data.readers import Groups, Labels, Selection
from edgekit.models.evaluation.evaluate import TorchClassifier, aligned, evaluate
from edgekit.preprocess import FloatArray
from edgekit.text import one_line

# Reads a data set: `load_dataset` with some arguments set.
Read = Callable[..., DataSet]
# The splits of a sampled data set.
TRAIN, VALIDATION, TEST = "train", "val", "test"
# Validation images per class: as many as shots, but at most four, as in CoOp.
MAX_VALIDATION_SHOTS = 4


@dataclass(frozen=True)
class TaskData:
    """A data set with the splits "train" and "val", the classes to train on, and the test images.

    `validation_name` is a short description of the images in "val".
    """

    dataset: DataSet
    trained: tuple[str, ...]
    validation_name: str
    test: ImageSet

    @property
    def novel(self) -> tuple[str, ...]:
        """The classes that are not trained on; they follow those of `trained`."""
        return self.dataset.classes[len(self.trained) :]

    @property
    def training(self) -> ImageSet:
        """Training images; their labels are indices into `trained`."""
        return of_classes(self.dataset.split(TRAIN), range(len(self.trained)))

    @property
    def validation(self) -> ImageSet:
        """Validation images; their labels are indices into `trained`."""
        return of_classes(self.dataset.split(VALIDATION), range(len(self.trained)))


@dataclass(frozen=True)
class Target:
    """Another data set to evaluate on: its name, classes in label order, and the name and images of its test split."""

    name: str
    classes: tuple[str, ...]
    split: str
    images: ImageSet


@dataclass(frozen=True)
class Score:
    """Accuracies 0..1 on one set of images: with trained prompts, and zero-shot."""

    name: str
    accuracy: float
    zero_shot_accuracy: float
    images: int


@dataclass(frozen=True)
class TaskResult:
    """Scores of a task, and a summary: accuracies 0..1 by name."""

    task: TaskName
    scores: tuple[Score, ...]
    summary: Mapping[str, float]

    def document(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        scores = [asdict(score) for score in self.scores]
        return {"task": self.task, "scores": scores, "summary": dict(self.summary)}


def preset_of(task: TaskName) -> PromptConfig:
    """Return the paper's hyper-parameters of a task."""
    return PRESETS["cross-dataset" if task in TRANSFER_TASKS else "few-shot"]


def epochs_of(task: TaskName) -> int:
    """Return the number of epochs of a task: the paper's 50, or 5 for transfer."""
    return 5 if task in TRANSFER_TASKS else 50


def load_task_data(
    path: Path,
    task: TaskName,
    size_px: int,
    shots: int,
    seed: int,
    splits: Splits,
    read: Read,
    notify: Notify = ignore_message,
) -> TaskData:
    """Return a task's images: `shots` training images per class, and the whole test split.

    `read` is `load_dataset` with further arguments; only the sampled images are decoded. For the validation images see
    `few_shot`.

    Raises:
        InputError: The data is invalid, has no such split, or has too few images or classes for the task; or a person
            is in the training and in the test split.
    """
    # For "train", "val" and "test": the split of the data that it is sampled from, and the indices of its images.
    sampled: dict[str, tuple[str, NDArray[np.int64]]] = {}

    def select(labels: Labels, classes: tuple[str, ...], groups: Groups) -> Selection:
        """Sample the images, and keep the selection in `sampled`."""
        sampled.update(few_shot(labels, _trained_classes(task, classes), shots, seed, splits, notify, groups))
        return sampled

    found = read(path, size_px, select=select)  # calls `select` before the images are decoded
    test = found.split(TEST)
    dataset = DataSet(found.name, found.classes, {name: found.split(name) for name in (TRAIN, VALIDATION)})
    has_test_split = sampled[TEST] is not sampled[VALIDATION]  # without one, they are the same selection
    if has_test_split:
        require_persons_apart(dataset.split(TRAIN), test)
    train_source, validation_source = sampled[TRAIN][0], sampled[VALIDATION][0]  # splits of the data
    origin = "images held back from" if validation_source == train_source else "a few images of"
    return TaskData(dataset, _trained_classes(task, dataset.classes), f"{origin} {validation_source}", test)


def _trained_classes(task: TaskName, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes that a task trains on: all, or the base classes."""
    return classes[: base_count(len(classes))] if task == "base-to-novel" else classes


def load_target(path: Path, size_px: int, read: Read) -> Target:
    """Return the test split of another data set; if it has only one split, that split.

    Raises:
        InputError: The data is invalid, or has several splits and no test split.
    """

    def only_tests(labels: Labels, _classes: tuple[str, ...], _groups: Groups) -> Selection:
        name = usual_split(labels, "test")
        if name is None and len(labels) == 1:
            (name,) = labels
        if name is None:
            raise InputError(f"data '{path}' has no split named 'test': its splits are {', '.join(labels)}")
        return {name: (name, np.arange(len(labels[name])))}

    found = read(path, size_px, select=only_tests)
    ((split, images),) = found.splits.items()
    return Target(found.name, found.classes, split, images)


def check_evaluation(
    task: TaskName, data: TaskData, targets: Sequence[Target], describe: Describe, clip: ClipConfig
) -> None:
    """Check the classes and the descriptions that `measure` needs, so that errors are reported before the training.

    Raises:
        InputError: A data set for "domain" has a class that `data` lacks, or the descriptions of a data set cannot be
            read or are longer than the context.
    """
    if task == "domain":
        _require_known(targets, data.dataset.classes)
    others = [(each.name, each.classes) for each in targets]
    for dataset, classes in [(data.dataset.name, data.dataset.classes), *others]:
        for name, sentences in describe(classes, dataset=dataset).items():
            description_tokens(name, sentences, clip)  # raises if a sentence is too long


def measure(
    task: TaskName,
    net: PromptedClip,
    data: TaskData,
    describe: Describe,
    targets: Sequence[Target] = (),
    notify: Notify = ignore_message,
) -> TaskResult:
    """Return the accuracies of trained prompts and of the plain CLIP on a task's test images.

    Args:
        task: The task; "base-to-novel" evaluates base classes among base classes and novel among novel classes.
        net: The prompted CLIP with the trained classes.
        data: The data set and its test images.
        describe: Returns the sentences of a data set's classes.
        targets: Other data sets, from `load_target`, each evaluated among its own classes.
        notify: Called before each evaluation with a message that names it.

    Raises:
        InputError: There is no test image of the classes.
    """
    dataset, base_classes = data.dataset, len(data.trained)

    def score(name: str, dataset_name: str, classes: tuple[str, ...], images: ImageSet) -> Score:
        """Evaluate the CLIP as a classifier of `classes`; the labels of `images` are indices into them."""
        notify(f"evaluating on {name}, {len(images)} images")
        classifier = net
        if classes != net.classes:
            classifier = net.with_classes(describe(classes, dataset=dataset_name))
        # Gray as in the training, also for a target: the prompts were trained so.
        return _score(name, classifier, images, dataset.is_gray)

    if task == "base-to-novel":
        # `of_classes` numbers the labels from 0 again.
        base_images = of_classes(data.test, range(base_classes))
        novel_images = of_classes(data.test, range(base_classes, len(dataset.classes)))
        base = score("base", dataset.name, data.trained, base_images)
        novel = score("novel", dataset.name, data.novel, novel_images)
        return TaskResult(task, (base, novel), _base_to_novel_summary(base, novel))
    own = score(dataset.name, dataset.name, dataset.classes, data.test)
    summary = {"accuracy": own.accuracy, "zero_shot_accuracy": own.zero_shot_accuracy}
    others = [score(f"{each.name} {each.split}", each.name, each.classes, each.images) for each in targets]
    if others:
        summary["mean_of_targets"] = sum(each.accuracy for each in others) / len(others)
        summary["zero_shot_mean_of_targets"] = sum(each.zero_shot_accuracy for each in others) / len(others)
    return TaskResult(task, (own, *others), summary)


def _score(name: str, net: PromptedClip, images: ImageSet, gray: bool) -> Score:
    """Return the accuracies of a CLIP with and without prompts on the same images.

    `gray`: the prompts were trained on gray images, so they get gray images. The plain CLIP gets images in colour.
    """
    if not len(images):
        raise InputError(f"there is no test image for '{name}': choose another test split")
    plain_batches: list[FloatArray] = []  # filled by the prompted classifier, which encodes the images for both
    prompted_logits = _logits(prompted_classifier(net, name, gray, plain_batches), images)
    plain_logits = np.concatenate(plain_batches)
    if gray and images.images.shape[-1] == 3:
        # The prompted classifier has converted the images to gray: encode them again, in colour.
        in_colour = zero_shot_classifier(net.clip, net.class_descriptions, name, text=net.frozen_text_features)
        plain_logits = _logits(in_colour, images)
    accuracy = float((prompted_logits.argmax(axis=1) == images.labels).mean())
    zero_shot_accuracy = float((plain_logits.argmax(axis=1) == images.labels).mean())
    return Score(name, accuracy, zero_shot_accuracy, len(images))


def _base_to_novel_summary(base: Score, novel: Score) -> dict[str, float]:
    """Return the paper's figures of base-to-novel: both accuracies and their harmonic mean, also zero-shot."""
    return {
        "base": base.accuracy,
        "novel": novel.accuracy,
        "harmonic_mean": harmonic_mean((base.accuracy, novel.accuracy)),
        "zero_shot_base": base.zero_shot_accuracy,
        "zero_shot_novel": novel.zero_shot_accuracy,
        "zero_shot_harmonic_mean": harmonic_mean((base.zero_shot_accuracy, novel.zero_shot_accuracy)),
    }


def _logits(classifier: TorchClassifier, images: ImageSet) -> FloatArray:
    """Return the logits (N, classes) of a classifier for images."""
    contract = classifier.contract
    # The labels are already the contract's; this converts the images to gray where the contract requires it.
    converted = aligned(DataSet("", contract.labels, {}), images, contract)
    return evaluate(classifier, converted, "center-crop").logits


def _require_known(targets: Sequence[Target], classes: Sequence[str]) -> None:
    """Check that the data sets of the task "domain" have no other classes than the training data."""
    known = set(classes)
    for target in targets:
        if unknown := [name for name in target.classes if name not in known]:
            raise InputError(
                f"data set '{target.name}' has the class '{unknown[0]}', which the training data does not have: "
                "task 'domain' needs copies of the trained classes, task 'cross-dataset' takes others"
            )


@dataclass(frozen=True)
class Splits:
    """Names of splits; None: one of the usual names. A usual name can stand for another, see `named_split`."""

    train: str | None = None
    validation: str | None = None
    test: str | None = None


def base_count(classes: int) -> int:
    """Return the number of base classes, which are the first ones: half of all classes, rounded up.

    Raises:
        InputError: There would be fewer than two base or novel classes.
    """
    if classes < 4:
        raise InputError(f"base-to-novel needs at least 2 base and 2 novel classes: the data has {classes} in total")
    return (classes + 1) // 2


def few_shot(
    labels: Labels,
    classes: Sequence[str],
    shots: int,
    seed: int,
    splits: Splits,
    notify: Notify = ignore_message,
    groups: Groups | None = None,
) -> Selection:
    """Return a selection of training, validation and test images.

    A class with fewer images than shots gives all its images. With the same seed, the images of fewer shots are a
    subset of those of more shots.

    The validation images come from the validation split, if there is one. Otherwise they come from the training split:
    from groups that are held back from training, or, if its groups are not known, from the images after the shots.
    Without a test split, the test selection is the validation selection itself.

    Args:
        labels: The labels of each split.
        classes: The classes to sample; their labels are 0 to len(classes) - 1.
        shots: Training images per class.
        seed: Seed of the sampling.
        splits: The splits to sample from.
        notify: Called with one message that names the classes with fewer images than shots, if there are any.
        groups: The group of each image of each split, such as a person; None: not known.

    Returns:
        For "train", "val" and "test": the split of the data, and the indices of its images. "test" has all images of
        all classes.

    Raises:
        InputError: A split does not exist, a class has no training image, or no image or group is left for validation.
    """
    train, validation = _training_and_validation_split(labels, splits)
    # Mask of the images in the training split that are held back; None without groups, or with a validation split.
    is_held_back = None if validation else _held_back_groups(labels, groups or {}, train, len(classes), seed)
    generator = np.random.default_rng(seed)
    training_indices, validation_indices, short = [], [], []
    for label, name in enumerate(classes):
        # Indices of all images of the class, in random order.
        members = generator.permutation(np.flatnonzero(labels[train] == label))
        if validation is not None:
            for_training = members
            for_validation = generator.permutation(np.flatnonzero(labels[validation] == label))
        elif is_held_back is not None:
            for_training, for_validation = members[~is_held_back[members]], members[is_held_back[members]]
        else:  # the training images are the first `shots` of the members, see below
            for_training, for_validation = members, members[shots:]
        if not len(for_training):
            raise InputError(f"class '{name}' has no image in split '{train}'")
        if len(for_training) < shots:
            short.append(f"{name} ({len(for_training)})")
        training_indices.append(for_training[:shots])
        validation_indices.append(for_validation[: min(shots, MAX_VALIDATION_SHOTS)])
    if short:
        notify(one_line(f"classes with fewer images than {shots} shots give all they have: {', '.join(short)}"))

    training_selection = (train, np.sort(np.concatenate(training_indices)))
    validation_selection = (validation or train, np.sort(np.concatenate(validation_indices)))
    if not len(validation_selection[1]):
        raise InputError(f"split '{train}' has no image left for validation: use fewer shots or add a split 'val'")
    test_selection = _test_selection(labels, splits, validation_selection)
    return {TRAIN: training_selection, VALIDATION: validation_selection, TEST: test_selection}


def _training_and_validation_split(labels: Labels, splits: Splits) -> tuple[str, str | None]:
    """Return the names of the two splits; None as the second: the training split has the validation images, too."""
    train = chosen_split("the data", labels, splits.train, "train")
    validation = splits.validation or usual_split(labels, "val")
    if validation is not None:
        validation = chosen_split("the data", labels, validation, "val")
    if validation == train:
        raise InputError(f"split '{train}' cannot be training and validation split: choose another validation split")
    return train, validation


def _held_back_groups(labels: Labels, groups: Groups, train: str, classes: int, seed: int) -> NDArray[np.bool_] | None:
    """Return a mask of the training images whose groups are held back for validation; None: the groups are not known.

    The mask does not depend on the number of shots. Images of other than the first `classes` classes are not used.
    """
    known = groups.get(train)
    if known is None:
        return None
    used = labels[train] < classes
    mask = np.zeros(len(used), bool)
    mask[used] = held_back(train, labels[train][used], known[used], seed)
    return mask


def of_classes(part: ImageSet, labels: Sequence[int]) -> ImageSet:
    """Return the images with these labels, renumbered from 0 in the given order; see `renumbered`."""
    # The new number of each old label; images with -1 are removed.
    numbers = np.full(max(*labels, part.labels.max(initial=0)) + 1, -1, np.int64)
    numbers[list(labels)] = np.arange(len(labels))
    return renumbered(part, numbers)


def require_persons_apart(training: ImageSet, test: ImageSet) -> None:
    """Check that no person, or other group of images, is both in the training and in the test images.

    Raises:
        InputError: There is such a group.
    """
    if shared := shared_groups(training.groups, test.groups):
        raise InputError(
            f"'{shared[0]}' is in the training and in the test images, as are {len(shared) - 1} other persons or "
            "groups: keep each in one split"
        )


def _test_selection(
    labels: Labels, splits: Splits, validation: tuple[str, NDArray[np.int64]]
) -> tuple[str, NDArray[np.int64]]:
    """Return the test split and the indices of all its images; without a test split, the validation selection."""
    name = splits.test or usual_split(labels, "test")
    if name is None:
        return validation
    name = chosen_split("the data", labels, name, "test")  # raises if the split does not exist
    return name, np.arange(len(labels[name]))
