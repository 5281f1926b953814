"""Options that all trainings share: data, recipe, machine and output folder. Imports the standard library only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, get_args

from edgekit.errors import InputError

if TYPE_CHECKING:
    from edgekit.contract import Fit
    from edgekit.models.data.ferplus import Mode

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Accelerator = Literal["auto", "cpu", "gpu"]
# Smaller values draw shares of Beta(alpha, alpha) that underflow.
MIN_MIXUP_ALPHA, MAX_MIXUP_ALPHA = 0.01, 10
MAX_SAM_RADIUS = 10
MAX_PRIOR_STRENGTH = 2
MAX_LR = 100
MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Data, recipe and output folder of a training, and the other options that all trainings share.

    - `data`: folder, archive, .csv or .h5 (see `edgekit.models.data.readers`); `output`: folder for the results.
    - `recipe`: "auto" is fine-tune for pretrained weights, else fer2013.
    - `epochs`, `batch_size`, `max_lr`, `mixup_alpha` and `sam_radius` replace the recipe's values.
    - `init`: checkpoint, name of a shipped model, file with the weights of a timm or torchvision net, or "pretrained"
      for the weights that come with the net; None: "pretrained" for efficientnet-lite0, else random weights.
    - `precision`: "auto" is bf16 if the processor supports bf16 and bf16 is faster (nets on a CPU), else fp32.
    - `threads`: number of CPU threads; None: torch's default.
    - `train_split`: default `Training` or `train`; `val_split`: default `PublicTest` or `val`, else a part of the
      training images.
    - `contempt`: "drop", "keep", or the class that images of contempt are counted as.
    - `ferplus`: CSV of FER+ votes; `ferplus_labels`: how they are used (see `with_ferplus`); `label_weight`: weight of
      the data's labels with "mixed"; default: 0.5.
    - `prior_strength`: strength of the logit adjustment after the training (see `edgekit.models.training.prior`).
    - `fit`: how images that are not square become square: the central square is cut out ("square"), or the image is
      padded with gray ("pad") or distorted ("stretch"). The contract records this value. "auto": for whole images the
      one with the highest accuracy on held-back pictures, for faces "square"; in a distillation the teacher's.
    - `resume`: continue the training in `output`.

    Raises:
        InputError: A value is not allowed.
    """

    data: Path
    output: Path
    recipe: str = "auto"
    epochs: int | None = None
    batch_size: int | None = None
    max_lr: float | None = None
    mixup_alpha: float | None = None
    sam_radius: float | None = None
    init: str | None = None
    seed: int = 0
    precision: Precision = "auto"
    accelerator: Accelerator = "auto"
    threads: int | None = None
    train_split: str | None = None
    val_split: str | None = None
    contempt: str = "drop"
    ferplus: Path | None = None
    ferplus_labels: Mode = "soft"
    label_weight: float | None = None
    prior_strength: float = 0.0
    fit: Fit | Literal["auto"] = "auto"
    resume: bool = False

    # Fields that may be given as text, which is convenient in Python.
    _paths: ClassVar[tuple[str, ...]] = ("data", "output", "ferplus")

    def __post_init__(self) -> None:
        # These load msgspec and torch, which no help text needs.
        from edgekit.contract import Fit
        from edgekit.models.data.ferplus import Mode

        for name in self._paths:
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, Path(value))
        require_choice("precision", self.precision, Precision)
        require_choice("accelerator", self.accelerator, Accelerator)
        if self.fit != "auto":
            require_choice("fit", self.fit, Fit)
        require_choice("ferplus_labels", self.ferplus_labels, Mode)
        if self.label_weight is not None:
            if self.ferplus is None or self.ferplus_labels != "mixed":
                raise InputError("label-weight needs ferplus and ferplus-labels mixed: give both, or leave it out")
            if not 0 <= self.label_weight <= 1:
                raise InputError(f"label-weight is {self.label_weight}: expected 0 to 1")
        if self.mixup_alpha and not MIN_MIXUP_ALPHA <= self.mixup_alpha <= MAX_MIXUP_ALPHA:
            raise InputError(
                f"mixup-alpha is {self.mixup_alpha}: expected 0 (no mixup), or {MIN_MIXUP_ALPHA} to {MAX_MIXUP_ALPHA}"
            )
        if self.sam_radius and not 0 <= self.sam_radius <= MAX_SAM_RADIUS:
            raise InputError(f"sam-radius is {self.sam_radius}: expected 0 to {MAX_SAM_RADIUS}")
        if not 0 <= self.prior_strength <= MAX_PRIOR_STRENGTH:
            raise InputError(f"prior-strength is {self.prior_strength}: expected 0 to {MAX_PRIOR_STRENGTH}")
        if self.max_lr is not None and not 0 < self.max_lr <= MAX_LR:
            raise InputError(f"max_lr is {self.max_lr}: expected more than 0, at most {MAX_LR}")
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed is {self.seed}: expected 0 to {MAX_SEED}")
        for name, least in (("epochs", 1), ("batch_size", 2), ("threads", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise InputError(f"{name} is {value}: expected {least} or more")


_Options = TypeVar("_Options", bound=TrainingOptions)


def options_from(kind: type[_Options], options: _Options | None, values: Mapping[str, Any]) -> _Options:
    """Return the options of an entry point: `options`, or those made from `values`.

    Raises:
        InputError: Both are given, or a value is not allowed.
    """
    if options is None:
        return kind(**values)
    if values:
        raise InputError(f"{next(iter(values))} is given beside an options object: set it in the options")
    return options


def require_choice(name: str, value: str, choices: Any) -> None:
    """Check that `value` is one of the strings of the Literal type `choices`.

    Raises:
        InputError: `value` is not one of `choices`.
    """
    if value not in get_args(choices):
        raise InputError(f"{name} is {value!r}: expected one of {', '.join(get_args(choices))}")


def refuse_fields(options: TrainingOptions, names: Collection[str], what: str) -> None:
    """Check that the fields `names`, which have no effect on `what`, have their default values.

    Raises:
        InputError: One of them has another value.
    """
    for field in fields(options):
        if field.name in names and getattr(options, field.name) != field.default:
            raise InputError(f"{field.name} has no effect on {what}: leave it out")
