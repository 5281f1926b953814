"""The four evaluation protocols of prompt learning (arXiv 2507.14976, section 4), and one that trains on all images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, Progress, ignore_message
from edgekit.models.clip.classifier import (
    PROMPTED,
    ClipClassifier,
    clip_contract,
    prompted_classifier,
    zero_shot_classifier,
)
from edgekit.models.clip.config import PRESETS, PromptConfig
from edgekit.models.clip.descriptions import Descriptions
from edgekit.models.clip.prompted import PromptedClip, prompts_kept
from edgekit.models.data import DataSet, ImageSet, train_and_validation, usual_test_split
from edgekit.models.data.few_shot import (
    TEST,
    TRAIN,
    VALIDATION,
    Splits,
    base_count,
    few_shot,
    of_classes,
    with_test_split,
)
from edgekit.models.data.readers import Selection, load_dataset
from edgekit.models.evaluation.evaluate import Evaluation, aligned, evaluate
from edgekit.preprocess import FloatArray

TaskName = Literal["few-shot", "base-to-novel", "cross-dataset", "domain", "all"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
# Tasks that evaluate on other data sets too.
TRANSFER_TASKS = ("cross-dataset", "domain")


@dataclass(frozen=True)
class TaskData:
    """A data set with the splits "train", "val" and "test", and the classes to train on.

    `validation_name` is a short description of the images in "val".
    """

    dataset: DataSet
    trained: tuple[str, ...]
    validation_name: str

    @property
    def training(self) -> ImageSet:
        """Training images; their labels are indices into `trained`."""
        return of_classes(self.dataset.split(TRAIN), range(len(self.trained)))

    @property
    def validation(self) -> ImageSet:
        """Validation images; their labels are indices into `trained`."""
        return of_classes(self.dataset.split(VALIDATION), range(len(self.trained)))


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
    """Return the paper's hyper-parameters of a task; the task "all" uses those of few-shot."""
    return PRESETS["cross-dataset" if task in TRANSFER_TASKS else "few-shot"]


