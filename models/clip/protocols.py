"""The tasks of prompt learning (`--task`): four of the paper (arXiv 2507.14976, section 4), and one on all images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, Progress, ignore_message
from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.classifier import ClipClassifier, prompted_classifier, zero_shot_classifier
from edgekit.models.clip.config import PRESETS, PromptConfig
from edgekit.models.clip.descriptions import Describe, template_descriptions
from edgekit.models.clip.frozen import description_tokens
from edgekit.models.clip.options import TRANSFER_TASKS, TaskName
from edgekit.models.clip.prompted import PromptedClip, frozen_classifier
from edgekit.models.data import DataSet, ImageSet, train_and_validation, usual_test_split
from edgekit.models.data.few_shot import (
    TEST,
    TRAIN,
    VALIDATION,
    Splits,
    base_count,
    few_shot,
    of_classes,
    require_persons_apart,
    tested_images,
)
from edgekit.models.data.image_files import ImageFiles, batches, decoded
from edgekit.models.data.readers import Groups, Labels, Selection, is_in_files, list_files, load_dataset
from edgekit.models.evaluation.evaluate import aligned, evaluate
from edgekit.preprocess import FloatArray


@dataclass(frozen=True)
class TaskData:
    """A data set with the splits "train" and "val", the classes to train on, and the test images.

    `validation_name` is a short description of the images in "val".
    """

    dataset: DataSet
    trained: tuple[str, ...]
    validation_name: str
    test: ImageSet | ImageFiles

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
    images: ImageSet | ImageFiles


@dataclass(frozen=True)
class Score:
    """Accuracies 0..1 on one set of images: with trained prompts, and zero-shot.

    The zero-shot accuracies are those of the classes' descriptions, and of CoOp's template for the data set.
    """

    name: str
    accuracy: float
    zero_shot_accuracy: float
    template_accuracy: float
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
    """Return the paper's hyper-parameters of a task; the task "all" uses those of few-shot."""
    return PRESETS["cross-dataset" if task in TRANSFER_TASKS else "few-shot"]


def epochs_of(task: TaskName) -> int:
    """Return the number of epochs of a task: the paper's 50 for few images, 5 for transfer and for all images."""
    return 50 if task in ("few-shot", "base-to-novel") else 5


def load_task_data(
    path: Path,
    task: TaskName,
    size_px: int,
    shots: int,
    seed: int,
    splits: Splits,
    progress: Progress | None = None,
    contempt: str = "drop",
    notify: Notify = ignore_message,
) -> TaskData:
    """Return a task's images: `shots` training images per class (task "all": all images), and the whole test split.

    Only the sampled images are decoded; the test images of a folder stay in their files. For the validation images see
    `few_shot`.

    Raises:
        InputError: The data is invalid, has no such split, or has too few images or classes for the task; or a person
            is in the training and in the test split.
    """
    if task == "all":
        whole = load_dataset(path, size_px, progress, contempt=contempt, notify=notify, fit="clip")
        training, validation, name = train_and_validation(whole, splits.train, splits.validation, seed)
        dataset = DataSet(whole.name, whole.classes, {TRAIN: training, VALIDATION: validation})
        tested = tested_images(whole, validation, splits)
        if tested is not validation:
            require_persons_apart(training, tested)
        return TaskData(dataset, whole.classes, name, tested)

    def trained(classes: tuple[str, ...]) -> tuple[str, ...]:
        return classes[: base_count(len(classes))] if task == "base-to-novel" else classes

    sampled: dict[str, tuple[str, NDArray[np.int64]]] = {}

    def select(labels: Labels, classes: tuple[str, ...], groups: Groups) -> Selection:
        sampled.update(few_shot(labels, trained(classes), shots, seed, splits, notify, groups))
        return sampled

    test: ImageSet | ImageFiles
    if is_in_files(path):
        listed = list_files(path, select, contempt=contempt, notify=notify)
        test = listed.splits[TEST]
        training, validation = decoded([listed.splits[TRAIN], listed.splits[VALIDATION]], size_px, progress)
        dataset = DataSet(listed.name, listed.classes, {TRAIN: training, VALIDATION: validation})
    else:
        read = load_dataset(path, size_px, progress, contempt=contempt, notify=notify, fit="clip", select=select)
        test = read.split(TEST)
        dataset = DataSet(read.name, read.classes, {name: read.split(name) for name in (TRAIN, VALIDATION)})
    if sampled[TEST][0] != sampled[VALIDATION][0]:
        require_persons_apart(dataset.split(TRAIN), test)
    source = sampled[VALIDATION][0]
    name = f"images held back from {source}" if source == sampled[TRAIN][0] else f"a few images of {source}"
    return TaskData(dataset, trained(dataset.classes), name, test)


