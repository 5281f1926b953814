"""What a training starts from: subject, net, weights, recipe and input, chosen from the data where options do not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.contract import Contract, Fit, Subject
from edgekit.device.imaging import decode_image
from edgekit.errors import InputError
from edgekit.model_store import BEST_NAME
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.checkpoint import Checkpoint, load_checkpoint
from edgekit.models.data import EXPRESSIONS, rafdb, spread
from edgekit.models.data.fer2013 import SIDE_PX
from edgekit.models.data.files import CROP_TABLE
from edgekit.models.data.layout import CONTEMPT, Layout
from edgekit.models.data.readers import is_of_files, open_layout, single_channel_if_gray
from edgekit.models.model_loading import InputValues
from edgekit.models.nets.external_nets import EFFICIENTNET_LITE0
from edgekit.models.nets.registry import plain_name
from edgekit.models.training.init_weights import PRETRAINED, initial_checkpoint, input_values, is_pretrained_net
from edgekit.models.training.linear_layer import choose_fit
from edgekit.models.training.options import TrainOptions
from edgekit.models.training.recipes import DEFAULT_RECIPE
from edgekit.models.training.record import TrainingRecord

# Side of the kept images of a pretrained net; its input has 160 pixels.
PRETRAINED_IMAGE_PX = 176
# Larger pictures are not taken for the crops of a face data set.
_MOST_FACE_PX = 64
_PICTURES = 24


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


def choose_start(options: TrainOptions) -> Start:
    """Return what a training starts from, and report what was chosen.

    What the options leave open is taken from the training to resume. A new training takes net, size and fit from the
    initial checkpoint, if there is one. Its recipe follows from the net and the weights. Its subject depends on the
    data, because a model of faces can also start a model of whole images.

    Without a checkpoint, known face data sets and gray squares of at most 64 pixels are faces for EdgeCNN. Everything
    else is whole images for EfficientNet-Lite0 with its ImageNet weights.

    Raises:
        InputError: The data or the initial weights cannot be read.
    """
    notify = options.notify
    resumed = _checkpoint_to_resume(options)
    initial = initial_checkpoint(options.init) if resumed is None and options.init is not None else None
    checkpoint = resumed or initial
    known = checkpoint.contract if checkpoint else None
    look = look_at(options.data, options.contempt)

    subject = options.subject
    if subject == "auto":
        subject = resumed.contract.subject if resumed else _subject(look, known, notify)
    _warn_of_whole_images(subject, look, notify)

    model = options.model
    if model is None:
        default = "edgecnn" if subject == "face" else EFFICIENTNET_LITE0
        model = plain_name(known.architecture) if known else default
    init = options.init or (PRETRAINED if model == EFFICIENTNET_LITE0 else None)
    is_fine_tuned = init is not None and is_pretrained_net(model)

    recipe = options.recipe
    if recipe == "auto":
        recipe = "fine-tune" if is_fine_tuned else DEFAULT_RECIPE
        if resumed is not None:
            recipe = TrainingRecord.read(resumed.training).recipe_name or recipe
    notify(f"net: {model}; initial weights: {init or 'random'}; recipe: {recipe}")

    image_size_px = options.image_size
    if image_size_px is None and known and known.architecture == model:  # the size of another net has no meaning here
        image_size_px = known.crop.resize_hw[0]
    if image_size_px is None:
        image_size_px = PRETRAINED_IMAGE_PX if is_fine_tuned else SIDE_PX

    fit = _fit(options, known, subject == "face" or look.is_square)
    return Start(subject, model, init, recipe, image_size_px, fit, input_values(model, init))


def _checkpoint_to_resume(options: TrainOptions) -> Checkpoint | None:
    """Return the checkpoint that an interrupted training has left; None if nothing is resumed."""
    best = options.output / BEST_NAME
    return load_checkpoint(best) if options.resume and best.exists() else None


def _warn_of_whole_images(subject: Subject, look: Look, notify: Notify) -> None:
    """Report that most pictures do not look like crops of faces, although the model is one of faces."""
    if subject == "face" and look.squares < look.pictures / 2:
        notify(
            f"warning: {look.pictures - look.squares} of {look.pictures} pictures are not square, but a model of faces "
            "learns from crops of faces: cut them with 'edgekit data crop', or train on whole images (--subject image)"
        )


def _fit(options: TrainOptions, known: Contract | None, are_squares: bool) -> Fit:
    """Return how pictures become square: from the options, the contract `known`, or the fit that suits the data.

    `are_squares`: the pictures are squares, or crops of faces; so the fits need no comparison, which takes time.
    """
    if options.fit != "auto":
        return options.fit
    if known is not None:
        return known.crop.fit
    if are_squares:
        return "square"
    return choose_fit(options.data, options.contempt, options.train_split, options.notify)


def _subject(look: Look, known: Contract | None, notify: Notify) -> Subject:
    """Return what the data shows, and report the reason; `known` is the contract of the weights to start from."""
    if look.subject == "face":
        notify(f"the data shows faces: {look.faces_because}")
        return "face"
    if known is not None and known.subject == "face" and look.is_square:
        notify("the data shows faces: its pictures are squares, and the initial model is one of faces")
        return "face"
    notify("the model classifies whole images: for crops of faces, choose subject face (--subject face)")
    return "image"


@dataclass(frozen=True)
class Look:
    """What `look_at` found: why the data shows faces (empty: it does not), and how many of some pictures are square."""

    faces_because: str
    pictures: int = 0
    squares: int = 0

    @property
    def subject(self) -> Subject:
        """What the data shows."""
        return "face" if self.faces_because else "image"

    @property
    def is_square(self) -> bool:
        """Whether all of the pictures are square; true if none is counted."""
        return self.squares == self.pictures


def look_at(path: Path, contempt: str) -> Look:
    """Return what the data at `path` shows; `contempt` as for `edgekit.models.data.readers.load_dataset`.

    Faces are the known face data sets, the crops of `edgekit data crop`, and gray squares of at most 64 pixels.

    Raises:
        InputError: The data cannot be read.
    """
    if not is_of_files(path):
        return Look("it has the format of FER-2013")  # no picture is counted: all of them are gray squares
    with open_layout(path, contempt, ignore_message) as (files, layout):
        # A few images, evenly spaced over the whole data set.
        names = [layout.entries[index].path for index in spread(len(layout.entries), _PICTURES)]
        pictures = []
        for name in names:
            try:
                pictures.append(single_channel_if_gray(decode_image(files.read(name), str(name))))
            except InputError:
                # Reading all images fails on an unreadable one, so what is found here then has no effect.
                continue
        has_crop_table = any(name.name.lower() == CROP_TABLE for name in files.names)
    is_square = [picture.shape[0] == picture.shape[1] for picture in pictures]
    are_small = all(len(picture) <= _MOST_FACE_PX for picture in pictures)
    are_gray = all(picture.ndim == 2 or picture.shape[2] == 1 for picture in pictures)
    reason = _known_faces(layout)  # empty if the data set is not a known one
    if not reason and has_crop_table and all(is_square):
        reason = f"its {CROP_TABLE} lists crops of faces"
    elif not reason and are_small and are_gray and all(is_square):
        reason = f"its pictures are gray squares of at most {_MOST_FACE_PX} px"
    return Look(faces_because=reason, pictures=len(pictures), squares=sum(is_square))


def _known_faces(layout: Layout) -> str:
    """Return why a data set is a known one of faces; empty if it is not."""
    if layout.name == rafdb.NAME:
        return f"it is {rafdb.NAME}"
    return "its classes are expressions" if set(layout.classes) <= {*EXPRESSIONS, CONTEMPT} else ""
