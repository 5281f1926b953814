"""Verification of an exported file on the user's own images, from image file to label."""

from __future__ import annotations

from pathlib import Path

from edgekit.device.engines.classifier import Classifier
from edgekit.device.engines.engine import engine_of
from edgekit.device.engines.tolerance import tolerance_for
from edgekit.errors import GateError
from edgekit.export.onnx.relabelling import Relabel
from edgekit.export.onnx.to_onnx import open_checkpoint
from edgekit.export.verification.parity import measure_parity, parity_faults
from edgekit.files import write_atomic
from edgekit.models.callbacks import Notify, StageProgress
from edgekit.models.evaluation.evaluate import TorchClassifier

# Images compared, evenly spread over the split.
_IMAGES = 500


def verify_on(
    exported: Path,
    checkpoint: Path,
    relabel: Relabel | None,
    data: Path,
    split: str,
    target: Path,
    progress: StageProgress,
    notify: Notify,
) -> None:
    """Compare pixels, logits and labels of a file, run by the device's code, with those of its net on 500 images.

    Args:
        exported: The file.
        checkpoint: The checkpoint that it was exported from.
        relabel: What gave the file other labels; None: it has the checkpoint's.
        data: The data set; its classes need not be the file's labels.
        split: The split of `data`.
        target: The name of the file; a refused file is kept beside it as NAME.refused.onnx.
        progress: Called with (stage, done, total or None).
        notify: Called with one line for the user.

    Raises:
        GateError: A pixel, a logit or a label differs by more than `edgekit.verify` allows.
        InputError: The data cannot be used.
    """
    device = Classifier(exported)
    found = measure_parity(
        TorchClassifier(*open_checkpoint(checkpoint, relabel)),
        device,
        data,
        split,
        _IMAGES,
        contempt="keep",
        progress=progress,
        notify=notify,
    )
    faults = parity_faults(found, tolerance_for(device.contract.precision, engine_of(exported)))
    if faults:
        refused = target.with_name(f"{target.stem}.refused{target.suffix}")
        write_atomic(refused, exported.read_bytes())
        raise GateError(f"the file is refused: {'; '.join(faults)}: it is kept as '{refused}'")
    notify(f"verified on {found.images} images of {data.name}: pixels and labels are equal")
