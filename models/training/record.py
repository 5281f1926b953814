"""What is stored of a training: its record in the checkpoint, and its state at the end of an epoch (`last.pt`).

Records of earlier versions lack fields. `--resume` continues bit for bit from the state.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit.errors import InputError
from edgekit.files import require_file, write_atomic
from edgekit.models.tensor_files import load_tensors
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


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """Record of a training.

    Attributes:
        data_sha256: Checksum of pixels and labels of the data set `data_name`.
        validation: Description of the validation images; `training_split`: the split of the training images.
        ferplus: How FER+ votes were used; `ferplus_sha256`: checksum of their file; `label_weight`: see `with_ferplus`.
        merged: Texts NEW=OLD,OLD of merged classes.
        teacher: Record of a student's teacher.
        task, shots: Task and images per class of trained prompts; `gray`: whether they are for gray images.
        settings: What the task adds (`Task.fingerprint`), such as architecture, labels and loss.
    """

    recipe_name: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    precision: str = "fp32"
    data_name: str = ""
    data_sha256: str = ""
    training_split: str | None = None
    validation: str = ""
    edgekit_version: str = ""
    torch_version: str = ""
    threads: int = 0
    ferplus: str | None = None
    ferplus_sha256: str | None = None
    label_weight: float | None = None
    merged: tuple[str, ...] = ()
    teacher: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None
    shots: int | None = None
    gray: bool = False
    best: BestEpoch | None = None
    calibration: Calibration | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def read(training: Mapping[str, Any]) -> TrainingRecord:
        """Return the record in a checkpoint's field `training`.

        `settings` stays empty, because `document` stores its entries beside the other fields. A resume does not need
        it: the state has the fingerprint.

        Raises:
            InputError: A field has another type.
        """
        return convert(dict(training), TrainingRecord, "training record: field")

    def fingerprint(self) -> dict[str, Any]:
        """Return what a resumed training must share with the interrupted one."""
        names = ("recipe", "seed", "precision", "data_sha256", "ferplus_sha256", "training_split", "validation")
        return {**self.settings, **{name: getattr(self, name) for name in names}}

    def document(self) -> dict[str, Any]:
        """Return the record as a JSON object, without empty fields."""
        fields = {name: value for name, value in asdict(self).items() if value or name == "seed"}  # a seed may be 0
        return {**fields.pop("settings", {}), **fields}


@dataclass(frozen=True)
class TrainingState:
    """Weights, averaged weights, optimiser state and epoch reports; `fingerprint` identifies the training."""

    fingerprint: Mapping[str, Any]
    net: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    steps_taken: int
    history: list[dict[str, Any]]


def save_state(path: Path, state: TrainingState) -> None:
    """Write the state atomically.

    Raises:
        StorageError: The disk is full or read-only.
    """
    # To memory first, because torch reports a full disk as an unspecific RuntimeError.
    buffer = io.BytesIO()
    torch.save({each.name: getattr(state, each.name) for each in fields(state)}, buffer)
    write_atomic(path, buffer.getvalue())


def load_state(path: Path, fingerprint: Mapping[str, Any]) -> TrainingState:
    """Read a state and check that its fingerprint equals `fingerprint`.

    Raises:
        InputError: The file is damaged, or the settings differ; the message names the first difference.
    """
    require_file(path, "training state")
    try:
        stored = _fields(path)
        state = TrainingState(**{each.name: stored[each.name] for each in fields(TrainingState)})
    except (TypeError, KeyError) as error:
        raise damage(path) from error
    stored_fingerprint = state.fingerprint if isinstance(state.fingerprint, Mapping) else {}
    if difference := _first_difference(name="", before=stored_fingerprint, now=fingerprint):
        raise InputError(f"cannot resume '{path}': {difference}: use the same settings or another -o")
    return state


def state_fingerprint(path: Path) -> Mapping[str, Any]:
    """Return the fingerprint in a file of a training's state: the settings that a resumed training must share.

    It is empty for a file without one.

    Raises:
        InputError: The file is damaged.
    """
    fingerprint = _fields(path).get("fingerprint")
    return fingerprint if isinstance(fingerprint, dict) else {}


def _first_difference(name: str, before: object, now: object) -> str | None:
    """Return the first difference of two fingerprints, or of their parts called `name`; None if they are equal.

    `name` is empty for whole fingerprints.
    """
    if isinstance(now, Mapping) and isinstance(before, Mapping):
        for key in sorted(before.keys() | now.keys()):
            inner = f"{name}.{key}" if name else key
            if difference := _first_difference(inner, before.get(key), now.get(key)):
                return difference
        return None
    both_off = not before and not now  # a setting that is missing, in the state of another version, was off
    return None if before == now or both_off else f"its {name} was {before!r}, now it is {now!r}"


def _fields(path: Path) -> dict[str, Any]:
    """Return the dictionary in a state; raise if the file is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            # torch does not compare the checksums of the archive's members.
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, zlib.error, struct.error) as error:
        raise damage(path) from error
    if damaged:
        raise damage(path)
    try:
        return load_tensors(path)
    except InputError as error:
        raise damage(path) from error


def damage(path: Path) -> InputError:
    """Return the error for a damaged state."""
    return InputError(
        f"training state '{path}' is damaged or of another version of edgekit: start again with another -o"
    )
