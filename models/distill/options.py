"""Options of `edgekit.distill`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgekit.errors import InputError
from edgekit.models.training.options import NetOptions
from edgekit.options import option

_TEACHER, _LOSS = "Teacher and student", "Loss"


@dataclass(frozen=True, kw_only=True)
class DistillOptions(NetOptions):
    """Options of `edgekit.distill`; those of `TrainingOptions` and `NetOptions` apply too.

    Attributes:
        contempt: "drop", "keep", or the class that images of contempt are counted as.
    """

    contempt: str = "drop"
    teachers: Sequence[str] = option(
        "--teacher",
        "Model, folder of a training, file of prompts, CLIP file or open_clip name. Repeatable; several teachers are "
        "averaged.",
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
    unlabelled: Path | None = option(
        "--unlabelled", "Folder or .tar of images without labels, in addition to --data.", main=True, section="Data"
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

    _paths: ClassVar[tuple[str, ...]] = (*NetOptions._paths, "unlabelled", "descriptions")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.teachers:
            raise InputError("no teacher is given")
