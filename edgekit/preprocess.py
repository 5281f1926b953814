"""Preprocessing: from a face box to the net's input tensor.

Evaluation in training, calibration, verification and the runtime all use these functions, so that a model gets the same
pixels on the Pi as when its accuracy was measured. Arrays are numpy; the resizing function is an argument
(`edgekit.device.imaging.resize`), which keeps OpenCV out of the core.

Shapes: an image is uint8 (height, width) gray or (height, width, 3) B, G, R; a crop is uint8 (height, width, 1 or 3),
with three channels R, G, B.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import CropSpec, Fit, InputSpec

ImageU8: TypeAlias = NDArray[np.uint8]
# What `cv2.imread` returns for type checkers; the functions that users call check that it is uint8.
AnyImage: TypeAlias = NDArray[Any]
FloatArray: TypeAlias = NDArray[np.float32]
Resize: TypeAlias = Callable[[ImageU8, tuple[int, int]], ImageU8]

# Margin around a detected face box, as a fraction of its side; chosen by accuracy (docs/reference/results.md).
CROP_MARGIN = 0.04

# ITU-R BT.601 luma in 1/2^14, the weights OpenCV and JPEG use: B, G, R.
_LUMA_BGR = np.array([1868, 9617, 4899], dtype=np.uint32)
_LUMA_SHIFT = 14


def square_crop_box(
    xyxy: Sequence[float] | FloatArray, frame_wh: tuple[int, int], margin: float
) -> tuple[int, int, int, int]:
    """Return the square region to crop for a face box, as integers (x0, y0, x1, y1) inside the frame.

    The square is centred on the box. Its side is the mean of the box's width and height times `1 + 2 * margin`, at
    least one pixel and at most the frame's shorter side. A square that would extend beyond the frame is moved inside.

    With the mean of width and height as side, the same margin fits YuNet's tall boxes and Haar's square boxes.

    Args:
        xyxy: Left, top, right, bottom in pixels; may lie partly outside the frame.
        frame_wh: Width and height of the frame, each at least 1.
        margin: Fraction of the side added on every side.
    """
    x0, y0, x1, y1 = (float(value) for value in xyxy)
    frame_w, frame_h = frame_wh
    side = (x1 - x0 + y1 - y0) / 2 * (1 + 2 * margin)
    side_px = int(min(max(round(side), 1), frame_w, frame_h))
    # One half is rounded up. `round` would round it to the even neighbour: while a box moves by 1 px per frame, its
    # crop would move by 0 or 2 px.
    left = math.floor((x0 + x1 - side_px) / 2 + 0.5)
    top = math.floor((y0 + y1 - side_px) / 2 + 0.5)
    left = min(max(left, 0), frame_w - side_px)
    top = min(max(top, 0), frame_h - side_px)
    return left, top, left + side_px, top + side_px


def crop_face(
    image_bgr: ImageU8, xyxy: Sequence[float] | FloatArray, crop: CropSpec, size_hw: tuple[int, int], resize: Resize
) -> ImageU8:
    """Return the crop of one face: uint8 (size_hw[0], size_hw[1], 1) if `crop.grayscale`, else (…, 3) R, G, B.

    Args:
        image_bgr: The frame, uint8 (H, W) gray or (H, W, 3) B, G, R.
        xyxy: The face box: left, top, right, bottom in pixels.
        crop: The contract's crop.
        size_hw: The contract's input size.
        resize: Called only when the size differs from `crop.resize_hw`, with (width, height).
    """
    height, width = image_bgr.shape[:2]
    x0, y0, x1, y1 = square_crop_box(xyxy, (width, height), crop.margin)
    return center_crop(_resized(image_bgr[y0:y1, x0:x1], crop, resize), size_hw)


def crop_image(image_bgr: ImageU8, crop: CropSpec, size_hw: tuple[int, int], resize: Resize) -> ImageU8:
    """Fit an image that has no face box with `fit_image`, and return its centre crop in the net's size.

    Arguments and result are those of `crop_face`. Training, evaluation, calibration and verification read image files
    with this function, or with `fit_image` where augmentation moves the crop. The runtime uses it for whole frames.
    """
    return center_crop(fit_image(image_bgr, crop, resize), size_hw)


def fit_image(image_bgr: ImageU8, crop: CropSpec, resize: Resize) -> ImageU8:
    """Return an image that has no face box in the size `crop.resize_hw`: uint8 (H, W, 1) gray or (H, W, 3) R, G, B.

    With `crop.fit` "square", the largest central part with the aspect ratio of `resize_hw` is resized. With "pad", gray
    bars are added to reach that aspect ratio. With "stretch", width and height are resized by different factors.
    """
    return _resized(_FITS[crop.fit](image_bgr, crop.resize_hw), crop, resize)


def _central_part(image: ImageU8, shape_hw: tuple[int, int]) -> ImageU8:
    """Return a view of the largest central part of an image that has the aspect ratio of `shape_hw`."""
    height, width = image.shape[:2]
    shape_h, shape_w = shape_hw
    # Pixels of the image per pixel of the shape, so that the part just fits into the image.
    scale = min(height / shape_h, width / shape_w)
    part_h, part_w = max(round(shape_h * scale), 1), max(round(shape_w * scale), 1)
    # One half is rounded up, as in `square_crop_box`.
    top, left = math.floor((height - part_h) / 2 + 0.5), math.floor((width - part_w) / 2 + 0.5)
    return image[top : top + part_h, left : left + part_w]


def _padded(image: ImageU8, shape_hw: tuple[int, int]) -> ImageU8:
    """Return an image with gray bars on two sides, so that it has the aspect ratio of `shape_hw`."""
    height, width = image.shape[:2]
    shape_h, shape_w = shape_hw
    # Pixels of the image per pixel of the shape, so that the image just fits into the result.
    scale = max(height / shape_h, width / shape_w)
    padded_h, padded_w = max(round(shape_h * scale), height), max(round(shape_w * scale), width)
    if (padded_h, padded_w) == (height, width):
        return image
    padded = np.full((padded_h, padded_w, *image.shape[2:]), _PADDING, np.uint8)
    top, left = (padded_h - height) // 2, (padded_w - width) // 2
    padded[top : top + height, left : left + width] = image
    return padded


_PADDING = 128
_FITS: dict[Fit, Callable[[ImageU8, tuple[int, int]], ImageU8]] = {
    "square": _central_part,
    "pad": _padded,
    "stretch": lambda image, _shape_hw: image,
}


def _resized(image_bgr: ImageU8, crop: CropSpec, resize: Resize) -> ImageU8:
    """Return an image resized to `crop.resize_hw`: (H, W, 1) gray or (H, W, 3) R, G, B."""
    height, width = crop.resize_hw
    if image_bgr.shape[:2] != (height, width):
        image_bgr = resize(image_bgr, (width, height))
    if crop.grayscale:
        return to_gray(image_bgr)[:, :, np.newaxis]
    if image_bgr.ndim == 2:  # a gray image for a net with three channels
        return np.repeat(image_bgr[:, :, np.newaxis], 3, axis=2)
    return np.ascontiguousarray(image_bgr[:, :, ::-1])  # B, G, R to R, G, B


def to_gray(image_bgr: ImageU8) -> ImageU8:
    """Return the luma (ITU-R BT.601, rounded) of a uint8 image in B, G, R as (H, W); a gray image is unchanged."""
    if image_bgr.ndim == 2:
        return image_bgr
    weighted = image_bgr[..., :3].astype(np.uint32) @ _LUMA_BGR  # a fourth channel would be alpha
    # Adding one half before the shift rounds to the nearest integer.
    gray: ImageU8 = ((weighted + (1 << (_LUMA_SHIFT - 1))) >> _LUMA_SHIFT).astype(np.uint8)
    return gray


def center_crop(image: ImageU8, size_hw: tuple[int, int]) -> ImageU8:
    """Return the centre crop of an image (H, W, C) or a batch (N, H, W, C), as torchvision's CenterCrop does."""
    top, left = (round((have - want) / 2) for have, want in zip(image.shape[-3:-1], size_hw, strict=True))
    return image[..., top : top + size_hw[0], left : left + size_hw[1], :]