def load_target(
    path: Path,
    size_px: int,
    progress: Progress | None = None,
    contempt: str = "drop",
    notify: Notify = ignore_message,
) -> Target:
    """Return the test split of another data set; if it has only one split, that split.

    The images of a folder stay in their files.

    Raises:
        InputError: The data is invalid, or has several splits and no test split.
    """

    def only_tests(labels: Labels, classes: tuple[str, ...], groups: Groups) -> Selection:
        del classes, groups
        name = usual_test_split(labels) or (next(iter(labels)) if len(labels) == 1 else None)
        if name is None:
            raise InputError(f"data '{path}' has no split named 'test': its splits are {', '.join(labels)}")
        return {name: (name, np.arange(len(labels[name])))}

    if is_in_files(path):
        listed = list_files(path, only_tests, contempt=contempt, notify=notify)
        ((split, files),) = listed.splits.items()
        return Target(listed.name, listed.classes, split, files)
    read = load_dataset(path, size_px, progress, contempt=contempt, notify=notify, fit="clip", select=only_tests)
    ((split, images),) = read.splits.items()
    return Target(read.name, read.classes, split, images)


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
    scorer = _Scorer(describe, notify, data.dataset.is_gray)
    own, classes = data.dataset.name, data.dataset.classes
    if task == "base-to-novel":
        return _base_to_novel(scorer, net, data)
    scores = [scorer.score(own, own, net, classes, data.test)]
    summary = {"accuracy": scores[0].accuracy, "zero_shot_accuracy": scores[0].zero_shot_accuracy}
    for target in targets:
        scores.append(scorer.score(f"{target.name} {target.split}", target.name, net, target.classes, target.images))
    if targets:
        summary["mean_of_targets"] = sum(score.accuracy for score in scores[1:]) / len(targets)
        summary["zero_shot_mean_of_targets"] = sum(score.zero_shot_accuracy for score in scores[1:]) / len(targets)
    return TaskResult(task, tuple(scores), summary)


class _Scorer:
    """Evaluates a CLIP with and without prompts on the same images; `describe` returns the sentences of classes."""

    def __init__(self, describe: Describe, notify: Notify, gray: bool) -> None:
        self._describe = describe
        self._notify = notify
        self._gray = gray

    def score(
        self, name: str, dataset: str, net: PromptedClip, classes: Sequence[str], images: ImageSet | ImageFiles
    ) -> Score:
        if not len(images):
            raise InputError(f"there is no test image for '{name}': choose another test split")
        self._notify(f"evaluating on {name}, {len(images)} images")
        net = net if tuple(classes) == net.classes else net.with_classes(self._describe(classes, dataset=dataset))
        templates = frozen_classifier(net.clip, template_descriptions(net.classes, dataset))
        # The plain CLIP classifies by the descriptions and by the templates in one pass: (2 classes, embed_dim).
        text = torch.cat([net.frozen_text_features, templates])
        plain: list[FloatArray] = []
        right = np.zeros(3, np.int64)
        prompted = prompted_classifier(net, name, self._gray, plain, text)
        in_colour = zero_shot_classifier(net.clip, net.class_descriptions, name, text=text)
        for part in batches(images, net.clip.image_size_px):
            logits = _logits(prompted, part)
            if self._gray and part.images.shape[-1] == 3:  # only the prompted CLIP converts the images to gray
                plain[:] = [_logits(in_colour, part)]
            described, templated = np.split(np.concatenate(plain), 2, axis=1)
            plain.clear()
            right += [(each.argmax(axis=1) == part.labels).sum() for each in (logits, described, templated)]
        accuracy, described_accuracy, template_accuracy = (right / len(images)).tolist()
        return Score(name, accuracy, described_accuracy, template_accuracy, len(images))


def _base_to_novel(scorer: _Scorer, net: PromptedClip, data: TaskData) -> TaskResult:
    dataset, classes, bases = data.dataset.name, data.dataset.classes, len(data.trained)
    base = scorer.score("base", dataset, net, classes[:bases], of_classes(data.test, range(bases)))
    novel = scorer.score("novel", dataset, net, classes[bases:], of_classes(data.test, range(bases, len(classes))))
    return TaskResult(
        "base-to-novel",
        (base, novel),
        {
            "base": base.accuracy,
            "novel": novel.accuracy,
            "harmonic_mean": harmonic_mean((base.accuracy, novel.accuracy)),
            "zero_shot_base": base.zero_shot_accuracy,
            "zero_shot_novel": novel.zero_shot_accuracy,
            "zero_shot_harmonic_mean": harmonic_mean((base.zero_shot_accuracy, novel.zero_shot_accuracy)),
        },
    )


def _logits(classifier: ClipClassifier, images: ImageSet) -> FloatArray:
    contract = classifier.contract
    # The labels are already the contract's; this converts the images to gray where the contract requires it.
    converted = aligned(DataSet("", contract.labels, {}), images, contract)
    return evaluate(classifier, converted, "center-crop").logits


def _require_known(targets: Sequence[Target], classes: Sequence[str]) -> None:
    known = set(classes)
    for target in targets:
        if unknown := [name for name in target.classes if name not in known]:
            raise InputError(
                f"data set '{target.name}' has the class '{unknown[0]}', which the training data does not have: "
                "task 'domain' needs copies of the trained classes, task 'cross-dataset' takes others"
            )
