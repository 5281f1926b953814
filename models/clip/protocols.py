"""The four tasks prompt learning is measured by, and training on all images (arXiv 2507.14976, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import InputError
from edgekit.models.callbacks import Progress
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
TRANSFER_TASKS = ("cross-dataset", "domain")

# Called before each measurement with what is measured.
Notify = Callable[[str], None]


@dataclass(frozen=True)
class TaskData:
    """The splits "train", "val" and "test" of a data set; `trained` are the classes prompts are learned for.

    `validation_name` says what the images of "val" were before.
    """

    dataset: DataSet
    trained: tuple[str, ...]
    validation_name: str

    @property
    def training(self) -> ImageSet:
        """What is learned from, labels counted within `trained`."""
        return of_classes(self.dataset.split(TRAIN), range(len(self.trained)))

    @property
    def validation(self) -> ImageSet:
        """What each epoch is measured on, labels counted within `trained`."""
        return of_classes(self.dataset.split(VALIDATION), range(len(self.trained)))


@dataclass(frozen=True)
class Score:
    """Accuracy on one set of images, with prompts and without."""

    name: str
    accuracy: float
    zero_shot_accuracy: float
    images: int


@dataclass(frozen=True)
class TaskResult:
    """The scores of a task, and what is reported of them together, accuracies 0..1."""

    task: TaskName
    scores: tuple[Score, ...]
    summary: Mapping[str, float]

    def document(self) -> dict[str, Any]:
        """Return the result as JSON has it."""
        scores = [asdict(score) for score in self.scores]
        return {"task": self.task, "scores": scores, "summary": dict(self.summary)}


def preset_of(task: TaskName) -> PromptConfig:
    """Return the paper's values for a task; all images take those of few."""
    return PRESETS["cross-dataset" if task in TRANSFER_TASKS else "few-shot"]


def recipe_name_of(task: TaskName) -> str:
    """Return the recipe for a task; long schedules are for few images."""
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
    say: Notify = lambda _: None,
) -> TaskData:
    """Read a data set and take what a task trains on: `shots` images a class, or with "all" every image.

    The test split is whole. Few shots are validated with as few images as CoOp takes, see `few_shot`.

    Raises:
        InputError: The data cannot be read, lacks a split, or has too few images or classes for the task.
    """
    if task == "all":
        whole = load_dataset(path, size_px, progress, contempt=contempt, notify=say, fit="center")
        training, validation, name = train_and_validation(whole, splits.train, splits.validation, seed)
        return TaskData(with_test_split(whole, training, validation, splits), whole.classes, name)

    def trained(classes: tuple[str, ...]) -> tuple[str, ...]:
        return classes[: base_count(len(classes))] if task == "base-to-novel" else classes

    taken: dict[str, tuple[str, NDArray[np.int64]]] = {}

    def select(labels: Mapping[str, NDArray[np.int64]], classes: tuple[str, ...]) -> Selection:
        taken.update(few_shot(labels, trained(classes), shots, seed, splits))
        return taken

    dataset = load_dataset(path, size_px, progress, contempt=contempt, notify=say, fit="center", select=select)
    source = taken[VALIDATION][0]
    name = f"images held back from {source}" if source == taken[TRAIN][0] else f"a few images of {source}"
    return TaskData(dataset, trained(dataset.classes), name)


def load_target(
    path: Path,
    size_px: int,
    progress: Progress | None = None,
    contempt: str = "drop",
    say: Notify = lambda _: None,
) -> DataSet:
    """Read the test split of another data set, or the only split it has.

    Raises:
        InputError: The data cannot be read, or no split of it is for tests.
    """

    def only_tests(labels: Mapping[str, NDArray[np.int64]], classes: tuple[str, ...]) -> Selection:
        del classes
        name = usual_test_split(labels) or (next(iter(labels)) if len(labels) == 1 else None)
        if name is None:
            raise InputError(f"data '{path}' has no split named 'test': it has {', '.join(labels)}")
        return {name: (name, np.arange(len(labels[name])))}

    return load_dataset(path, size_px, progress, contempt=contempt, notify=say, fit="center", select=only_tests)


