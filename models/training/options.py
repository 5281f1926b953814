"""Options of trainings: data, hyper-parameters, machine and output folder. Loads neither torch nor numpy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, StageProgress, ignore_message
from edgekit.options import Options, option
from edgekit.shared_options import MAX_SEED, contempt, merges, threads

if TYPE_CHECKING:
    from edgekit.models.training.loop import EpochCallback, StepCallback

Precision = Literal["auto", "fp32", "bf16"]
Accelerator = Literal["auto", "cpu", "gpu"]
FerplusLabels = Literal["mixed", "majority"]
FitChoice = Literal["auto", "square", "pad", "stretch"]
# Of labels and votes in their mixture.
EQUAL_WEIGHT = 0.5
# Limits far above any useful value; torch aborts on absurd ones.
_MAX_BATCH, _MAX_LR = 65_536, 100
SubjectChoice = Literal["auto", "face", "image"]
_RUNS = Path("runs")
_TEACHER, _LOSS = "Teacher and student", "Loss"


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """Options of every training.

    Attributes:
        recipe: Name of the recipe.
        notify: Called with messages for the user.
        progress: Called with (stage, items done, items in total or None) before the first epoch.
        on_step: Called after every optimiser step.
        on_epoch: Called after every epoch.

    Raises:
        InputError: A value is not allowed.
    """

    title = "Training"
    data: Path = option(
        "--data",
        "Data set: class folders, .tar.gz, fer2013.csv or .h5.",
        metavar="DATA",
        required=True,
        main=True,
        section="Data",
    )
    train_split: str | None = option(
        "--train-split", "Split for the training. Default: Training or train.", metavar="NAME", section="Data"
    )
    val_split: str | None = option(
        "--val-split",
        "Split for the validation. Default: PublicTest or val; without them, a part of the training images.",
        metavar="NAME",
        section="Data",
    )
    contempt: str = contempt(section="Data")
    recipe: str = "auto"
    epochs: int | None = option("--epochs", "Number of epochs. Default: the recipe's.", least=1, main=True)
    batch_size: int | None = option(
        "--batch-size", "Images per step, summed over all processes. Default: the recipe's.", least=2, most=_MAX_BATCH
    )
    max_lr: float | None = option("--max-lr", "Highest learning rate. Default: the recipe's.", least=1e-9, most=_MAX_LR)
    seed: int = option(
        "--seed", "Seed of the initial weights, batches and augmentation.", default=0, least=0, most=MAX_SEED, main=True
    )
    output: Path = option(
        "--output",
        "Folder for the results. Default: runs/NAME with the name of the data, and a number if it exists.",
        default=_RUNS,
        default_text="",
        metavar="DIR",
        short="-o",
        main=True,
        section="Output",
    )
    resume: bool = option(
        "--resume",
        "Continue the training in the output folder.",
        default=False,
        needs="--output",
        main=True,
        section="Output",
    )
    precision: Precision = option(
        "--precision",
        "Number format. auto: bf16 if the CPU has instructions for bf16 and the net is faster with them, else fp32.",
        default="auto",
        section="Machine",
    )
    accelerator: Accelerator = option(
        "--accelerator",
        "Processor of the training. auto: a GPU if there is one.",
        default="auto",
        main=True,
        section="Machine",
    )
    threads: int | None = threads()
    notify: Notify = ignore_message
    progress: StageProgress | None = None
    on_step: StepCallback | None = None
    on_epoch: EpochCallback | None = None

    # Fields that take one of several words, and the `Literal` of these words.
    _words: ClassVar[dict[str, Any]] = {"precision": Precision, "accelerator": Accelerator}

    def __post_init__(self) -> None:
        """Convert texts to paths, choose a folder for the output if none is given, and check the fields in `_words`."""
        super().__post_init__()
        for field in fields(self):
            value = getattr(self, field.name)
            # In Python, a path may be given as text. Annotations are not evaluated, so the field's type is a text, too,
            # such as "Path | None".
            if isinstance(value, str) and str(field.type).startswith("Path"):
                object.__setattr__(self, field.name, Path(value))  # the data class is frozen
        if self.output == _RUNS:  # the default
            object.__setattr__(self, "output", _new_run(self.data))
        for name, literal in self._words.items():
            value, words = getattr(self, name), get_args(literal)
            if value is not None and value not in words:
                raise InputError(f"{name} is {value!r}: expected one of {', '.join(words)}")


def _new_run(data: Path) -> Path:
    """Return runs/NAME with the name of the data, or the first of NAME-2, NAME-3, … that does not exist.

    Raises:
        InputError: The training has several processes, which could choose different folders.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError("a training of several processes needs an output folder: give --output DIR")
    name = data.name.split(".")[0]
    folder, number = _RUNS / name, 1
    while folder.exists():
        number += 1
        folder = _RUNS / f"{name}-{number}"
    return folder