def ten_crops(images: ImageU8, size_hw: tuple[int, int]) -> ImageU8:
    """Return the four corner crops and the centre crop of each image and of its mirror image.

    Args:
        images: uint8 (N, H, W, C).
        size_hw: Height and width of the crops.

    Returns:
        uint8 (N, 10, size_hw[0], size_hw[1], C): top left, top right, bottom left, bottom right, centre, then the same
        five of the mirrored image.
    """
    height, width = size_hw
    crops = []
    for view in (images, images[:, :, ::-1]):  # each (N, H, W, C); the second one is mirrored along W
        crops += [
            view[:, :height, :width],
            view[:, :height, -width:],
            view[:, -height:, :width],
            view[:, -height:, -width:],
            center_crop(view, size_hw),
        ]
    return np.stack(crops, axis=1)


def with_mirror_images(crops: ImageU8) -> ImageU8:
    """Return N crops and then their mirror images (left and right exchanged): uint8 (2 N, H, W, C)."""
    return np.concatenate([crops, crops[:, :, ::-1]])


def log_mean_probabilities(logits: FloatArray) -> FloatArray:
    """Return the logarithms of the mean probabilities over several views of each image.

    Args:
        logits: float32 (views, N, classes).

    Returns:
        float32 (N, classes), to be used as logits: their softmax is the mean probabilities.
    """
    means: FloatArray = softmax(logits).mean(axis=0)
    # The smallest positive number instead of 0, which has no logarithm.
    return np.log(np.maximum(means, np.finfo(np.float32).tiny))


