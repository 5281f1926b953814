"""Options of trainings and evaluations of a CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from edgekit.errors import InputError
from edgekit.models.training.options import TrainingOptions
from edgekit.options import Options, option, same_option

Activation = Literal["gelu", "quick-gelu"]
TaskName = Literal["few-shot", "base-to-novel", "cross-dataset", "domain"]
# Tasks that evaluate on other data sets too.
TRANSFER_TASKS = ("cross-dataset", "domain")


@dataclass(frozen=True, kw_only=True)
class ClipOptions(Options):
    """Which CLIP is evaluated, and how its classes are described."""

    title = "CLIP"
    clip: str | None = option(
        "--clip",
        "The CLIP that the prompts were trained for, or the CLIP to evaluate zero-shot.",
        metavar="FILE|DIR|NAME",
        needs="--data",
    )
    descriptions: Path | None = option(
        "--descriptions",
        "JSON file of sentences for each class. Default: the sentences of the training.",
        metavar="FILE",
        needs="--clip",
    )


@dataclass(frozen=True, kw_only=True)
class PromptOptions(TrainingOptions):
    """Options of `train_prompts`; those of `TrainingOptions` apply too."""

    recipe: str = "hicropl"
    clip: str = option(
        "--clip",
        "The CLIP: its file, the folder of its training, or an open_clip name MODEL/WEIGHTS.",
        metavar="FILE|DIR|NAME",
        required=True,
        main=True,
        section="CLIP",
    )
    descriptions: Path | None = option(
        "--descriptions",
        "Sentences for each class, or a folder with one file per data set. Default: the shipped sentences of the seven "
        "expressions.",
        metavar="JSON|DIR",
        main=True,
        section="CLIP",
    )
    task: TaskName = option(
        "--task",
        "Task of the paper; it determines the data of training and evaluation.",
        default="few-shot",
        main=True,
        section="Task",
    )
    shots: int = option(
        "--shots",
        "Training images per class, sampled with --seed; a class with fewer images gives all.",
        default=16,
        least=1,
        most=10_000,
        main=True,
        section="Task",
    )
    eval_data: Sequence[Path] = option(
        "--eval-data",
        "A data set to evaluate on, for the tasks cross-dataset and domain. Repeatable.",
        default=(),
        metavar="DATA",
        section="Task",
    )
    test_split: str | None = option(
        "--test-split",
        "Split to evaluate on. Default: PrivateTest, test, or the validation images.",
        metavar="NAME",
        section="Task",
    )
    consistency_weight: float | None = option(
        "--consistency-weight", "Weight λ of the consistency loss. Default: 12.", least=0, most=1e6
    )
    min_area: float | None = option(
        "--min-area", "Smallest area of a random crop, as a fraction of the image. Default: 0.08.", least=1e-6, most=1
    )

    _words: ClassVar[dict[str, Any]] = TrainingOptions._words | {"task": TaskName}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_data and self.task not in TRANSFER_TASKS:
            raise InputError(f"eval-data is only for the tasks {' and '.join(TRANSFER_TASKS)}, not for '{self.task}'")
        if not self.eval_data and self.task in TRANSFER_TASKS:
            raise InputError(f"task '{self.task}' needs eval-data: one or several data sets to evaluate on")


@dataclass(frozen=True, kw_only=True)
class MiniClipOptions(TrainingOptions):
    """Options of `train_clip`; those of `TrainingOptions` apply too."""

    recipe: str = "clip-mini"
    ferplus: Path | None = option(
        "--ferplus",
        "FER+ votes for FER-2013: the captions state the shares of the votes, and a property of the picture. Without "
        "votes, they state the label and random traits.",
        metavar="CSV",
        main=True,
        section="Data",
    )
    descriptions: Path | None = same_option(PromptOptions, "descriptions", main=False)
    trunk: str = option(
        "--trunk",
        "EdgeCNN that computes the patch embeddings, and is not trained further: a name, a checkpoint or the folder of "
        "a training.",
        default="default",
        metavar="MODEL",
        main=True,
        section="CLIP",
    )
    teacher: Sequence[str] = option(
        "--teacher",
        "Model whose class probabilities are a second training target. Repeatable; several models are averaged.",
        default=(),
        metavar="MODEL",
        main=True,
        section="CLIP",
    )
