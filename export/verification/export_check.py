"""Check of an exported file against its net: equal logits on face crops, computed by the runtime's code."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from torch import nn

from edgekit.contract import Contract
from edgekit.device.engines.classifier import Classifier
from edgekit.device.imaging import read_image, resize
from edgekit.errors import GateError
from edgekit.model_store import asset
from edgekit.models.evaluation.evaluate import TorchClassifier
from edgekit.preprocess import FloatArray, ImageU8, crop_face

TOLERANCE = 1e-4

# Face box in the shipped portrait; scales and shifts of the box are fractions of its side.
_PORTRAIT = "astronaut.png"
_FACE_XYXY = (172.0, 66.0, 276.0, 190.0)
_SCALES = (0.85, 1.0, 1.25)
_SHIFTS = (-0.12, 0.0, 0.12)


@dataclass(frozen=True)
class ExportCheck:
    """Largest absolute differences of logits over `crops` face crops.

    `max_abs_difference` compares the file's logits with torch's. `batch_difference` compares the file's logits for all
    crops in one batch with those for one crop at a time. Both are below `tolerance`.
    """

    crops: int
    max_abs_difference: float
    batch_difference: float
    tolerance: float = TOLERANCE


def check_export(
    path: Path,
    net: nn.Module,
    contract: Contract,
    crops: ImageU8,
    tolerance: float = TOLERANCE,
    same_top1: bool = False,
) -> ExportCheck:
    """Compare the logits of an exported file with those of its net.

    Args:
        path: The file; the runtime's code classifies with the contract in it.
        net: The net; it classifies through `TorchClassifier`, as in evaluation.
        contract: The checkpoint's contract.
        crops: uint8 (N, H, W, 1 or 3), N ≥ 1; see `edgekit.preprocess.crop_face`.
        tolerance: The check fails if logits differ by this value or more.
        same_top1: Whether top-1 must also be equal on every crop.

    Raises:
        GateError: A logit is NaN or infinity or differs by `tolerance` or more, or top-1 differs.
        InputError: The file cannot be loaded.
    """
    classifier = Classifier(path, intra_op_threads=1)
    batched = classifier.logits(crops)
    single = np.concatenate([classifier.logits(crop[np.newaxis]) for crop in crops])
    expected = TorchClassifier(net, contract).logits(crops)
    if not np.isfinite(expected).all():
        raise GateError(
            f"the checkpoint's output contains NaN or infinity: {np.count_nonzero(~np.isfinite(expected))} of "
            f"{expected.size} logits on {len(crops)} face crops: use an earlier checkpoint, or train again"
        )
    result = ExportCheck(
        crops=len(crops),
        max_abs_difference=largest_difference(batched, expected),
        batch_difference=largest_difference(batched, single),
        tolerance=tolerance,
    )
    # `not <` instead of `>=`: NaN must fail too.
    if not result.max_abs_difference < tolerance:
        raise GateError(
            f"the exported file differs from the checkpoint: max abs difference of logits "
            f"{result.max_abs_difference:.2e} on {len(crops)} face crops, allowed is less than {tolerance:.0e}"
        )
    if not result.batch_difference < tolerance:
        raise GateError(
            f"the exported file gives other logits for one face than for a batch: max abs difference "
            f"{result.batch_difference:.2e}, allowed is less than {tolerance:.0e}"
        )
    changed = int((batched.argmax(axis=1) != expected.argmax(axis=1)).sum())
    if same_top1 and changed:
        raise GateError(
            f"the exported file differs from the checkpoint: top-1 differs on {changed} of {len(crops)} face crops"
        )
    return result


def portrait_crops(contract: Contract) -> ImageU8:
    """Return crops of the face in the shipped portrait: 27 shifted and scaled boxes, each also mirrored.

    Returns:
        uint8 (54, H, W, 1 or 3) in the contract's input size.
    """
    portrait_bgr = read_image(asset(_PORTRAIT))
    width = portrait_bgr.shape[1]
    x0, y0, x1, y1 = _FACE_XYXY
    side = max(x1 - x0, y1 - y0)
    crops = []
    for scale, shift_x, shift_y in product(_SCALES, _SHIFTS, _SHIFTS):
        centre_x, centre_y = (x0 + x1) / 2 + shift_x * side, (y0 + y1) / 2 + shift_y * side
        half = scale * side / 2
        box = (centre_x - half, centre_y - half, centre_x + half, centre_y + half)
        mirrored_box = (width - box[2], box[1], width - box[0], box[3])
        for image, xyxy in ((portrait_bgr, box), (np.ascontiguousarray(portrait_bgr[:, ::-1]), mirrored_box)):
            crops.append(crop_face(image, xyxy, contract.crop, contract.input.size_hw, resize))
    return np.stack(crops)


def largest_difference(a: FloatArray, b: FloatArray) -> float:
    """Return the largest absolute difference of two arrays of equal shape; NaN if one of them contains NaN."""
    # The difference of two infinities is NaN, which callers treat as a difference.
    with np.errstate(invalid="ignore"):
        return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
