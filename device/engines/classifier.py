"""The classifier: face crops or images in, class probabilities out.

import cv2
import edgekit

model = edgekit.load_model("default")
predictions = model.predict(cv2.imread("face.jpg"))
print(predictions.labels, predictions.probabilities)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from edgekit.contract import Contract
from edgekit.device.engines.engine import device_suffixes, open_engine
from edgekit.device.engines.session import default_intra_op_threads
from edgekit.device.imaging import check_image, read_image, resize
from edgekit.errors import InputError
from edgekit.model_store import asset, resolve_model
from edgekit.preprocess import (
    AnyImage,
    FloatArray,
    ImageU8,
    crop_face,
    crop_image,
    log_mean_probabilities,
    softmax,
    to_input,
    with_mirror_images,
)

if TYPE_CHECKING:
    from edgekit.device.engines.session import OnnxRuntimeEngine


@dataclass(frozen=True, eq=False)
class Predictions:
    """The class probabilities of N images.

    Attributes:
        classes: The model's labels, the names of the columns of `probabilities`.
        probabilities: float32 (N, classes).
    """

    classes: tuple[str, ...]
    probabilities: FloatArray

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def labels(self) -> tuple[str, ...]:
        """The most probable class of each image."""
        return tuple(self.classes[index] for index in self.probabilities.argmax(axis=1))


class Classifier:
    """A model file, loaded by its engine. Input size, preprocessing and labels come from the file's contract.

    Attributes:
        path: The model file.
        contract: Its contract.
        mirror: Whether probabilities are the mean over each crop and its mirror image, which takes twice the time.
        intra_op_threads: Threads within one inference.
    """

    def __init__(self, path: Path, intra_op_threads: int | None = None) -> None:
        """Load the model file at `path` with its engine.

        Args:
            path: An .onnx or .ncnn file, or a file for an engine of another package.
            intra_op_threads: Threads within one inference; default: `default_intra_op_threads`.

        Raises:
            InputError: As `open_engine`.
        """
        self.path = path
        self.intra_op_threads = intra_op_threads or default_intra_op_threads()
        self._engine = open_engine(path, self.intra_op_threads)
        self.contract = self._engine.contract
        self.mirror = False  # whether to average over each crop and its mirror image; callers set it

    def __repr__(self) -> str:
        """Return what the model is: file, architecture, subject, input and labels."""
        contract = self.contract
        height, width = contract.input.size_hw
        colour = "gray" if contract.crop.grayscale else "colour"
        return (
            f"Classifier('{self.path}': {contract.architecture} for {contract.subject}s, {width}x{height} px {colour}, "
            f"{contract.precision}, labels {', '.join(contract.labels)})"
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in the order of the model's outputs."""
        return self.contract.labels

    def predict(self, images: AnyImage | Sequence[AnyImage], channels: Literal["bgr", "rgb"] = "bgr") -> Predictions:
        """Return the class probabilities of images of any size, as `edgekit run --detector none` computes them.

        Args:
            images: One image, uint8 (H, W, 3) or gray (H, W), or several: a list of images, whose sizes may differ, or
                an array (N, H, W, 3) or (N, H, W).
            channels: Channel order of colour images.

        Raises:
            InputError: An image has another shape or type, or the model returns NaN or infinity.
        """
        if channels not in ("bgr", "rgb"):
            raise InputError(f"channels is {channels!r}: expected 'bgr' or 'rgb'")

        crops = []
        for each in _as_list(images):
            image = check_image(each)
            if channels == "rgb" and image.ndim == 3:
                image = image[:, :, ::-1]  # to B, G, R
            crops.append(crop_image(image, self.contract.crop, self.contract.input.size_hw, resize))
        if not crops:
            return Predictions(self.labels, np.zeros((0, len(self.labels)), np.float32))
        return Predictions(self.labels, self.probabilities(np.stack(crops)))

    def probabilities(self, crops: ImageU8) -> FloatArray:
        """Return the class probabilities (N, classes) of crops, see `logits`.

        Raises:
            InputError: The model fails or returns NaN or infinity.
        """
        logits = self.logits(crops)
        self._require_finite(logits)
        return softmax(logits)

    def outputs(self, crops: ImageU8) -> tuple[FloatArray, FloatArray | None]:
        """Return the class probabilities (N, classes) of crops, and their distances (N,) from the training images.

        Only taught models compute distances, see `Contract.distance`; for others, and without crops, they are None.

        Raises:
            InputError: As `probabilities`.
        """
        if self.contract.distance is None or len(crops) == 0:
            return self.probabilities(crops), None
        views = with_mirror_images(crops) if self.mirror else crops  # N or 2 N
        engine = cast("OnnxRuntimeEngine", self._engine)  # the only engine of files with distances
        logits, distances = engine.infer_with_distance(to_input(views, self.contract.input))
        self._require_finite(logits)
        # (1 or 2, N, ...): the crops, and with `mirror` their mirror images.
        probabilities = softmax(logits).reshape(-1, len(crops), len(self.labels))
        return probabilities.mean(axis=0), distances.reshape(-1, len(crops)).mean(axis=0)

    def logits(self, crops: ImageU8) -> FloatArray:
        """Return the logits (N, classes) of crops: uint8 (N, H, W, 1 or 3) from `preprocess.crop_face`, N may be 0.

        With `mirror`, these are the logarithms of the mean probabilities.
        """
        if len(crops) == 0:
            return np.zeros((0, len(self.labels)), np.float32)
        if not self.mirror:
            return self.infer(to_input(crops, self.contract.input))
        both = self.infer(to_input(with_mirror_images(crops), self.contract.input))  # (2 N, classes)
        return log_mean_probabilities(both.reshape(2, len(crops), -1))  # the mean over the first axis

    def _require_finite(self, logits: FloatArray) -> None:
        """Raise InputError if the model's output contains NaN or infinity."""
        if not np.isfinite(logits).all():
            raise InputError(f"the output of model '{self.path}' contains NaN or infinity: export the model again")

    def infer(self, tensor: FloatArray | ImageU8) -> FloatArray:
        """Return the logits (N, classes) of the net's input (N, channels, H, W), see `preprocess.to_input`.

        Raises:
            InputError: The graph fails.
        """
        return self._engine.infer(tensor)


