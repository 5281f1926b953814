"""The comparison of a file, run by the device's code, with its net: logits of the same crops.

`edgekit export` compares each new file on crops of the shipped portrait; `edgekit export --eval` and `edgekit verify`
compare on images of the user (`edgekit.export.verification.parity`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgekit.contract import Contract
from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.engine import engine_of
from edgekit.device.engines.portrait import portrait_crops
from edgekit.errors import GateError
from edgekit.models.callbacks import Progress
from edgekit.models.evaluation.evaluate import CropClassifier, TorchClassifier
from edgekit.models.nets.merged import MergedClasses
from edgekit.preprocess import FloatArray, ImageU8
from edgekit.testing.tolerance import (
    Tolerance,
    difference_fault,
    largest_difference,
    logit_faults,
    relative_difference,
    same_top1,
    tolerance_for,
)

_BATCH_CROPS = 160
# One crop of so many is also classified alone.
_ALONE_EVERY = 5


@dataclass(frozen=True)
class Comparison:
    """Logits (N, labels) of a file and of its net for the same images.

    `batch_difference` is the largest difference of a logit of the file between batches of one and of many images.
    """

    reference_logits: FloatArray
    logits: FloatArray
    batch_difference: float

    @property
    def images(self) -> int:
        """Number of images that were compared."""
        return len(self.logits)

    @property
    def logits_difference(self) -> float:
        """Largest difference between a logit of the file and of the net."""
        return largest_difference(self.reference_logits, self.logits)

    @property
    def relative_difference(self) -> float:
        """rms(difference) / rms(logits of the net)."""
        return relative_difference(self.reference_logits, self.logits)

    @property
    def largest_logit(self) -> float:
        """Largest absolute logit of the net."""
        return float(np.abs(self.reference_logits).max())

    @property
    def same_top1(self) -> int:
        """Number of images for which both have the same top-1 class."""
        return same_top1(self.reference_logits, self.logits)

    @property
    def worst(self) -> NDArray[np.int64]:
        """Indices of the images in descending order of their difference of logits."""
        difference = np.abs(self.reference_logits.astype(np.float64) - self.logits).max(axis=1)
        return np.argsort(-np.nan_to_num(difference, nan=np.inf), kind="stable")

    def faults(self, tolerance: Tolerance) -> list[str]:
        """Return one line for each difference that exceeds the tolerance."""
        allowed = tolerance.allowed_difference(self.reference_logits)
        alone = difference_fault("logits of one image and of a batch differ", self.batch_difference, allowed)
        return [*logit_faults(self.reference_logits, self.logits, tolerance), *alone]


def compare(
    net: CropClassifier,
    file: CropClassifier,
    net_crops: ImageU8,
    file_crops: ImageU8,
    net_progress: Progress = lambda _, __: None,
    file_progress: Progress = lambda _, __: None,
) -> Comparison:
    """Classify the same images, as each side has cropped them, and return both sides' logits.

    Args:
        net: The net or file that `file` was made from.
        file: The file; it has the labels of `net`.
        net_crops: uint8 (N, H, W, 1 or 3), N ≥ 1.
        file_crops: The same images, as the device crops them.
        net_progress: Called with (images classified by `net`, images in total).
        file_progress: Called with (images classified by `file`, images in total).
    """
    expected = _logits(net, net_crops, net_progress)
    found = _logits(file, file_crops, file_progress)
    few = slice(0, _BATCH_CROPS, _ALONE_EVERY)
    alone = np.concatenate([file.logits(crop[np.newaxis]) for crop in file_crops[few]])
    return Comparison(expected, found, largest_difference(found[few], alone))


def _logits(classifier: CropClassifier, crops: ImageU8, progress: Progress) -> FloatArray:
    parts = []
    for start in range(0, len(crops), _BATCH_CROPS):
        parts.append(classifier.logits(crops[start : start + _BATCH_CROPS]))
        progress(start + len(parts[-1]), len(crops))
    return np.concatenate(parts)


@dataclass(frozen=True)
class ExportCheck:
    """Largest absolute differences of logits over `crops` crops of the shipped portrait.

    `max_abs_difference` compares the file's logits with torch's, `batch_difference` the file's logits for all crops in
    one batch with those for one crop at a time. Both are at most `tolerance`.
    """

    crops: int
    max_abs_difference: float
    batch_difference: float
    tolerance: float


def check_export(
    path: Path, net: nn.Module, contract: Contract, tolerance: float | None = None, crops: ImageU8 | None = None
) -> ExportCheck:
    """Compare an exported float32 file with its net.

    Args:
        path: The file; the runtime's code classifies with the contract in it.
        net: The net; it classifies through `TorchClassifier`, as in evaluation.
        contract: The checkpoint's contract.
        tolerance: Largest allowed difference of a logit; None: that of the file's engine. 1e-5 of the largest logit is
            always allowed, without equal top-1; of a net with merged classes, of the largest logit before they are
            merged.
        crops: uint8 (N, H, W, 1 or 3), N ≥ 1; None: crops of the shipped portrait.

    Raises:
        GateError: A logit is NaN or infinity or differs by more, or top-1 differs.
        InputError: The file cannot be loaded.
    """
    allowed = tolerance_for("float32", engine_of(path))
    allowed = allowed if tolerance is None else replace(allowed, logits=tolerance)
    crops = portrait_crops(contract) if crops is None else crops
    found = compare(TorchClassifier(net, contract), Classifier(path, intra_op_threads=1), crops, crops)
    reference = found.reference_logits
    if not np.isfinite(reference).all():
        raise GateError(
            f"the checkpoint's output contains NaN or infinity: {np.count_nonzero(~np.isfinite(reference))} of "
            f"{reference.size} logits on {len(crops)} crops: use an earlier checkpoint, or train again"
        )
    # Merged logits are differences of larger ones, and have their rounding errors.
    rounded = TorchClassifier(net.net, contract).logits(crops) if isinstance(net, MergedClasses) else reference
    limit = allowed.allowed_difference(rounded) or 0.0
    # Rounding of large logits may change the top-1 of two labels that are almost equal.
    share = allowed.top1_share if limit == allowed.logits else 0.0
    if faults := found.faults(replace(allowed, logits=limit, top1_share=share)):
        raise GateError(
            f"the exported file differs from the checkpoint on {len(crops)} crops of the test picture: "
            f"{'; '.join(faults)}"
        )
    return ExportCheck(len(crops), found.logits_difference, found.batch_difference, limit)
