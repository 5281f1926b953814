"""Teachers: functions that map images to logits, and to embeddings if the teacher has an embedding space."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional as F

from edgekit.contract import CropSpec, Subject
from edgekit.errors import InputError
from edgekit.files import real_path
from edgekit.model_store import BEST_NAME
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.clip.text_tower import TextTower
from edgekit.preprocess import FloatArray, ImageU8, to_gray

Kind = Literal["classifier", "clip", "prompted-clip", "ensemble"]


@dataclass(frozen=True)
class EmbeddingSpace:
    """Embedding space of a CLIP: unit `class_vectors` float32 (classes, embed_dim), and the scale of the logits."""

    class_vectors: FloatArray
    logit_scale: float

    @property
    def embed_dim(self) -> int:
        """Number of dimensions of the embedding space."""
        return int(self.class_vectors.shape[1])


@dataclass(frozen=True)
class TeacherOutputs:
    """Outputs of a teacher: `logits` float32 (N, classes), and unit vectors `embeddings` (N, embed_dim) or None."""

    logits: FloatArray
    embeddings: FloatArray | None = None


@dataclass(frozen=True)
class Teacher:
    """A trained model whose outputs a student learns.

    Attributes:
        kind: Kind of the model.
        name: The teacher's name in messages.
        labels: Labels in the order of the logits.
        sha256: Checksum of everything that the teacher's outputs depend on, except the labels.
        predict: Function that returns the outputs for crops uint8 (N, H, W, 1 gray or 3 R, G, B) of any size.
        share_hw: Height and width of the crop that the teacher classifies, as fractions of the face image's.
        space: The teacher's embedding space; None: the teacher has none.
        members: The members of an ensemble; empty for a single model.
        subject: What a classifier's contract states that it classifies; None: not stated.
        crop: The crop of a classifier's contract; None: the teacher takes images of any size.
        text_tower: Encoder of other labels by text, for a small CLIP of edgekit.
        facts: Further fields of the teacher's record in a checkpoint.
    """

    kind: Kind
    name: str
    labels: tuple[str, ...]
    sha256: str
    predict: Callable[[ImageU8], TeacherOutputs]
    share_hw: tuple[float, float] = (1.0, 1.0)
    space: EmbeddingSpace | None = None
    members: tuple[Teacher, ...] = ()
    subject: Subject | None = None
    crop: CropSpec | None = None
    text_tower: TextTower | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return the record of the teacher that a student's checkpoint contains."""
        members = {"members": [member.record() for member in self.members]} if self.members else {}
        return {"kind": self.kind, "name": self.name, "sha256": self.sha256, **self.facts, **members}


def name_of(path: Path) -> str:
    """Return a teacher's name for messages: the file name, preceded by its folder for a result of a training."""
    return f"{real_path(path).parent.name}/{path.name}" if path.name == BEST_NAME else path.name


def for_labels(teacher: Teacher, labels: Sequence[str], notify: Notify = ignore_message) -> Teacher:
    """Return the teacher with its logits in the order of `labels`; names are compared without regard to case.

    Args:
        teacher: The teacher.
        labels: Labels of the data set.
        notify: Called with a message if the teacher has classes that the data lacks; they are removed.

    Raises:
        InputError: The teacher lacks one of the labels.
    """
    chosen = [_position(teacher, label) for label in labels]
    surplus = [name for index, name in enumerate(teacher.labels) if index not in chosen]
    if surplus:
        notify(f"teacher '{teacher.name}' has classes that the data lacks; they are removed: {', '.join(surplus)}")

    def predict(crops: ImageU8) -> TeacherOutputs:
        outputs = teacher.predict(crops)
        return replace(outputs, logits=outputs.logits[:, chosen])

    space = teacher.space
    return replace(
        teacher,
        labels=tuple(labels),
        predict=predict,
        space=space and replace(space, class_vectors=space.class_vectors[chosen]),
    )


def ensemble(teachers: Sequence[Teacher]) -> Teacher:
    """Return several teachers for the same labels as one teacher; a single teacher is returned unchanged.

    The probabilities of the ensemble are the mean of its members' probabilities, because logits of different nets
    differ in scale.
    """
    if len(teachers) == 1:
        return teachers[0]
    return Teacher(
        kind="ensemble",
        name=" + ".join(teacher.name for teacher in teachers),
        labels=teachers[0].labels,
        sha256=hashlib.sha256("\n".join(teacher.sha256 for teacher in teachers).encode()).hexdigest(),
        predict=lambda crops: TeacherOutputs(
            mean_of_probabilities([teacher.predict(crops).logits for teacher in teachers])
        ),
        members=tuple(teachers),
    )


def subject_of(teacher: Teacher) -> Subject:
    """Return what a teacher's student classifies: the subject of the members that state one, or else faces.

    Raises:
        InputError: The members have different subjects.
    """
    stated = {member.subject: member.name for member in teacher.members or (teacher,) if member.subject}
    if len(stated) > 1:
        raise InputError(
            f"teacher '{stated['face']}' classifies faces, '{stated['image']}' whole images: use teachers of one kind"
        )
    return next(iter(stated), "face")


def mean_of_probabilities(logits: Sequence[FloatArray]) -> FloatArray:
    """Return logits (…, classes) whose softmax is the mean of the softmaxes of `logits`."""
    stacked = np.stack(logits).astype(np.float64)
    stacked -= np.logaddexp.reduce(stacked, axis=-1, keepdims=True)
    mean: FloatArray = (np.logaddexp.reduce(stacked, axis=0) - np.log(len(logits))).astype(np.float32)
    return mean


def to_teacher_input(crops: ImageU8, size_hw: tuple[int, int], gray: bool = False) -> ImageU8:
    """Return crops resized to a teacher's input (bicubic, antialiased), with one channel if `gray`."""
    if gray and crops.shape[-1] == 3:
        crops = to_gray(crops[..., ::-1])[..., np.newaxis]
    if crops.shape[1:3] == size_hw:
        return crops
    planes = torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float()
    planes = F.interpolate(planes, size_hw, mode="bicubic", antialias=True, align_corners=False)
    resized: ImageU8 = planes.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return resized


def _position(teacher: Teacher, label: str) -> int:
    if label in teacher.labels:
        return teacher.labels.index(label)
    found = [index for index, name in enumerate(teacher.labels) if name.casefold() == label.casefold()]
    if len(found) != 1:
        raise InputError(
            f"teacher '{teacher.name}' lacks the data's class '{label}': its labels are {', '.join(teacher.labels)}"
        )
    return found[0]
