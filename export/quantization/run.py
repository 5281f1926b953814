"""The public function `edgekit.quantize`: quantisation of a model with a gate on its accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgekit.contract import Contract
from edgekit.errors import InputError
from edgekit.export.onnx.exported import Exported
from edgekit.export.onnx.options import QuantizeOptions
from edgekit.export.onnx.relabelling import new_classes, relabelling_of
from edgekit.export.onnx.targets import TARGETS, chosen_passes
from edgekit.export.onnx.to_onnx import check_target, contract_of, export_net, open_checkpoint
from edgekit.export.own_images import read_own_images, verify_on
from edgekit.export.profiling.cost import load_graph
from edgekit.export.quantization.gate import QuantizedExport, calibration_crops, quantize_file
from edgekit.export.quantization.quantize import StaticSettings
from edgekit.files import check_replaces_none, remove_leftovers
from edgekit.model_store import CHECKPOINT_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.callbacks import Notify, StageProgress
from edgekit.models.checkpoints.checkpoint import load_checkpoint
from edgekit.models.data import DataSet
from edgekit.models.data.merging import merge_classes, parse_merges
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import TorchClassifier
from edgekit.options import defaults, takes
from edgekit.shared_options import MAX_SEED


@takes(QuantizeOptions)
def quantize(options: QuantizeOptions) -> QuantizedExport:
    """Quantise a model to one .onnx file; with `evaluate_on`, the file is refused if its accuracy is too low.

    Example:
        result = edgekit.quantize("mine.safetensors", "int8.onnx", calibrate="faces", evaluate_on="faces")
        print(result.own.accuracy, result.drop_points)

    `QuantizeOptions` describes the arguments.

    Raises:
        GateError: Accuracy drops by more than `max_drop_points`, or a device computes other pixels or labels than the
            training. The file is kept as NAME.refused.onnx.
        InputError: The model or the data cannot be used, the arguments do not fit, or `output` is the model.
        StorageError: The file cannot be written.
    """
    progress, notify = options.progress, options.notify
    path, file = resolve_model(str(options.model), (CHECKPOINT_SUFFIX, ONNX_SUFFIX)), Path(options.output)
    _check(options, path)
    check_target(file)
    check_replaces_none(file, [path])
    remove_leftovers(file)
    chosen = chosen_passes(options.target, options.passes, options.without, quantized=True)
    relabel = relabelling_of(path, options) if path.suffix == CHECKPOINT_SUFFIX else None
    # Both data sets are read, and their splits looked up, before the slow steps.
    given = ((options.calibrate, options.calibrate_split), (options.evaluate_on, options.evaluation_split))
    source_contract = _contract(path)
    refuse_quantized(source_contract, path)
    data = _load([(Path(each), split) for each, split in given if each is not None], source_contract, progress, notify)
    preset = TARGETS[options.target]
    settings = StaticSettings(options.types or preset.types, options.form or preset.form, options.calibration_method)
    with tempfile.TemporaryDirectory() as folder:
        exported: Exported | None = None
        if path.suffix == CHECKPOINT_SUFFIX:
            progress("exporting", 0, 1)
            net, net_contract = open_checkpoint(path, relabel)
            exported = export_net(net, net_contract, Path(folder) / "float32.onnx", chosen)
            progress("exporting", 1, 1)
        contract = exported.contract if exported else source_contract
        calibration, evaluation = None, None
        if options.calibrate is not None:
            calibration = calibration_crops(
                data[Path(options.calibrate)],
                options.calibrate_split,
                contract,
                options.calibration_images,
                options.seed,
            )
        if options.evaluate_on is not None:
            measured_on = data[Path(options.evaluate_on)]
            if options.merges and not new_classes(options):
                old = measured_on.classes if exported is None else source_contract.labels
                measured_on = _merged(measured_on, options.merges, old, contract.labels)
            evaluation = (measured_on, options.evaluation_split)
            if exported:
                crop = source_contract.crop
                images = read_own_images(Path(options.evaluate_on), options.evaluation_split, crop, progress, notify)
                verify_on(images, exported.path, TorchClassifier(net, net_contract), file, progress, notify)
        source = exported.path if exported else path
        result = quantize_file(
            source, file, options.method, settings, calibration, evaluation, options.max_drop_points, progress
        )
    return replace(result, source=exported)


def refuse_quantized(contract: Contract, path: Path) -> None:
    """Check that a model is not quantised yet.

    Raises:
        InputError: It is, as every file of `edgekit teach`.
    """
    if contract.precision == "int8":
        raise InputError(f"model '{path}' is int8 already: use it as it is")


def _check(options: QuantizeOptions, path: Path) -> None:
    others = (options.passes, options.without, new_classes(options), options.clip, options.prompts)
    if path.suffix == ONNX_SUFFIX and (any(others) or options.uncertain_below is not None):
        raise InputError(
            f"'{path}' is exported already: choose rewrites, labels and uncertain_below when you export it"
        )
    if not 0 <= options.seed <= MAX_SEED:
        raise InputError(f"seed is {options.seed}: expected 0 to {MAX_SEED}")
    if options.evaluate_on is None and options.max_drop_points != defaults(QuantizeOptions)["max_drop_points"]:
        raise InputError("max_drop_points (--max-drop) has no effect without evaluate_on (--eval): leave it out")
    if options.engine == "ncnn" or options.precision != "fp32":
        raise InputError("quantisation is for ONNX Runtime: leave engine and precision out (ncnn has precision fp16)")
    if options.method == "int8" and options.calibrate is None:
        raise InputError("int8 needs images for calibration: name a calibration data set (--calibrate)")
    if options.method != "int8" and (options.calibrate or options.types or options.form):
        raise InputError(f"{options.method} takes no calibration, types or form: leave them out")


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
