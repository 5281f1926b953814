"""Teachers: pictures in, logits out; those with an embedding space say what they see in it, too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional as F

from edgekit.errors import InputError
from edgekit.models.training.loop import BEST_NAME
from edgekit.preprocess import FloatArray, ImageU8, to_gray

Kind = Literal["classifier", "clip", "prompted-clip", "ensemble"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class EmbeddingSpace:
    """Where a CLIP compares images with classes: `class_vectors` float32 (classes, embed_dim), of unit length."""

    class_vectors: FloatArray
    logit_scale: float

    @property
    def embed_dim(self) -> int:
        """Length of a vector."""
        return int(self.class_vectors.shape[1])


@dataclass(frozen=True)
class TeacherOutputs:
    """`logits` float32 (N, classes); `embeddings` (N, embed_dim), of unit length, if the teacher has a space."""

    logits: FloatArray
    embeddings: FloatArray | None = None


@dataclass(frozen=True)
class Teacher:
    """Something that knows.

    Attributes:
        kind: What it is.
        name: For people.
        labels: In the order of the logits.
        sha256: Of everything its answers depend on but the labels.
        answer: Takes crops uint8 (N, H, W, 1 gray or 3 R, G, B) of any size.
        share_hw: How much of a face image's height and width it is made to see; see `edgekit.models.distill.views`.
        space: Its embedding space, if it has one.
        members: Of an ensemble.
        facts: What a checkpoint records beside kind, name and sha256.
    """

    kind: Kind
    name: str
    labels: tuple[str, ...]
    sha256: str
    answer: Callable[[ImageU8], TeacherOutputs]
    share_hw: tuple[float, float] = (1.0, 1.0)
    space: EmbeddingSpace | None = None
    members: tuple[Teacher, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return what a student's checkpoint says of its teacher."""
        members = {"members": [member.record() for member in self.members]} if self.members else {}
        return {"kind": self.kind, "name": self.name, "sha256": self.sha256, **self.facts, **members}


def name_of(path: Path) -> str:
    """Return what people call a teacher by its file: all trainings' files have one name, so the folder says which."""
    return f"{path.resolve().parent.name}/{path.name}" if path.name == BEST_NAME else path.name


def for_labels(teacher: Teacher, labels: Sequence[str], say: Say = lambda _: None) -> Teacher:
    """Return the teacher with its logits in the order of `labels`, compared without regard to case.

    Args:
        teacher: Any.
        labels: Those of the data.
        say: Called with a line if the teacher knows classes that the data has not; they are left out.

    Raises:
        InputError: The teacher does not know one of the labels.
    """
    chosen = [_position(teacher, label) for label in labels]
    surplus = [name for index, name in enumerate(teacher.labels) if index not in chosen]
    if surplus:
        say(f"teacher '{teacher.name}' knows {', '.join(surplus)} too, which the data has not: left out")

    def answer(crops: ImageU8) -> TeacherOutputs:
        given = teacher.answer(crops)
        return replace(given, logits=given.logits[:, chosen])

    space = teacher.space
    return replace(
        teacher,
        labels=tuple(labels),
        answer=answer,
        space=space and replace(space, class_vectors=space.class_vectors[chosen]),
    )


def ensemble(teachers: Sequence[Teacher]) -> Teacher:
    """Return several teachers of the same labels as one; a single one is returned as it is.

    Its probabilities are the mean of the members': logits of different nets have different scales.
    """
    if len(teachers) == 1:
        return teachers[0]
    return Teacher(
        kind="ensemble",
        name=" + ".join(teacher.name for teacher in teachers),
        labels=teachers[0].labels,
        sha256=hashlib.sha256("\n".join(teacher.sha256 for teacher in teachers).encode()).hexdigest(),
        answer=lambda crops: TeacherOutputs(
            mean_of_probabilities([teacher.answer(crops).logits for teacher in teachers])
        ),
        members=tuple(teachers),
    )


def mean_of_probabilities(logits: Sequence[FloatArray]) -> FloatArray:
    """Return logits (N, classes) whose softmax is the mean of the given ones' softmaxes."""
    stacked = np.stack(logits).astype(np.float64)
    stacked -= np.logaddexp.reduce(stacked, axis=-1, keepdims=True)
    mean: FloatArray = (np.logaddexp.reduce(stacked, axis=0) - np.log(len(logits))).astype(np.float32)
    return mean


def fitted(crops: ImageU8, size_hw: tuple[int, int], gray: bool = False) -> ImageU8:
    """Return crops in the size a teacher takes: bicubic with antialiasing, and of one channel if `gray`."""
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
            f"teacher '{teacher.name}' does not know the data's class '{label}': "
            f"its labels are {', '.join(teacher.labels)}"
        )
    return found[0]
