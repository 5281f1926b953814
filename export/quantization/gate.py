"""Quantisation of an exported file, with a gate: the result is refused if accuracy drops too much."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from edgekit.contract import Accuracy, Contract
from edgekit.errors import GateError, InputError
from edgekit.export.onnx.exported import Exported
from edgekit.export.onnx.options import Quantization
from edgekit.export.onnx.to_onnx import contract_of, finished
from edgekit.export.profiling.cost import load_graph
from edgekit.export.quantization.quantize import (
    Quantized,
    StaticSettings,
    quantize_dynamic,
    quantize_static,
    to_float16,
)
from edgekit.files import write_atomic
from edgekit.models.callbacks import Progress, StageProgress, ignore_progress
from edgekit.models.data import DataSet, named_split
from edgekit.models.evaluation.evaluate import Evaluation, aligned, evaluate, open_classifier, with_contract_channels
from edgekit.preprocess import ImageU8, center_crop

_PROTOCOL: Literal["center-crop"] = "center-crop"


@dataclass(frozen=True)
class Calibration:
    """Crops for calibration, uint8 (N, H, W, 1 or 3), and their description in the contract."""

    crops: ImageU8
    text: str


@dataclass(frozen=True)
class QuantizedExport:
    """A quantised file; `error`, `kept` and `error_without` as in `edgekit.export.quantization.quantize.Quantized`.

    `reference` is the evaluation of the float32 file, `own` that of the quantised file; both are None without
    evaluation data. `source` is the float32 export if the model was a checkpoint.
    """

    path: Path
    size_bytes: int
    contract: Contract
    error: float | None
    kept: tuple[str, ...]
    error_without: dict[str, float]
    reference: Evaluation | None
    own: Evaluation | None
    source: Exported | None = None

    @property
    def drop_points(self) -> float | None:
        """Drop of accuracy in percentage points; negative if accuracy rose."""
        if self.reference is None or self.own is None:
            return None
        return 100 * (self.reference.accuracy - self.own.accuracy)


def refused_path(target: Path) -> Path:
    """Return where a file that is refused is kept: NAME.refused.onnx."""
    return target.with_name(f"{target.stem}.refused{target.suffix}")


def calibration_crops(dataset: DataSet, split: str, contract: Contract, count: int) -> Calibration:
    """Return `count` random crops of a split, always the same; all crops if the split has fewer.

    Raises:
        InputError: The split does not exist or is empty, or its images have another size.
    """
    images = with_contract_channels(dataset.split(split), contract)
    if not len(images):
        raise InputError(f"split '{split}' has no image to calibrate on: choose another calibration split")
    chosen = np.random.default_rng(0).permutation(len(images))[:count]
    crops = center_crop(images.images[np.sort(chosen)], contract.input.size_hw)
    return Calibration(crops, f"{dataset.name} {named_split(dataset.splits, split)}, {len(chosen)} images, seed 0")


def quantize_file(
    source: Path,
    target: Path,
    quantization: Quantization,
    settings: StaticSettings,
    calibration: Calibration | None,
    evaluation: tuple[DataSet, str] | None,
    max_drop_points: float,
    progress: StageProgress = ignore_progress,
) -> QuantizedExport:
    """Quantise an exported float32 file and write it to `target` if it passes the gate.

    Args:
        source: The float32 file.
        target: The file to write.
        quantization: "int8" needs a calibration; "dynamic" and "fp16" do not.
        settings: Settings of "int8".
        calibration: Crops for "int8".
        evaluation: A data set and a split; both files are evaluated on it with the runtime's code. None: no gate.
        max_drop_points: Largest allowed drop of accuracy in percentage points.
        progress: Called with (stage, done, total or None).

    Raises:
        GateError: Accuracy drops by more than `max_drop_points`. The file is kept as NAME.refused.onnx, `target` is
            left unchanged.
        InputError: The file or the data cannot be used.
    """
    reference, own = None, None
    if evaluation is not None:  # before the slow calibration, because the data may not fit the model
        reference = evaluate_file(source, *evaluation, partial(progress, "evaluating float32"))
    result = _quantized(load_graph(source), quantization, settings, calibration, partial(progress, "calibrating"))
    model = result.model
    if evaluation is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(model.SerializeToString(deterministic=True))
            own = evaluate_file(path, *evaluation, partial(progress, f"evaluating {quantization}"))
        model = _with_accuracy(model, evaluation, own)
    content = model.SerializeToString(deterministic=True)
    quantized = QuantizedExport(
        target, len(content), contract_of(model), result.error, result.kept, result.error_without, reference, own
    )
    if reference and own and (quantized.drop_points or 0.0) > max_drop_points:
        write_atomic(refused_path(target), content)
        raise GateError(
            f"accuracy of {quantization} drops by {quantized.drop_points:.2f} points, from {reference.accuracy:.2%} to "
            f"{own.accuracy:.2%}, allowed: {max_drop_points:g}: the file is kept as '{refused_path(target)}'"
        )
    write_atomic(target, content)
    return quantized


def _quantized(
    model: onnx.ModelProto,
    quantization: Quantization,
    settings: StaticSettings,
    calibration: Calibration | None,
    progress: Progress,
) -> Quantized:
    if quantization != "int8":
        return Quantized(quantize_dynamic(model) if quantization == "dynamic" else to_float16(model), None, (), {})
    if calibration is None:
        raise InputError("int8 needs images for calibration: name a calibration data set (--calibrate)")
    return quantize_static(model, calibration.crops, settings, calibration.text, progress)


def evaluate_file(path: Path, dataset: DataSet, split: str, progress: Progress) -> Evaluation:
    """Return the evaluation of a model file on the centre crops of a split, with the runtime's code.

    Raises:
        InputError: The file or the data cannot be used.
    """
    classifier = open_classifier(path)
    return evaluate(classifier, aligned(dataset, dataset.split(split), classifier.contract), _PROTOCOL, progress)


def _with_accuracy(model: onnx.ModelProto, evaluation: tuple[DataSet, str], own: Evaluation) -> onnx.ModelProto:
    contract, (dataset, split) = contract_of(model), evaluation
    measured_on = named_split(dataset.splits, split)
    accuracy = (Accuracy(dataset.name, measured_on, _PROTOCOL, own.correct, own.total),)
    return finished(model, replace(contract, provenance=replace(contract.provenance, accuracy=accuracy)))
