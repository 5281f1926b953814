"""What a training starts from: subject, net, weights, recipe and input, chosen from the data where options do not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.contract import METADATA_KEY, Contract, Fit, Subject
from edgekit.model_store import BEST_NAME, CHECKPOINT_SUFFIX, DEVICE_SUFFIXES, resolve_model
from edgekit.models.callbacks import Notify
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint
from edgekit.models.checkpoints.tensorfile import read_header
from edgekit.models.data.fer2013 import SIDE_PX
from edgekit.models.data.subject import Look, look_at
from edgekit.models.nets import efficientnet_lite0
from edgekit.models.nets.registry import plain_name
from edgekit.models.pretrained import PRETRAINED, InputValues, is_pretrained_net, pretrained_input
from edgekit.models.training.fit_choice import choose_fit
from edgekit.models.training.options import NetOptions
from edgekit.models.training.recipes import DEFAULT_RECIPE
from edgekit.models.training.record import TrainingRecord

# Side of the kept images of a pretrained net; its input has 160 pixels.
PRETRAINED_IMAGE_PX = 176


@dataclass(frozen=True)
class Start:
    """The start of a training; `values` is the normalisation of the net's input."""

    subject: Subject
    model: str
    init: str | None
    recipe: str
    image_size_px: int
    fit: Fit
    values: InputValues


def choose_start(
    options: NetOptions, model: str | None, subject: Subject | Literal["auto"], image_size_px: int | None
) -> Start:
    """Return what a training starts from, and report what was chosen.

    What the options leave open is taken from the training to resume, or else from the initial checkpoint, or else from
    the data: known face data sets and gray squares of at most 64 pixels are faces for EdgeCNN. Everything else is whole
    images for EfficientNet-Lite0 with its ImageNet weights.

    Raises:
        InputError: The data or the initial weights cannot be read.
    """
    best, notify = options.output / BEST_NAME, options.notify
    before = load_checkpoint(best) if options.resume and best.exists() else None
    initial = None if options.init is None else initial_checkpoint(options.init)
    known = before.contract if before else initial.contract if initial else None
    look = look_at(options.data, options.contempt)
    if subject == "auto":
        subject = before.contract.subject if before else _subject(look, known, notify)
    if subject == "face" and not look.is_square and 2 * look.squares < look.pictures:
        notify(
            f"warning: {look.pictures - look.squares} of {look.pictures} pictures are not square, but a model of faces "
            "learns from crops of faces: cut them with 'edgekit data crop', or train on whole images with subject image"
        )
    if model is None:
        default = "edgecnn" if subject == "face" else efficientnet_lite0.NAME
        model = plain_name(known.architecture) if known else default
        notify(f"net: {model}")
    init = options.init or (PRETRAINED if model == efficientnet_lite0.NAME else None)
    recipe = options.recipe
    if recipe == "auto":
        recipe = DEFAULT_RECIPE if init is None or not is_pretrained_net(model) else "fine-tune"
        recipe = (before and TrainingRecord.read(before.training).recipe_name) or recipe
    if image_size_px is None:
        image_size_px = PRETRAINED_IMAGE_PX if init and is_pretrained_net(model) else SIDE_PX
        image_size_px = known.crop.resize_hw[0] if known and known.architecture == model else image_size_px
    if options.fit != "auto":
        fit = options.fit
    elif known:
        fit = known.crop.fit
    elif subject == "face" or look.is_square:
        fit = "square"
    else:
        fit = choose_fit(options.data, options.contempt, options.train_split, notify)
    return Start(subject, model, init, recipe, image_size_px, fit, input_values(model, init))


def _subject(look: Look, known: Contract | None, notify: Notify) -> Subject:
    if look.subject == "face":
        notify(f"the data shows faces: {look.faces_because}")
        return "face"
    if known is not None and known.subject == "face" and look.is_square:
        notify("the data shows faces: its pictures are squares, and the initial model is one of faces")
        return "face"
    notify("the model classifies whole images (subject face: crops of faces)")
    return "image"


def initial_checkpoint(init: str) -> Checkpoint | None:
    """Return the checkpoint of edgekit that `init` names; None: it is a file of another project, or "pretrained".

    Raises:
        InputError: The file is missing or damaged, or is a model for a device.
    """
    path = Path(init)
    if init == PRETRAINED or (path.is_file() and _is_foreign(path)):
        return None
    return load_checkpoint(resolve_model(init, (CHECKPOINT_SUFFIX,)))


def _is_foreign(path: Path) -> bool:
    if path.suffix == CHECKPOINT_SUFFIX:
        return not any(key.startswith(METADATA_KEY) for key in read_header(path))
    return path.suffix not in DEVICE_SUFFIXES


def input_values(model: str, init: str | None) -> InputValues:
    """Return the normalisation of a net's input: the one that its initial weights were trained with.

    Raises:
        InputError: As `initial_checkpoint`.
    """
    if init is None:
        return InputValues()
    checkpoint = initial_checkpoint(init)
    if checkpoint is None:
        return pretrained_input(model) if is_pretrained_net(model) else InputValues()
    spec = checkpoint.contract.input
    return InputValues(spec.scale, spec.mean, spec.std) if spec.channels == "rgb" else InputValues()
