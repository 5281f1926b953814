"""Open and evaluate a CLIP, with or without prompts, together with the data it classifies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.errors import InputError
from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.callbacks import Notify
from edgekit.models.clip.checkpoint import build_prompted, load_prompts
from edgekit.models.clip.classifier import ClipClassifier, prompted_classifier, zero_shot_classifier
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.clip.load import load_clip
from edgekit.models.clip.options import Activation, ClipOptions
from edgekit.models.data import DataSet
from edgekit.models.evaluation.evaluate import Evaluation
from edgekit.models.evaluation.options import EvaluateOptions
from edgekit.models.evaluation.run import evaluate, read_evaluation_data
from edgekit.models.torch_threads import set_torch_threads
from edgekit.options import build


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


def evaluate_clip(clip: ClipOptions, prompts: str | None, data: Path, **values: Any) -> Evaluation:
    """Evaluate trained prompts or, without `prompts`, a CLIP alone; `values` are arguments of `edgekit.evaluate`.

    Raises:
        InputError: The CLIP, the prompts, the data or an option cannot be used.
    """
    options = build(EvaluateOptions, "", data, **values)
    set_torch_threads(options.threads)
    if options.merges and options.ferplus:
        raise InputError("--merge with --ferplus is for nets: leave one of them out for a CLIP")

    def read(size_px: int) -> DataSet:
        notify, progress = options.notify, options.progress
        merges, contempt = options.merges, options.contempt
        return read_evaluation_data(data, size_px, "clip", merges, contempt, notify=notify, progress=progress)

    path = None if prompts is None else resolve_model(prompts, (CHECKPOINT_SUFFIX,))
    assert clip.clip is not None
    activation, descriptions = clip.activation, clip.descriptions
    classifier, dataset = open_clip_classifier(clip.clip, path, descriptions, read, options.notify, activation)
    return evaluate(classifier, dataset, **values | {"merges": ()})  # merged when they were read
