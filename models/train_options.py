"""Options of `edgekit.train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from edgekit.models.training.options import MAX_PRIOR_STRENGTH, NetOptions
from edgekit.options import option
from edgekit.shared_options import merges

CacheChoice = Literal["auto", "memory", "disk"]
SubjectChoice = Literal["auto", "face", "image"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions(NetOptions):
    """Options of `edgekit.train`; those of `TrainingOptions` and `NetOptions` apply too."""

    model: str | None = option(
        "--model",
        "efficientnet-lite0, edgecnn, edgecnn-wide, edgecnn-g, edgecnn-g-learned, mini-xception, mobilenetv2, "
        "mobilenetv3-small, shufflenetv2-x0.5, timm/NAME or torchvision/NAME. Default: edgecnn for faces, "
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
        "Side of the kept images in pixels, for nets that accept any size (not EdgeCNN); the net's input has 11/12 of "
        "it. Default: 176 for pretrained nets, else 48.",
        least=48,
        most=224,
        main=True,
        section="Model",
    )
    cache_images: CacheChoice = option(
        "--cache-images",
        "Place of the decoded images. auto: on disk if the images need more than a quarter of the free memory.",
        default="auto",
        section="Model",
    )
    merges: Sequence[str] = merges(section="Classes")
    balance: bool = option(
        "--balance", "Draw each class equally often. The recipe adapt does so.", default=False, section="Classes"
    )
    prior_strength: float = option(
        "--prior-strength",
        "After the training, subtract T times the logarithm of each class's share from the logits. With T = 1, rare "
        "and common classes have equal influence.",
        default=0.0,
        least=0,
        most=MAX_PRIOR_STRENGTH,
        section="Classes",
    )

    _words: ClassVar[dict[str, Any]] = NetOptions._words | {"subject": SubjectChoice, "cache_images": CacheChoice}
