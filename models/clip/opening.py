"""A CLIP and a data set, as the command line names them, opened together: each needs something of the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
    say: Callable[[str], None],
    activation: Activation | None = None,
) -> tuple[ClipClassifier, DataSet]:
    """Return a classifier and the data to classify.

    Args:
        clip_source: What `load_clip` takes.
        prompts: A file of trained prompts; None: the CLIP as it is.
        descriptions: Sentences for the data's classes; default: those the prompts were trained with, or without
            prompts the shipped ones.
        read: Returns the data, given the side of its pictures in pixels.
        say: Called with a line on classes that lack a description.
        activation: See `load_clip`; default: what the prompts were trained with, or what the file's form says.

    Raises:
        InputError: The CLIP, the prompts, the data or the descriptions cannot be used, or do not fit.
    """
    checkpoint = None if prompts is None else load_prompts(prompts)
    trained_with = None if checkpoint is None else checkpoint.clip.config.activation
    clip = load_clip(clip_source, activation or trained_with)
    net = None if checkpoint is None else build_prompted(checkpoint, clip)
    dataset = read(clip.image_size_px)
    if net is None or checkpoint is None:
        texts = descriptions_for(dataset.classes, descriptions, say)
        return zero_shot_classifier(clip, texts, dataset.name, dataset.is_gray), dataset
    if descriptions:
        net = net.with_classes(descriptions_for(dataset.classes, descriptions, say))
    return prompted_classifier(net, dataset.name, bool(checkpoint.training.get("gray"))), dataset