def to_input(crops: ImageU8, spec: InputSpec) -> FloatArray | ImageU8:
    """Return the input of a model file: (N, channels, H, W), contiguous, in the contract's element type.

    For "uint8" the result contains the pixels unchanged, for "float32" it is the result of `to_tensor`. Arguments and
    errors are those of `to_tensor`. A contiguous batch of gray crops for a gray uint8 net is not copied.
    """
    if spec.element_type == "float32":
        return to_tensor(crops, spec)
    planes = _planes(crops, spec)
    if planes.shape[1] != len(spec.mean):  # gray crops for a net with three channels
        planes = np.repeat(planes, len(spec.mean), axis=1)
    return np.ascontiguousarray(planes)


def to_tensor(crops: ImageU8, spec: InputSpec) -> FloatArray:
    """Return the normalised input of a net: float32 (N, channels, H, W), contiguous.

    Args:
        crops: uint8 (N, H, W, 1 or 3), colour crops in R, G, B. A gray channel is repeated for a net with three.
        spec: The contract's input; the result is `(pixel * scale - mean) / std` in its channel order.

    Raises:
        ValueError: The crops have colour but the net takes gray.
    """
    channels = len(spec.mean)
    planes = _planes(crops, spec).astype(np.float32)  # (N, 1 or 3, H, W)
    planes *= np.float32(spec.scale)
    # A mean of 0 and a deviation of 1 change nothing.
    if any(value != 0 for value in spec.mean) or any(value != 1 for value in spec.std):
        shape = (1, channels, 1, 1)  # one value per channel
        mean, std = (np.asarray(values, np.float32).reshape(shape) for values in (spec.mean, spec.std))
        planes = (planes - mean) / std  # a gray channel becomes `channels` channels here
    if planes.shape[1] != channels:  # gray crops for a net with three channels, not repeated above
        planes = np.repeat(planes, channels, axis=1)
    return np.ascontiguousarray(planes)


def _planes(crops: ImageU8, spec: InputSpec) -> ImageU8:
    """Return a view of the crops as (N, 1 or 3, H, W), with the channels in the net's order."""
    if crops.shape[-1] == 3 and len(spec.mean) == 1:
        raise ValueError("colour crops for a gray net")
    if spec.channels == "bgr" and crops.shape[-1] == 3:  # colour crops are R, G, B
        crops = crops[..., ::-1]
    return np.moveaxis(crops, -1, 1)  # (N, H, W, C) to (N, C, H, W)


def softmax(logits: FloatArray) -> FloatArray:
    """Return the probabilities of logits of shape (..., classes), computed without overflow."""
    # Subtracting the largest logit does not change the result, and exp then returns at most 1.
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: FloatArray = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities
