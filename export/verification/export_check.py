"""Check of an exported file against its net: equal logits on face crops, computed by the runtime's code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from edgekit.contract import Contract
from edgekit.device.engines.classifier import Classifier
from edgekit.errors import GateError
from edgekit.models.evaluation.evaluate import TorchClassifier
from edgekit.models.nets.merged import MergedClasses
from edgekit.preprocess import ImageU8
from edgekit.testing.tolerance import largest_difference, tolerance_for

TOLERANCE = 1e-4


@dataclass(frozen=True)
class ExportCheck:
    """Largest absolute differences of logits over `crops` face crops.

    `max_abs_difference` compares the file's logits with torch's. `batch_difference` compares the file's logits for all
    crops in one batch with those for one crop at a time. Both are below `tolerance`, the larger of the value in
    `check_export` and 1e-5 times the largest logit before classes are merged.
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
        crops: uint8 (N, H, W, 1 or 3), N ≥ 1; see `edgekit.device.engines.portrait.portrait_crops`.
        tolerance: The check fails if logits differ by this value or more, and by 1e-5 of the largest logit or more.
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
    # Merged logits are differences of larger ones, and have their rounding errors.
    compared = TorchClassifier(net.net, contract).logits(crops) if isinstance(net, MergedClasses) else expected
    tolerance = replace(tolerance_for("float32"), logits=tolerance).allowed_difference(compared) or tolerance
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
            f"{result.max_abs_difference:.2e} on {len(crops)} face crops, allowed is less than {tolerance:.1e}"
        )
    if not result.batch_difference < tolerance:
        raise GateError(
            f"the exported file gives other logits for one face than for a batch: max abs difference "
            f"{result.batch_difference:.2e}, allowed is less than {tolerance:.1e}"
        )
    changed = int((batched.argmax(axis=1) != expected.argmax(axis=1)).sum())
    if same_top1 and changed:
        raise GateError(
            f"the exported file differs from the checkpoint: top-1 differs on {changed} of {len(crops)} face crops"
        )
    return result
