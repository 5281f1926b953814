"""Image classifiers made of a CLIP, with or without prompts: opened together with their data, and evaluated.

Each has a contract, as all classifiers do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit import __version__
from edgekit.contract import Contract, CropSpec, InputSpec, OutputSpec, Provenance
from edgekit.errors import InputError
from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.checkpoint import build_prompted, load_prompts
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.clip.hicropl import PromptedClip, frozen_classifier
from edgekit.models.clip.load import FrozenClip, load_clip
from edgekit.models.clip.options import ClipOptions
from edgekit.models.evaluation.evaluate import Evaluation, TorchClassifier
from edgekit.models.evaluation.options import EvaluateOptions
from edgekit.models.evaluation.run import evaluate, read_evaluation_data
from edgekit.models.torch_threads import set_torch_threads
from edgekit.options import build
from edgekit.preprocess import CROP_MARGIN, FloatArray

# Architectures in the contracts of CLIPs.
PROMPTED, PLAIN = "clip-prompted", "clip"


def prompted_classifier(
    net: PromptedClip,
    dataset_name: str,
    gray: bool = False,
    zero_shot: list[FloatArray] | None = None,
) -> TorchClassifier:
    """Return a prompted CLIP as a classifier; `net` is set to eval mode.

    Args:
        net: The prompted CLIP.
        dataset_name: Name of the data set in the contract.
        gray: Whether images are converted to gray, for prompts trained on gray images.
        zero_shot: List to which each classified batch appends the logits of the CLIP without prompts. They come from
            the same forward pass, so the images are encoded once for both.
    """
    net = net.eval()
    with torch.no_grad():
        text_features = net.text_features()  # once for all images

    def logits(images: Tensor) -> Tensor:
        prompted, plain = net.prompted_and_plain(images, text_features)
        if zero_shot is not None:
            zero_shot.append(plain.float().cpu().numpy())
        return prompted

    contract = clip_contract(PROMPTED, net.clip.config, net.classes, dataset_name, gray)
    return TorchClassifier(logits, contract, net.clip.logit_scale.device)


def zero_shot_classifier(
    clip: FrozenClip,
    class_descriptions: Mapping[str, Sequence[str]],
    dataset_name: str,
    gray: bool = False,
    text: Tensor | None = None,
) -> TorchClassifier:
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
        return clip.logit_scale * features @ vectors.T  # (N, embed_dim) @ (embed_dim, classes)

    contract = clip_contract(PLAIN, clip.config, tuple(class_descriptions), dataset_name, gray)
    return TorchClassifier(logits, contract, vectors.device)


def clip_contract(
    architecture: str, config: ClipConfig, labels: tuple[str, ...], dataset_name: str, gray: bool
) -> Contract:
    """Return the contract of a CLIP as a classifier of faces.

    `crop` states the preprocessing on a device. In torch, the data is read with the fit "clip" instead, and
    `to_clip_square` resizes the images as CLIP's authors do.
    """
    size_hw = (config.image_size_px, config.image_size_px)
    return Contract(
        architecture=architecture,
        labels=labels,
        input=InputSpec("input", size_hw, "rgb", 1 / 255, config.image_mean, config.image_std),
        crop=CropSpec(CROP_MARGIN, gray, resize_hw=size_hw, center_crop_hw=size_hw),
        output=OutputSpec("logits"),
        provenance=Provenance(dataset=dataset_name, edgekit_version=__version__),
    )


def evaluate_clip(clip: ClipOptions, prompts: str | None, data: Path, **values: Any) -> Evaluation:
    """Evaluate trained prompts or, without `prompts`, a CLIP alone.

    Without descriptions, prompts get the sentences of their training, a CLIP alone the shipped ones. `values` are
    arguments of `edgekit.evaluate`: they decide how the data is read here, and are passed on to `evaluate`.

    Raises:
        InputError: The CLIP, the prompts, the data or an option cannot be used, or they do not fit each other.
    """
    options = build(EvaluateOptions, model="", data=data, **values)  # only the other options are read here
    set_torch_threads(options.threads)
    if options.merges and options.ferplus:
        raise InputError("--merge with --ferplus is for nets: leave one of them out for a CLIP")
    assert clip.clip is not None  # the command calls this only with a CLIP
    trained = None if prompts is None else load_prompts(resolve_model(prompts, (CHECKPOINT_SUFFIX,)))
    frozen = load_clip(clip.clip, None if trained is None else trained.clip.config.activation)
    # Built before the data is read, which takes long, so that errors of the prompts are reported at once.
    net = None if trained is None else build_prompted(trained, frozen)
    dataset = read_evaluation_data(data, frozen.image_size_px, "clip", options, options.merges)
    describe = partial(descriptions_for, dataset.classes, clip.descriptions, options.notify, dataset=dataset.name)
    if net is None or trained is None:
        classifier = zero_shot_classifier(frozen, describe(), dataset.name, dataset.is_gray)
    else:
        if clip.descriptions:  # else the net has the sentences of its training
            net = net.with_classes(describe())
        classifier = prompted_classifier(net, dataset.name, gray=bool(trained.training.get("gray")))
    values["merges"] = ()  # the classes of `dataset` are merged already
    return evaluate(classifier, dataset, **values)
