"""Open a CLIP, with or without prompts, together with the data it classifies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgekit.models.callbacks import Notify
from edgekit.models.clip.architecture import Activation
from edgekit.models.clip.checkpoint import build_prompted, load_prompts
from edgekit.models.clip.classifier import ClipClassifier, prompted_classifier, zero_shot_classifier
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.clip.load import load_clip
from edgekit.models.data import DataSet


def open_clip_classifier(
    clip_source: str | Path,
    prompts: Path | None,
    descriptions: Path | None,
    read: Callable[[int], DataSet],
    notify: Notify,
    activation: Activation | None = None,
) -> tuple[ClipClassifier, DataSet]:
    """Return a classifier and the data set to classify.

    Both are opened by one function because the CLIP determines the size of the images, and the data determine the
    classes.

    Args:
        clip_source: As for `load_clip`.
        prompts: File of trained prompts; None: the plain CLIP.
        descriptions: File of sentences for the data's classes; default: with prompts the sentences used in their
            training, without prompts the shipped ones.
        read: Returns the data set, given the height and width of its images in pixels.
        notify: Called with one message that names the classes without description.
        activation: The CLIP's activation function, as for `load_clip`; default: with prompts, the one used in their
            training.

    Raises:
        InputError: The CLIP, the prompts, the data or the descriptions are invalid or do not fit each other.
    """
    checkpoint = None if prompts is None else load_prompts(prompts)
    trained_with = None if checkpoint is None else checkpoint.clip.config.activation
    clip = load_clip(clip_source, activation or trained_with)
    net = None if checkpoint is None else build_prompted(checkpoint, clip)
    dataset = read(clip.image_size_px)
    if net is None or checkpoint is None:
        texts = descriptions_for(dataset.classes, descriptions, notify, dataset=dataset.name)
        return zero_shot_classifier(clip, texts, dataset.name, dataset.is_gray), dataset
    if descriptions:
        net = net.with_classes(descriptions_for(dataset.classes, descriptions, notify, dataset=dataset.name))
    return prompted_classifier(net, dataset.name, bool(checkpoint.training.get("gray"))), dataset
