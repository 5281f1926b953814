"""Image classifiers made of a CLIP, with or without prompts; each has a contract, as all classifiers do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from edgekit import __version__
from edgekit.contract import Contract, CropSpec, InputSpec, OutputSpec, Provenance
from edgekit.models.checkpoints.provenance import git_revision
from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.frozen import FrozenClip
from edgekit.models.clip.prompted import PromptedClip, frozen_classifier
from edgekit.preprocess import CROP_MARGIN, FloatArray, ImageU8, to_tensor

# Architectures in the contracts of CLIPs.
PROMPTED, PLAIN = "clip-prompted", "clip"


class ClipClassifier:
    """A CLIP as an image classifier; created by `prompted_classifier` or `zero_shot_classifier`."""

    def __init__(self, contract: Contract, logits: Callable[[Tensor], Tensor], device: torch.device) -> None:
        """Create the classifier; `logits` maps normalised images (N, 3, H, W) to logits (N, labels)."""
        self.contract = contract
        self._logits = logits
        self._device = device

    @torch.no_grad()
    def logits(self, crops: ImageU8) -> FloatArray:
        """Return logits, float32 (N, labels), of images, uint8 (N, H, W, 1 or 3)."""
        images = torch.from_numpy(to_tensor(crops, self.contract.input)).to(self._device)
        return np.asarray(self._logits(images).float().cpu().numpy(), np.float32)


def prompted_classifier(
    net: PromptedClip,
    dataset_name: str,
    gray: bool = False,
    zero_shot: list[FloatArray] | None = None,
    zero_shot_text: Tensor | None = None,
) -> ClipClassifier:
    """Return a prompted CLIP as a classifier; `net` is set to eval mode.

    Args:
        net: The prompted CLIP.
        dataset_name: Name of the data set in the contract.
        gray: Whether images are converted to gray, for prompts trained on gray images.
        zero_shot: List to which the logits of the CLIP without prompts are appended, one array per batch.
        zero_shot_text: Text features (K, embed_dim) of the CLIP without prompts; None: those of the net's classes.
    """
    net = net.eval()
    with torch.no_grad():
        text = net.text_features()

    def logits(images: Tensor) -> Tensor:
        prompted, plain = net.prompted_and_plain(images, text, zero_shot_text)
        if zero_shot is not None:
            zero_shot.append(plain.float().cpu().numpy())
        return prompted

    contract = clip_contract(PROMPTED, net.clip.config, net.classes, dataset_name, gray)
    return ClipClassifier(contract, logits, net.clip.logit_scale.device)


def zero_shot_classifier(
    clip: FrozenClip,
    class_descriptions: Mapping[str, Sequence[str]],
    dataset_name: str,
    gray: bool = False,
    text: Tensor | None = None,
) -> ClipClassifier:
    """Return a plain CLIP as a classifier of the described classes.

    Args:
        clip: The CLIP.
        class_descriptions: Sentences per class, in the order of the logits.
        dataset_name: Name of the data set in the contract.
        gray: Whether images are converted to gray.
        text: Text features (classes, embed_dim) of the descriptions, if they are already computed.

    Raises:
        InputError: A description is longer than the context.
    """
    vectors = frozen_classifier(clip, class_descriptions) if text is None else text

    def logits(images: Tensor) -> Tensor:
        features = torch.nn.functional.normalize(clip.encode_image(images).float(), dim=-1)
        return clip.logit_scale * features @ vectors.T

    contract = clip_contract(PLAIN, clip.config, tuple(class_descriptions), dataset_name, gray)
    return ClipClassifier(contract, logits, vectors.device)


def clip_contract(
    architecture: str, config: ClipConfig, labels: tuple[str, ...], dataset_name: str, gray: bool
) -> Contract:
    """Return the contract of a CLIP as a classifier of faces; the net's input has the size of the CLIP's.

    Its `crop` is what a device does; in torch a CLIP gets the pixels of its authors, see `to_clip_square`.
    """
    size_hw = (config.image_size_px, config.image_size_px)
    return Contract(
        architecture=architecture,
        labels=labels,
        input=InputSpec("input", size_hw, "rgb", 1 / 255, config.image_mean, config.image_std),
        crop=CropSpec(CROP_MARGIN, gray, size_hw, size_hw),
        output=OutputSpec("logits"),
        provenance=Provenance(dataset=dataset_name, git_revision=git_revision(), edgekit_version=__version__),
    )