def load_model(model: str | Path = "default", *, threads: int | None = None) -> Classifier:
    """Return a loaded model that can classify images.

    Args:
        model: Name of a shipped model ("default", "fer2013", "distilled"), or path of an .onnx or .ncnn file with a
            contract, or path of a file for an engine of another package.
        threads: Threads within one inference; default: one on a PC, all processors on other machines.

    Raises:
        InputError: The file does not exist, cannot be loaded or has no valid contract, or its engine is not installed.
    """
    return Classifier(resolve_model(str(model), device_suffixes(str(model))), threads)


def _as_list(images: AnyImage | Sequence[AnyImage]) -> Sequence[AnyImage]:
    """Return one or several images as a list of images, which `check_image` checks later.

    An array (N, H, W) is a stack of gray images, but (H, W, 4 or fewer channels) is one image.
    """
    if isinstance(images, np.ndarray):
        is_stack = images.ndim == 4 or (images.ndim == 3 and images.shape[2] > 4)
        return list(images) if is_stack else [images]
    return list(images) if isinstance(images, Sequence) else [images]


# Face box in the shipped portrait; scales and shifts of the box are fractions of its side.
_PORTRAIT = "astronaut.png"
_FACE_XYXY = (172.0, 66.0, 276.0, 190.0)
_SCALES = (0.85, 1.0, 1.25)
_SHIFTS = (-0.12, 0.0, 0.12)


def portrait_crops(contract: Contract) -> ImageU8:
    """Return different crops of the face in the shipped portrait, on which exported files are compared with their nets.

    There are 27 boxes, one for each combination of 3 scales and 3 x 3 shifts; each is also cut from the mirror image.

    Returns:
        uint8 (54, H, W, 1 or 3) in the contract's input size.
    """
    portrait_bgr = read_image(asset(_PORTRAIT))
    mirrored_bgr = np.ascontiguousarray(portrait_bgr[:, ::-1])
    width = portrait_bgr.shape[1]
    face_x0, face_y0, face_x1, face_y1 = _FACE_XYXY
    side = max(face_x1 - face_x0, face_y1 - face_y0)
    crops = []
    for scale, shift_x, shift_y in product(_SCALES, _SHIFTS, _SHIFTS):
        centre_x, centre_y = (face_x0 + face_x1) / 2 + shift_x * side, (face_y0 + face_y1) / 2 + shift_y * side
        half = scale * side / 2
        x0, y0, x1, y1 = centre_x - half, centre_y - half, centre_x + half, centre_y + half
        for image_bgr, xyxy in ((portrait_bgr, (x0, y0, x1, y1)), (mirrored_bgr, (width - x1, y0, width - x0, y1))):
            crops.append(crop_face(image_bgr, xyxy, contract.crop, contract.input.size_hw, resize))
    return np.stack(crops)
