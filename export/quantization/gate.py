"""The gate of a quantised export: made, measured with its float32 original, and refused where accuracy falls."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import onnx

from edgekit.contract import Accuracy, Contract
from edgekit.errors import GateError, InputError
from edgekit.export.onnx.to_onnx import contract_of, finished
from edgekit.export.profiling.cost import load_graph
from edgekit.export.quantization.quantize import StaticSettings, quantize_dynamic, quantize_static, to_float16
from edgekit.files import write_atomic
from edgekit.models.data import DataSet
from edgekit.models.evaluation.evaluate import Evaluation, aligned, as_shown, evaluate, open_classifier
from edgekit.preprocess import ImageU8, center_crop

Progress: TypeAlias = Callable[[int, int | None], None]
Bars: TypeAlias = Callable[[str], Progress]
Quantization: TypeAlias = Literal["int8", "dynamic", "fp16"]

_PROTOCOL: Literal["center-crop"] = "center-crop"


@dataclass(frozen=True)
class Calibration:
    """The crops that ranges are found on, uint8 (N, H, W, 1 or 3), and what the contract says of them."""

    crops: ImageU8
    text: str


@dataclass(frozen=True)
class QuantizedExport:
    """A quantised file; `error`, `kept` and `error_without` as in `edgekit.export.quantization.quantize.Quantized`.

    `reference` and `own` are what the float32 file and this one gave on the evaluation's images; None without one.
    """

    path: Path
    size_bytes: int
    contract: Contract
    error: float | None
    kept: tuple[str, ...]
    error_without: dict[str, float]
    reference: Evaluation | None
    own: Evaluation | None

    @property
    def drop_points(self) -> float | None:
        """By how many percentage points accuracy fell; negative where it rose."""
        if self.reference is None or self.own is None:
            return None
        return 100 * (self.reference.accuracy - self.own.accuracy)


def calibration_crops(dataset: DataSet, split: str, contract: Contract, count: int, seed: int) -> Calibration:
    """Return `count` crops of a split, or all if it has fewer, drawn by the seed.

    Raises:
        InputError: There is no such split, it is empty, or its pictures have another size.
    """
    images = as_shown(dataset.split(split), contract)
    if not len(images):
        raise InputError(f"split '{split}' holds no image to calibrate on: name another with --calibrate-split")
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    crops = center_crop(images.images[np.sort(chosen)], contract.input.size_hw)
    return Calibration(crops, f"{dataset.name} {split}, {len(chosen)} images, seed {seed}")


def quantize_file(
    source: Path,
    target: Path,
    quantization: Quantization,
    settings: StaticSettings,
    calibration: Calibration | None,
    evaluation: tuple[DataSet, str] | None,
    max_drop_points: float,
    bars: Bars,
) -> QuantizedExport:
    """Quantise an exported float32 file and write it to `target`, if it passes.

    Args:
        source: The float32 file, verified by its export.
        target: The file to write.
        quantization: "int8" wants a calibration; "dynamic" and "fp16" do not.
        settings: For "int8".
        calibration: For "int8".
        evaluation: A data set and a split that both files are measured on with the runtime's code; None: no gate.
        max_drop_points: How many percentage points accuracy may fall.
        bars: Starts a progress bar by its description.

    Raises:
        GateError: Accuracy falls by more. The file is kept as NAME.refused.onnx, `target` left as it was.
        InputError: A file or the data cannot be used.
    """
    model = load_graph(source)
    error: float | None = None
    kept: tuple[str, ...] = ()
    error_without: dict[str, float] = {}
    if quantization == "int8":
        if calibration is None:
            raise InputError("int8 needs real images to find ranges on: name a data set with --calibrate")
        made = quantize_static(model, calibration.crops, settings, calibration.text, bars("calibrating"))
        result, error, kept, error_without = made.model, made.error, made.kept, made.error_without
    else:
        result = quantize_dynamic(model) if quantization == "dynamic" else to_float16(model)
    reference, own = None, None
    if evaluation is not None:
        reference = _measured(source, *evaluation, bars("measuring float32"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(result.SerializeToString(deterministic=True))
            own = _measured(path, *evaluation, bars(f"measuring {quantization}"))
        result = _with_accuracy(result, evaluation, own)
    content = result.SerializeToString(deterministic=True)
    quantized = QuantizedExport(target, len(content), contract_of(result), error, kept, error_without, reference, own)
    # Written so that a drop that is no number is refused too.
    if quantized.drop_points is not None and not quantized.drop_points <= max_drop_points:
        refused = target.with_name(f"{target.stem}.refused{target.suffix}")
        write_atomic(refused, content)
        assert reference is not None
        assert own is not None
        raise GateError(
            f"{quantization} answers worse: accuracy falls by {quantized.drop_points:.2f} points, from "
            f"{reference.accuracy:.2%} to {own.accuracy:.2%}, allowed are {max_drop_points:g}: kept as '{refused}'"
        )
    write_atomic(target, content)
    return quantized


def _measured(path: Path, dataset: DataSet, split: str, progress: Progress) -> Evaluation:
    classifier = open_classifier(path)
    return evaluate(classifier, aligned(dataset, dataset.split(split), classifier.contract), _PROTOCOL, progress)


def _with_accuracy(model: onnx.ModelProto, evaluation: tuple[DataSet, str], own: Evaluation) -> onnx.ModelProto:
    contract = contract_of(model)
    accuracy = (Accuracy(evaluation[0].name, evaluation[1], _PROTOCOL, own.correct, own.total),)
    del model.metadata_props[:]
    return finished(model, replace(contract, provenance=replace(contract.provenance, accuracy=accuracy)))