def recipe_name_of(task: TaskName) -> str:
    """Return the name of a task's recipe: the long recipe for tasks with few images, else the short one."""
    return "hicropl" if task in ("few-shot", "base-to-novel") else "hicropl-short"


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

    Only the sampled images are decoded. For the validation images see `few_shot`.

    Raises:
        InputError: The data is invalid, has no such split, or has too few images or classes for the task.
    """
    if task == "all":
        whole = load_dataset(path, size_px, progress, contempt=contempt, notify=notify, fit="clip")
        training, validation, name = train_and_validation(whole, splits.train, splits.validation, seed)
        return TaskData(with_test_split(whole, training, validation, splits), whole.classes, name)

    def trained(classes: tuple[str, ...]) -> tuple[str, ...]:
        return classes[: base_count(len(classes))] if task == "base-to-novel" else classes

    sampled: dict[str, tuple[str, NDArray[np.int64]]] = {}

    def select(labels: Mapping[str, NDArray[np.int64]], classes: tuple[str, ...]) -> Selection:
        sampled.update(few_shot(labels, trained(classes), shots, seed, splits))
        return sampled

    dataset = load_dataset(path, size_px, progress, contempt=contempt, notify=notify, fit="clip", select=select)
    source = sampled[VALIDATION][0]
    name = f"images held back from {source}" if source == sampled[TRAIN][0] else f"a few images of {source}"
    return TaskData(dataset, trained(dataset.classes), name)


def load_target(
    path: Path,
    size_px: int,
    progress: Progress | None = None,
    contempt: str = "drop",
    notify: Notify = ignore_message,
) -> DataSet:
    """Return the test split of another data set; if it has only one split, that split.

    Raises:
        InputError: The data is invalid, or has several splits and no test split.
    """

    def only_tests(labels: Mapping[str, NDArray[np.int64]], classes: tuple[str, ...]) -> Selection:
        del classes
        name = usual_test_split(labels) or (next(iter(labels)) if len(labels) == 1 else None)
        if name is None:
            raise InputError(f"data '{path}' has no split named 'test': its splits are {', '.join(labels)}")
        return {name: (name, np.arange(len(labels[name])))}

    return load_dataset(path, size_px, progress, contempt=contempt, notify=notify, fit="clip", select=only_tests)


def measure(
    task: TaskName,
    net: PromptedClip,
    data: TaskData,
    describe: Callable[[Sequence[str]], Descriptions],
    targets: Sequence[DataSet] = (),
    notify: Notify = ignore_message,
) -> TaskResult:
    """Return the accuracies of trained prompts and of the plain CLIP on a task's test images.

    Args:
        task: The task; "base-to-novel" evaluates base classes among base classes and novel among novel classes.
        net: The prompted CLIP with the trained classes.
        data: The data set; its test split is evaluated.
        describe: Returns the sentences of classes by name.
        targets: Other data sets, from `load_target`; for the task "domain" their classes must be classes of `data`.
        notify: Called before each evaluation with a message that names it.

    Raises:
        InputError: There is no test image of the classes, or a data set for "domain" has other classes.
    """
    scorer = _Scorer(describe, notify, data.dataset.is_gray)
    test, classes = data.dataset.split(TEST), data.dataset.classes
    if task == "base-to-novel":
        return _base_to_novel(scorer, net, test, classes, len(data.trained))
    scores = [scorer.score(data.dataset.name, net, classes, test)]
    summary = {"accuracy": scores[0].accuracy, "zero_shot_accuracy": scores[0].zero_shot_accuracy}
    for target in targets:
        ((name, part),) = target.splits.items()
        if task == "domain":
            part, named = _with_labels_of(net, target, part), classes
        else:
            named = target.classes
        scores.append(scorer.score(f"{target.name} {name}", net, named, part))
    if targets:
        summary["mean_of_targets"] = sum(score.accuracy for score in scores[1:]) / len(targets)
        summary["zero_shot_mean_of_targets"] = sum(score.zero_shot_accuracy for score in scores[1:]) / len(targets)
    return TaskResult(task, tuple(scores), summary)


class _Scorer:
    """Evaluates a CLIP with and without prompts on the same images; `describe` returns the sentences of classes."""

    def __init__(self, describe: Callable[[Sequence[str]], Descriptions], notify: Notify, gray: bool) -> None:
        self._describe = describe
        self._notify = notify
        self._gray = gray

    def score(self, name: str, net: PromptedClip, classes: Sequence[str], images: ImageSet) -> Score:
        if not len(images):
            raise InputError(f"there is no test image for '{name}': choose another test split")
        self._notify(f"evaluating on {name}, {len(images)} images")
        net = net if tuple(classes) == net.classes else net.with_classes(self._describe(classes))
        plain: list[FloatArray] = []
        with prompts_kept(net):
            result = _evaluated(prompted_classifier(net, name, self._gray, plain), images)
        if self._gray and images.images.shape[-1] == 3:  # only the prompted CLIP converts the images to gray
            zero_shot = _evaluated(
                zero_shot_classifier(net.clip, net.class_descriptions, name, text=net.frozen_text_features), images
            )
        else:
            zero_shot = replace(result, logits=np.concatenate(plain))
        return Score(name, result.accuracy, zero_shot.accuracy, len(images))


def _base_to_novel(
    scorer: _Scorer, net: PromptedClip, test: ImageSet, classes: tuple[str, ...], bases: int
) -> TaskResult:
    base = scorer.score("base", net, classes[:bases], of_classes(test, range(bases)))
    novel = scorer.score("novel", net, classes[bases:], of_classes(test, range(bases, len(classes))))
    return TaskResult(
        "base-to-novel",
        (base, novel),
        {
            "base": base.accuracy,
            "novel": novel.accuracy,
            "harmonic_mean": _harmonic_mean(base.accuracy, novel.accuracy),
            "zero_shot_base": base.zero_shot_accuracy,
            "zero_shot_novel": novel.zero_shot_accuracy,
            "zero_shot_harmonic_mean": _harmonic_mean(base.zero_shot_accuracy, novel.zero_shot_accuracy),
        },
    )


def _evaluated(classifier: ClipClassifier, images: ImageSet) -> Evaluation:
    contract = classifier.contract
    # The labels are already the contract's; this converts the images to gray where the contract requires it.
    converted = aligned(DataSet("", contract.labels, {}), images, contract)
    return evaluate(classifier, converted, "center-crop")


def _with_labels_of(net: PromptedClip, target: DataSet, part: ImageSet) -> ImageSet:
    """Return a data set's images with labels numbered as in the net's classes."""
    return aligned(target, part, clip_contract(PROMPTED, net.clip.config, net.classes, target.name, gray=False))


def _harmonic_mean(*values: float) -> float:
    return len(values) / sum(1 / value for value in values) if all(values) else 0.0