def measure(
    task: TaskName,
    net: PromptedClip,
    data: TaskData,
    describe: Callable[[Sequence[str]], Descriptions],
    targets: Sequence[DataSet] = (),
    notify: Notify = lambda _: None,
) -> TaskResult:
    """Return what trained prompts reach on a task's test images.

    Args:
        task: The task; "base-to-novel" counts base classes among themselves and novel ones among themselves.
        net: The prompted CLIP, with the trained classes.
        data: Its test split is measured on.
        describe: Returns sentences for classes by name.
        targets: From `load_target`, for the two tasks of transfer; those of "domain" have `data`'s classes or some.
        notify: Called with what is measured next.

    Raises:
        InputError: A class has no test image, or a data set for "domain" has other classes.
    """
    meter = _Meter(describe, notify, data.dataset.is_gray)
    test, classes = data.dataset.split(TEST), data.dataset.classes
    if task == "base-to-novel":
        base, novel = data.trained, classes[len(data.trained) :]
        scores = [
            meter.score("base", net, base, of_classes(test, range(len(base)))),
            meter.score("novel", net, novel, of_classes(test, range(len(base), len(classes)))),
        ]
        mean = _harmonic_mean([score.accuracy for score in scores])
        zero_shot_mean = _harmonic_mean([score.zero_shot_accuracy for score in scores])
        return TaskResult(
            task,
            tuple(scores),
            {
                "base": scores[0].accuracy,
                "novel": scores[1].accuracy,
                "harmonic_mean": mean,
                "zero_shot_base": scores[0].zero_shot_accuracy,
                "zero_shot_novel": scores[1].zero_shot_accuracy,
                "zero_shot_harmonic_mean": zero_shot_mean,
            },
        )
    scores = [meter.score(data.dataset.name, net, classes, test)]
    summary = {"accuracy": scores[0].accuracy, "zero_shot_accuracy": scores[0].zero_shot_accuracy}
    for target in targets:
        ((name, part),) = target.splits.items()
        if task == "domain":
            part, named = _as_in(net, target, part), classes
        else:
            named = target.classes
        scores.append(meter.score(f"{target.name} {name}", net, named, part))
    if targets:
        summary["mean_of_targets"] = sum(score.accuracy for score in scores[1:]) / len(targets)
        summary["zero_shot_mean_of_targets"] = sum(score.zero_shot_accuracy for score in scores[1:]) / len(targets)
    return TaskResult(task, tuple(scores), summary)


class _Meter:
    """Measures a prompted CLIP and the plain one on the same images."""

    def __init__(self, describe: Callable[[Sequence[str]], Descriptions], notify: Notify, gray: bool) -> None:
        self._describe = describe
        self._notify = notify
        self._gray = gray

    def score(self, name: str, net: PromptedClip, classes: Sequence[str], images: ImageSet) -> Score:
        if not len(images):
            raise InputError(f"there is no image to test {name} on: name another split with --test-split")
        self._notify(f"measuring on {name}, {len(images)} images")
        net = net if tuple(classes) == net.classes else net.with_classes(self._describe(classes))
        plain: list[FloatArray] = []
        with prompts_kept(net):
            result = _evaluated(prompted_classifier(net, name, self._gray, plain), images)
        if self._gray and images.images.shape[-1] == 3:  # the plain CLIP sees their colours
            zero_shot = _evaluated(
                zero_shot_classifier(net.clip, net.class_descriptions, name, text=net.frozen_text_features), images
            )
        else:
            zero_shot = replace(result, logits=np.concatenate(plain))
        return Score(name, result.accuracy, zero_shot.accuracy, len(images))


def _evaluated(classifier: ClipClassifier, images: ImageSet) -> Evaluation:
    contract = classifier.contract
    # The labels are the contract's already; prompts learned on gray pictures are shown gray ones.
    shown = aligned(DataSet("", contract.labels, {}), images, contract)
    return evaluate(classifier, shown, "center-crop")


def _as_in(net: PromptedClip, target: DataSet, part: ImageSet) -> ImageSet:
    return aligned(target, part, clip_contract(PROMPTED, net.clip.config, net.classes, target.name, gray=False))


def _harmonic_mean(values: Sequence[float]) -> float:
    return len(values) / sum(1 / value for value in values) if all(values) else 0.0
