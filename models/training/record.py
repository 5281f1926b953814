"""What a checkpoint records of its training, and what is read of it again; records of earlier versions lack fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekit.models.training.options import Precision
from edgekit.typed_json import convert


@dataclass(frozen=True)
class BestEpoch:
    """The epoch whose weights are in the checkpoint (from 1), and its figures; see `loop.EpochReport`."""

    epoch: int
    learning_rate: float
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Temperature by which the logits are divided, and the calibration error on the validation images."""

    temperature: float
    error_before: float
    error_after: float


@dataclass(frozen=True)
class PriorAdjustment:
    """Logit adjustment: `strength` times the logarithm of the classes' shares `prior` is subtracted from the logits."""

    strength: float
    prior: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """Record of a training.

    Attributes:
        data_sha256: Checksum of pixels and labels of the data set `data_name`.
        validation: Description of the validation images; `training_split`: the split of the training images.
        ferplus: How FER+ votes were used; `ferplus_sha256`: checksum of their file; `label_weight`: see `with_ferplus`.
        merged: Texts NEW=OLD,OLD of merged classes; `left_out`: classes without which a CLIP was trained.
        teacher: Record of a student's teacher.
        task, shots: Task and images per class of trained prompts; `gray`: whether they are for gray images.
        settings: What the task adds (`Task.fingerprint`), such as architecture, labels and loss.
    """

    recipe_name: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    precision: Precision = "fp32"
    data_name: str = ""
    data_sha256: str = ""
    training_split: str | None = None
    validation: str = ""
    edgekit_version: str = ""
    git_revision: str | None = None
    torch_version: str = ""
    threads: int = 0
    ferplus: str | None = None
    ferplus_sha256: str | None = None
    label_weight: float | None = None
    prior_strength: float = 0.0
    merged: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    teacher: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None
    shots: int | None = None
    clip_activation: str | None = None
    gray: bool = False
    best: BestEpoch | None = None
    calibration: Calibration | None = None
    prior_adjustment: PriorAdjustment | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def read(training: Mapping[str, Any]) -> TrainingRecord:
        """Return the record in a checkpoint, whose `settings` stay empty.

        Raises:
            InputError: A field has another type.
        """
        return convert(dict(training), TrainingRecord, "training record: field")

    def fingerprint(self) -> dict[str, Any]:
        """Return what a resumed training must share with the interrupted one."""
        names = ("recipe", "seed", "precision", "data_sha256", "ferplus_sha256", "training_split", "validation")
        shared = {name: getattr(self, name) for name in (*names, "prior_strength", "clip_activation")}
        return {**self.settings, **shared}

    def document(self) -> dict[str, Any]:
        """Return the record as a JSON object, without empty fields."""
        fields = {name: value for name, value in asdict(self).items() if value or name == "seed"}
        return {**fields.pop("settings", {}), **fields}
