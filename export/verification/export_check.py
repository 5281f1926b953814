"""Verification: an exported file must answer as its checkpoint does, on real face crops, through the runtime's code."""

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

# The face in the shipped portrait, and how its box is varied, in fractions of its side.
_PORTRAIT = "astronaut.png"
_FACE_XYXY = (172.0, 66.0, 276.0, 190.0)
_SCALES = (0.85, 1.0, 1.25)
_SHIFTS = (-0.12, 0.0, 0.12)


@dataclass(frozen=True)
class Verification:
    """Largest differences of logits over `crops` face crops.

    `max_abs_difference` is between torch and the file, `batch_difference` between the file's answers to one crop at a
    time and to all in one batch.
    """

    crops: int
    max_abs_difference: float
    batch_difference: float
    tolerance: float = TOLERANCE


def verify(
    path: Path,
    net: nn.Module,
    contract: Contract,
    crops: ImageU8,
    tolerance: float = TOLERANCE,
    same_answers: bool = False,
) -> Verification:
    """Compare an exported file with the net it came from.

    Args:
        path: The file, which is read as the runtime reads it, contract included.
        net: The net, which classifies as in evaluation.
        contract: The checkpoint's contract.
        crops: uint8 (N, H, W, 1 or 3), at least one; see `edgekit.preprocess.crop_face`.
        tolerance: How far a logit may be from the net's.
        same_answers: Whether the largest logit must be the same one on every crop.

    Raises:
        GateError: The net's own logits are no numbers; one of the file differs by `tolerance` or more, or is no number;
            or an answer is another.
        InputError: The file cannot be loaded.
    """
    classifier = Classifier(path, intra_op_threads=1)
    batched = classifier.logits(crops)
    single = np.concatenate([classifier.logits(crop[np.newaxis]) for crop in crops])
    expected = TorchClassifier(net, contract).logits(crops)
    if not np.isfinite(expected).all():
        raise GateError(
            f"the checkpoint itself answers no numbers: {np.count_nonzero(~np.isfinite(expected))} of {expected.size} "
            f"logits on {len(crops)} face crops are NaN or infinite: take an earlier one, or train again"
        )
    result = Verification(
        crops=len(crops),
        max_abs_difference=largest_difference(batched, expected),
        batch_difference=largest_difference(batched, single),
        tolerance=tolerance,
    )
    # Written so that a difference that is no number is refused too.
    if not result.max_abs_difference < tolerance:
        raise GateError(
            f"the exported file differs from the checkpoint: max abs difference of logits "
            f"{result.max_abs_difference:.2e} on {len(crops)} face crops, allowed is less than {tolerance:.0e}"
        )
    if not result.batch_difference < tolerance:
        raise GateError(
            f"the exported file answers otherwise to one face than to a batch: max abs difference of logits "
            f"{result.batch_difference:.2e}, allowed is less than {tolerance:.0e}"
        )
    changed = int((batched.argmax(axis=1) != expected.argmax(axis=1)).sum())
    if same_answers and changed:
        raise GateError(f"the exported file differs from the checkpoint: top-1 is another on {changed} of {len(crops)}")
    return result


def portrait_crops(contract: Contract) -> ImageU8:
    """Return crops of the shipped portrait's face: 54 boxes shifted and scaled, mirrored or not.

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
    """Return the largest absolute difference of two arrays of logits of one shape; no number where one has none."""
    # Two infinities differ by no number, which counts as a difference.
    with np.errstate(invalid="ignore"):
        return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
