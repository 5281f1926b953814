"""How far the logits of a file may differ from those of its source: for `edgekit verify` and the tests of engines."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgekit.contract import Precision
from edgekit.preprocess import FloatArray

# Tolerance as a share of the largest logit, for float32 rounding of logits above some tens, as in a CLIP's student.
_FLOAT32_SHARE = 1e-5


@dataclass(frozen=True)
class Tolerance:
    """Allowed differences of a file from its source; a difference whose limit is None is not checked.

    `logits` limits the absolute difference of a logit; the limit is `logit_share` of the largest logit if that is more.
    `relative` limits rms(difference) / rms(logits). `top1_share` is the smallest share of images with equal top-1.
    Accuracy (0..1) may drop by at most `drop` plus two standard errors of the difference.
    """

    logits: float | None
    top1_share: float
    relative: float | None = None
    drop: float | None = None
    logit_share: float = 0.0

    def allowed_difference(self, reference: FloatArray) -> float | None:
        """Return the largest allowed difference from logits of the source; None if it is not checked."""
        return None if self.logits is None else max(self.logits, self.logit_share * float(np.abs(reference).max()))


# float32 files must give equal top-1. int8 changes the shipped net's logits by 0.03 (relative) and 2 % of its top-1;
# ONNX Runtime's optimisation levels alone change 1 to 3 % of the top-1 of an int8 file.
_TOLERANCES: dict[Precision, Tolerance] = {
    "float32": Tolerance(logits=1e-4, top1_share=1.0, logit_share=_FLOAT32_SHARE),
    "float16": Tolerance(logits=None, top1_share=0.99, relative=0.01, drop=0.005),
    "int8": Tolerance(logits=None, top1_share=0.95, relative=0.15, drop=0.005),
}
# Other libraries compute 3x3 convolutions by Winograd's algorithm, which rounds more.
_OTHER_ENGINES = Tolerance(logits=1e-3, top1_share=1.0, logit_share=_FLOAT32_SHARE)
# In half floats that algorithm changes the shipped net's logits by 0.012 (relative) on an emulated Cortex-A76.
_OTHER_ENGINES_HALF = Tolerance(logits=None, top1_share=0.98, relative=0.03, drop=0.005)


def tolerance_for(precision: Precision, engine: str = "onnxruntime") -> Tolerance:
    """Return the tolerance for a file of that precision on that engine, compared with its float32 source."""
    if engine != "onnxruntime" and precision != "int8":
        return _OTHER_ENGINES if precision == "float32" else _OTHER_ENGINES_HALF
    return _TOLERANCES[precision]


def logit_faults(reference: FloatArray, logits: FloatArray, tolerance: Tolerance) -> list[str]:
    """Return one line for each way in which `logits` differ from the source's by more than the tolerance."""
    allowed = tolerance.allowed_difference(reference)
    faults = difference_fault("logits differ", largest_difference(reference, logits), allowed)
    relative = relative_difference(reference, logits)
    # `not <=` instead of `>`: NaN is a fault too.
    if tolerance.relative is not None and not relative <= tolerance.relative:
        faults.append(f"logits differ by {relative:.3f} of their root mean square, allowed: {tolerance.relative:g}")
    same = same_top1(reference, logits)
    if same < tolerance.top1_share * len(logits):
        faults.append(f"top-1 is equal on {same} of {len(logits)} images, required: {tolerance.top1_share:.0%}")
    return faults


def difference_fault(what: str, value: float, allowed: float | None) -> list[str]:
    """Return one line if the difference `value` exceeds `allowed` or is not finite; else an empty list.

    If `allowed` is None, every finite difference is allowed. `what` begins the line, such as "logits differ".
    """
    is_allowed = math.isfinite(value) if allowed is None else value <= allowed  # false for NaN
    if is_allowed:
        return []
    limit = "output contains NaN or infinity" if allowed is None else f"allowed: {allowed:.1e}"
    return [f"{what} by up to {value:.2e}: {limit}"]


def largest_difference(a: FloatArray, b: FloatArray) -> float:
    """Return the largest absolute difference of two arrays of equal shape; NaN if one of them contains NaN."""
    # The difference of two infinities is NaN, which callers treat as a difference.
    with np.errstate(invalid="ignore"):
        return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())


def relative_difference(reference: FloatArray, logits: FloatArray) -> float:
    """Return rms(difference) / rms(reference); 0 for equal arrays, also of zeros."""
    expected = reference.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = (expected - logits) ** 2
        return float(np.sqrt(np.mean(squares) / np.mean(expected**2))) if squares.any() else 0.0


def same_top1(reference: FloatArray, logits: FloatArray) -> int:
    """Return the number of rows with the same largest logit on both sides."""
    return int((reference.argmax(axis=1) == logits.argmax(axis=1)).sum())