@dataclass(frozen=True, kw_only=True)
class NetOptions(TrainingOptions):
    """Options of the trainings of a net, with `edgekit.train` or `edgekit.distill`."""

    fit: FitChoice = option(
        "--fit",
        "How images become square, in training and on a device. square: the central square is cut out; pad: the image "
        "gets a border; stretch: it is stretched. auto: as in the model of --init or the teacher, else square for "
        "faces; for whole images, the most accurate one in a short trial.",
        default="auto",
        main=True,
        section="Data",
    )
    ferplus: Path | None = option("--ferplus", "FER+ votes for FER-2013.", metavar="CSV", section="Data")
    ferplus_labels: FerplusLabels = option(
        "--ferplus-labels",
        "mixed: the targets are a mixture of labels and votes, and the accuracy is that for the labels. majority: the "
        "labels are the majority of the votes.",
        default="mixed",
        needs="--ferplus",
        section="Data",
    )
    label_weight: float = option(
        "--label-weight",
        "With --ferplus-labels mixed: weight of the labels, from 0 (votes only) to 1 (labels only).",
        default=EQUAL_WEIGHT,
        least=0,
        most=1,
        needs="--ferplus",
        section="Data",
    )
    recipe: str = option(
        "--recipe",
        "fer2013 starts from random weights. With --init: camera (for faces in front of a camera), adapt (for small "
        "data sets of faces) or fine-tune (for pretrained nets). auto: fine-tune for pretrained weights, else fer2013.",
        default="auto",
        metavar="NAME",
        main=True,
    )
    init: str | None = option(
        "--init",
        "Start from a checkpoint of the same net instead of random weights. If the labels differ, only the common "
        "classes keep their weights in the last layer. Nets of timm and torchvision also start from a file of weights; "
        "with 'pretrained', nets of timm download weights. efficientnet-lite0 starts from ImageNet weights by default.",
        metavar="MODEL",
        main=True,
    )
    calibrate: bool = option(
        "--calibrate",
        "Scale the logits of the trained net so that its probabilities match its accuracy on the validation images.",
        default=True,
    )

    _words: ClassVar[dict[str, Any]] = TrainingOptions._words | {"fit": FitChoice, "ferplus_labels": FerplusLabels}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_weight != EQUAL_WEIGHT and (self.ferplus is None or self.ferplus_labels != "mixed"):
            raise InputError("label-weight needs ferplus and ferplus-labels mixed: give both, or leave it out")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(NetOptions):
    """Options of `edgekit.train`; those of `TrainingOptions` and `NetOptions` apply too."""

    model: str | None = option(
        "--model",
        "efficientnet-lite0, edgecnn, edgecnn-wide, edgecnn-g, edgecnn-g-learned, mini-xception, separable, "
        "mobilenetv2, mobilenetv3-small, shufflenetv2-x0.5, timm/NAME or torchvision/NAME. Default: edgecnn for faces, "
        "efficientnet-lite0 for whole images.",
        metavar="NAME",
        main=True,
        section="Model",
    )
    subject: SubjectChoice = option(
        "--subject",
        "What the model classifies: each detected face, or the whole image. auto: faces for known face data sets and "
        "gray squares of at most 64 pixels, whole images for everything else.",
        default="auto",
        main=True,
        section="Model",
    )
    image_size: int | None = option(
        "--image-size",
        "Side in pixels to which images are scaled before cropping. The net's input has about 11/12 of this side. Not "
        "for EdgeCNN, whose input has a fixed size. Default: 176 for pretrained nets, else 48.",
        least=48,
        most=224,
        main=True,
        section="Model",
    )
    merges: Sequence[str] = merges(section="Classes")
    balance: bool = option(
        "--balance", "Draw each class equally often, as the recipe adapt does.", default=False, section="Classes"
    )

    _words: ClassVar[dict[str, Any]] = NetOptions._words | {"subject": SubjectChoice}


@dataclass(frozen=True, kw_only=True)
class DistillOptions(NetOptions):
    """Options of `edgekit.distill`; those of `TrainingOptions` and `NetOptions` apply too."""

    teachers: Sequence[str] = option(
        "--teacher",
        "Model, folder of a training, file of prompts, CLIP file or open_clip name. Repeatable: the outputs of several "
        "teachers are averaged.",
        default=(),
        metavar="MODEL|DIR|CLIP",
        required=True,
        main=True,
        section=_TEACHER,
    )
    student: str = option(
        "--student",
        "The net, named as in 'train --model'.",
        default="edgecnn",
        metavar="NAME",
        main=True,
        section=_TEACHER,
    )
    clip: str | None = option(
        "--clip",
        "The CLIP that the teacher's prompts were trained for.",
        metavar="FILE|DIR|NAME",
        main=True,
        section=_TEACHER,
    )
    descriptions: Path | None = option(
        "--descriptions", "Sentences per class, for a CLIP without prompts.", metavar="JSON", section=_TEACHER
    )
    temperature: float = option(
        "--temperature",
        "Softmax temperature of teacher and student.",
        default=2.0,
        least=0.01,
        most=1000,
        section=_LOSS,
    )
    kl_weight: float | None = option(
        "--kl-weight", "Weight of the KL divergence from the teacher. Default: 1.", least=0, most=1e6, section=_LOSS
    )
    ce_weight: float | None = option(
        "--ce-weight",
        "Weight of the cross-entropy with the labels. Default: 0.1; with a CLIP as teacher 0.",
        least=0,
        most=1e6,
        section=_LOSS,
    )
    cosine_weight: float | None = option(
        "--cosine-weight",
        "Weight of the distance between embeddings. Default: 1 with a CLIP as teacher.",
        least=0,
        most=1e6,
        section=_LOSS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.teachers:
            raise InputError("no teacher is given")
