"""The public function `edgekit.quantize`: quantisation of a model with a gate on its accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgekit.contract import Contract
from edgekit.errors import InputError
from edgekit.export.onnx.exported import Exported
from edgekit.export.onnx.relabelling import NewClasses, relabelling
from edgekit.export.onnx.targets import GENERIC, TARGETS, QuantizedForm, QuantizedTypes, chosen_passes
from edgekit.export.onnx.to_onnx import check_target, contract_of, export_net, open_checkpoint
from edgekit.export.own_images import read_own_images, verify_on
from edgekit.export.profiling.cost import load_graph
from edgekit.export.quantization.gate import Quantization, QuantizedExport, calibration_crops, quantize_file
from edgekit.export.quantization.quantize import CalibrationMethod, StaticSettings
from edgekit.files import check_replaces_none, remove_leftovers
from edgekit.model_store import CHECKPOINT_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.callbacks import Notify, StageProgress, ignore_message, ignore_progress
from edgekit.models.checkpoints.checkpoint import load_checkpoint
from edgekit.models.clip.text_tower import text_tower_beside
from edgekit.models.data import DataSet
from edgekit.models.data.merging import merge_classes, parse_merges
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import TorchClassifier
from edgekit.models.training.options import MAX_SEED


def quantize(
    model: str | Path,
    output: str | Path,
    *,
    method: Quantization = "int8",
    calibrate: str | Path | None = None,
    calibrate_split: str = "Training",
    calibration_images: int = 500,
    calibration_method: CalibrationMethod = "minmax",
    seed: int = 0,
    types: QuantizedTypes | None = None,
    form: QuantizedForm | None = None,
    evaluate_on: str | Path | None = None,
    evaluation_split: str = "PrivateTest",
    max_drop_points: float = 0.5,
    target: str = GENERIC,
    passes: Collection[str] = (),
    without: Collection[str] = (),
    merges: Sequence[str] = (),
    classes: NewClasses = (),
    clip: str | None = None,
    prompts: str | Path | None = None,
    uncertain_below: float | None = None,
    progress: StageProgress = ignore_progress,
    notify: Notify = ignore_message,
) -> QuantizedExport:
    """Quantise a model to one .onnx file; with `evaluate_on`, the file is refused if its accuracy is too low.

    Example:
        result = edgekit.quantize("mine.safetensors", "int8.onnx", calibrate="faces", evaluate_on="faces")
        print(result.own.accuracy, result.drop_points)

    Args:
        model: A .safetensors checkpoint, a shipped model's name, or an exported float32 .onnx file. A checkpoint or
            shipped model is exported first.
        output: The file to write.
        method: "int8" (needs `calibrate`), "dynamic" or "fp16".
        calibrate: The data set for calibration.
        calibrate_split: The split of `calibrate`.
        calibration_images: Number of images drawn from that split.
        calibration_method: Method that derives an activation's range from its values.
        seed: Seed for the choice of calibration images.
        types: Types of activations and weights in int8; default: the target's.
        form: "qdq" or "qoperator"; default: the target's.
        evaluate_on: The data set on which the float32 and the quantised file are evaluated.
        evaluation_split: The split of `evaluate_on`.
        max_drop_points: Largest allowed drop of accuracy in percentage points.
        target: See `edgekit.export`; for an .onnx file it only chooses `types` and `form`.
        passes: See `edgekit.export`.
        without: See `edgekit.export`.
        merges: See `edgekit.export`; the evaluation data is merged the same way, unless `classes` are given or its
            classes are the new labels.
        classes: See `edgekit.export`.
        clip: See `edgekit.export`.
        prompts: See `edgekit.export`.
        uncertain_below: See `edgekit.export`.
        progress: Called with (stage, done, total or None).
        notify: Called with one line for the user.

    Raises:
        GateError: Accuracy drops by more than `max_drop_points`, or a device computes other pixels or labels than the
            training. The file is kept as NAME.refused.onnx.
        InputError: The model or the data cannot be used, the arguments do not fit, or `output` is the model.
        StorageError: The file cannot be written.
    """
    path, file = resolve_model(str(model), (CHECKPOINT_SUFFIX, ONNX_SUFFIX)), Path(output)
    if path.suffix == ONNX_SUFFIX and (passes or without or classes or clip or prompts or uncertain_below is not None):
        raise InputError(
            f"'{path}' is exported already: choose rewrites, labels and uncertain_below when you export it"
        )
    _check_method(method, calibrate, types, form)
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed is {seed}: expected 0 to {MAX_SEED}")
    check_target(file)
    check_replaces_none(file, [path])
    remove_leftovers(file)
    chosen = chosen_passes(target, passes, without, quantized=True)
    relabel = None
    if path.suffix == CHECKPOINT_SUFFIX:
        teachers_prompts = None if prompts is None else Path(prompts)
        tower = text_tower_beside(path)
        relabel = relabelling(merges, classes, clip, teachers_prompts, notify, uncertain_below, tower)
    # Both data sets are read, and their splits looked up, before the slow steps.
    given = ((calibrate, calibrate_split), (evaluate_on, evaluation_split))
    source_contract = _contract(path)
    refuse_quantized(source_contract, path)
    data = _load([(Path(each), split) for each, split in given if each is not None], source_contract, progress, notify)
    preset = TARGETS[target]
    settings = StaticSettings(types or preset.types, form or preset.form, calibration_method)
    with tempfile.TemporaryDirectory() as folder:
        exported: Exported | None = None
        if path.suffix == CHECKPOINT_SUFFIX:
            progress("exporting", 0, 1)
            net, net_contract = open_checkpoint(path, relabel)
            exported = export_net(net, net_contract, Path(folder) / "float32.onnx", chosen)
            progress("exporting", 1, 1)
        contract = exported.contract if exported else source_contract
        calibration, evaluation = None, None
        if calibrate is not None:
            calibration = calibration_crops(data[Path(calibrate)], calibrate_split, contract, calibration_images, seed)
        if evaluate_on is not None:
            measured_on = data[Path(evaluate_on)]
            if merges and not classes:
                old = measured_on.classes if exported is None else source_contract.labels
                measured_on = _merged(measured_on, merges, old, contract.labels)
            evaluation = (measured_on, evaluation_split)
            if exported:
                crop = source_contract.crop
                images = read_own_images(Path(evaluate_on), evaluation_split, crop, progress, notify)
                verify_on(images, exported.path, TorchClassifier(net, net_contract), file, progress, notify)
        source = exported.path if exported else path
        result = quantize_file(source, file, method, settings, calibration, evaluation, max_drop_points, progress)
    return replace(result, source=exported)


def refuse_quantized(contract: Contract, path: Path) -> None:
    """Check that a model is not quantised yet.

    Raises:
        InputError: It is, as every file of `edgekit teach`.
    """
    if contract.precision == "int8":
        raise InputError(f"model '{path}' is int8 already: use it as it is")


def _check_method(
    method: Quantization, calibrate: str | Path | None, types: QuantizedTypes | None, form: QuantizedForm | None
) -> None:
    if method == "int8" and calibrate is None:
        raise InputError("int8 needs images for calibration: name a calibration data set (--calibrate)")
    if method != "int8" and (calibrate or types or form):
        raise InputError(f"{method} takes no calibration, types or form: leave them out")


def _contract(path: Path) -> Contract:
    return load_checkpoint(path).contract if path.suffix == CHECKPOINT_SUFFIX else contract_of(load_graph(path))


def _merged(data: DataSet, merges: Sequence[str], old: tuple[str, ...], new: tuple[str, ...]) -> DataSet:
    """Return the data with the new labels as classes; it may have them already, or lack some of the old ones."""
    classes = set(data.classes)
    if classes <= set(new) and not classes <= set(old):
        return data
    groups = {name: [each for each in group if each in classes] for name, group in parse_merges(merges, old).items()}
    return merge_classes(data, {name: group for name, group in groups.items() if group})


def _load(
    uses: Sequence[tuple[Path, str]], contract: Contract, progress: StageProgress, notify: Notify
) -> dict[Path, DataSet]:
    """Return each data set by its path; a missing split raises an error before the next data set is read."""
    data: dict[Path, DataSet] = {}
    for path in dict.fromkeys(path for path, _ in uses):
        reading, crop = partial(progress, f"reading {path.name}"), contract.crop
        data[path] = load_dataset(path, crop.resize_hw[0], reading, notify=notify, fit=crop.fit)
        for used, split in uses:
            if used == path:
                data[path].split(split)
    return data
