"""Options that trainings share: data, hyper-parameters, machine and output folder. Loads neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, StageProgress, ignore_message
from edgekit.options import Options, option
from edgekit.shared_options import MAX_SEED, contempt, threads

if TYPE_CHECKING:
    from edgekit.models.training.loop import EpochCallback, StepCallback

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Accelerator = Literal["auto", "cpu", "gpu"]
FerplusLabels = Literal["posterior", "soft", "majority", "mixed"]
FitChoice = Literal["auto", "square", "pad", "stretch"]
MAX_PRIOR_STRENGTH = 2
# Limits far above any useful value; torch aborts on absurd ones.
_MAX_BATCH, _MAX_LR = 65_536, 100


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
        "Split that is validated on. Default: PublicTest or val; without them, a part of the training images.",
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
    output: Path = option("--output", "Folder for the results.", short="-o", required=True, main=True, section="Output")
    resume: bool = option(
        "--resume", "Continue the training in the output folder.", default=False, main=True, section="Output"
    )
    precision: Precision = option(
        "--precision",
        "Number format. auto: bf16 for nets on a CPU with AMX or AVX-512 BF16, else fp32. fp16 needs a GPU.",
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

    # Fields with words, and fields that may be given as text, which is convenient in Python.
    _words: ClassVar[dict[str, Any]] = {"precision": Precision, "accelerator": Accelerator}
    _paths: ClassVar[tuple[str, ...]] = ("data", "output")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self._paths:
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, Path(value))
        for name, words in self._words.items():
            if (value := getattr(self, name)) is not None and value not in get_args(words):
                raise InputError(f"{name} is {value!r}: expected one of {', '.join(get_args(words))}")


@dataclass(frozen=True, kw_only=True)
class NetOptions(TrainingOptions):
    """Options of the trainings of a net, with `edgekit.train` or `edgekit.distill`.

    Attributes:
        prior_strength: Factor of the logit adjustment after the training (see `edgekit.models.training.prior`).
    """

    fit: FitChoice = option(
        "--fit",
        "How images become square, in training and on a device: the central square is cut out, or the image is padded "
        "or stretched. auto: square for faces, for whole images the best on held-back pictures; with 'distill' the "
        "teacher's.",
        default="auto",
        main=True,
        section="Data",
    )
    ferplus: Path | None = option("--ferplus", "FER+ votes for FER-2013.", metavar="CSV", section="Data")
    ferplus_labels: FerplusLabels = option(
        "--ferplus-labels",
        "soft and majority take the labels from the votes. posterior and mixed keep the data's labels. The training "
        "target of posterior is P(label | votes), that of mixed is a mixture of label and votes.",
        default="soft",
        needs="--ferplus",
        section="Data",
    )
    label_weight: float | None = option(
        "--label-weight",
        "With --ferplus-labels mixed: weight of the data's labels. The weight of the votes is 1 minus this weight. "
        "Default: 0.5.",
        least=0,
        most=1,
        needs="--ferplus-labels",
        section="Data",
    )
    recipe: str = option(
        "--recipe",
        "fer2013, fer2013-start, fer2013-finish, camera, adapt (for small data sets of faces) or fine-tune (for "
        "pretrained nets). fer2013-finish, camera, adapt and fine-tune need --init. auto: fine-tune for pretrained "
        "weights, else fer2013.",
        default="auto",
        metavar="NAME",
        main=True,
    )
    init: str | None = option(
        "--init",
        "Start from a checkpoint of the same net instead of random weights. If the labels differ, the last layer keeps "
        "the weights of the common classes. Nets of timm and torchvision also start from a file of weights, and from "
        "'pretrained': efficientnet-lite0 from its ImageNet weights (its default), those of timm from the weights that "
        "timm downloads.",
        metavar="MODEL",
        main=True,
    )
    prior_strength: float = 0.0
    calibrate: bool = option(
        "--calibrate",
        "Fit a temperature on the validation images, and include it in the weights of the last layer.",
        default=True,
    )

    _words: ClassVar[dict[str, Any]] = TrainingOptions._words | {"fit": FitChoice, "ferplus_labels": FerplusLabels}
    _paths: ClassVar[tuple[str, ...]] = (*TrainingOptions._paths, "ferplus")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_weight is not None and (self.ferplus is None or self.ferplus_labels != "mixed"):
            raise InputError("label-weight needs ferplus and ferplus-labels mixed: give both, or leave it out")
        if not 0 <= self.prior_strength <= MAX_PRIOR_STRENGTH:
            raise InputError(f"prior-strength is {self.prior_strength}: expected 0 to {MAX_PRIOR_STRENGTH}")
