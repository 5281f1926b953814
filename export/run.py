"""The public functions `edgekit.export` and `edgekit.quantize`: a checkpoint becomes one file for a device.

Both take one path: the net with its labels, its file for ONNX Runtime or ncnn, the comparison with the net, and for
`quantize` the quantised file with its gate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgekit.contract import Contract
from edgekit.errors import InputError
from edgekit.export.card import check_card, write_card
from edgekit.export.options import ExportOptions, QuantizeOptions
from edgekit.export.profiling.cost import load_graph
from edgekit.export.prompted import PROMPTS_TOLERANCE, open_prompted_tower
from edgekit.export.quantization import QuantizedExport, calibration_crops, quantize_file, refused_path
from edgekit.export.relabelling import new_classes, report_shares
from edgekit.export.targets import GENERIC, TARGETS, chosen_passes
from edgekit.export.to_ncnn import export_net_to_ncnn, pnnx_program
from edgekit.export.to_onnx import Exported, check_target, contract_of, export_net, open_checkpoint
from edgekit.export.verification.comparison import read_images, verify_on
from edgekit.files import check_replaces_none, remove_leftovers, write_atomic
from edgekit.model_store import CHECKPOINT_SUFFIX, NCNN_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.clip.checkpoint import is_prompts_file
from edgekit.models.data import DataSet
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import TorchClassifier, open_classifier
from edgekit.options import defaults, takes

# Images of --eval on which a float32 file is verified, evenly spread over the split.
_VERIFIED_IMAGES = 500


@takes(ExportOptions)
def export(options: ExportOptions) -> Exported:
    """Export a checkpoint to one self-describing .onnx or .ncnn file, compared with torch before it is written.

    `ExportOptions` describes the arguments.

    Example:
        exported = edgekit.export("runs/mine/best.safetensors", "mine.onnx", target="a53")
        print(exported.size_bytes, exported.cost.macs, exported.verification.max_abs_difference)
        edgekit.export("default", "moods.onnx", merges=["positive=happy", "negative=angry,sad"])

    Raises:
        InputError: The model cannot be used, or the arguments do not fit it.
        GateError: The file's logits differ from the model's, or a device computes other pixels or labels from the
            images of `evaluate_on`; `output` is left unchanged, and in the second case the file is kept as
            NAME.refused.onnx.
        StorageError: The file cannot be written.
    """
    path, file = resolve_model(str(options.model), (CHECKPOINT_SUFFIX,)), Path(options.output)
    remove_leftovers(file)  # temporary files of exports that were killed
    engine = options.engine or ("ncnn" if file.suffix == NCNN_SUFFIX else "onnx")
    to_ncnn = engine == "ncnn"
    # Everything that can be wrong is checked before the slow steps.
    check_target(file, NCNN_SUFFIX if to_ncnn else ONNX_SUFFIX)
    if options.precision != "fp32" and not to_ncnn:
        raise InputError(f"precision {options.precision} is for .ncnn files: leave it out, or quantise to fp16")
    if options.card:
        check_card(file)
    exported = _export(path, file, options, _exporter(path, options, to_ncnn))
    if options.card:
        write_card(file, exported.contract)
    return exported


def _exporter(path: Path, options: ExportOptions, to_ncnn: bool) -> Callable[..., Exported]:
    """Return the function that exports a net with its contract to a file, after a check of its options.

    Args:
        path: The checkpoint, or a file of trained prompts.
        options: The options of the export.
        to_ncnn: Export to an .ncnn file.
    """
    if is_prompts_file(path):
        if options.merges or options.prompts or options.target != GENERIC or to_ncnn:
            raise InputError(
                f"'{path}' holds trained prompts, which are exported for ONNX Runtime without rewrites and merged "
                "labels: leave target, merges, prompts and engine out"
            )
        return partial(export_net, tolerance=PROMPTS_TOLERANCE, shares_weights=True)
    passes = chosen_passes(options.target)
    if not to_ncnn:
        return partial(export_net, passes=passes)
    pnnx_program()  # raises if pnnx is not installed
    precision = options.precision
    if precision == "auto":
        precision = "fp16" if TARGETS[options.target].half_floats else "fp32"
    return partial(export_net_to_ncnn, passes=passes, precision=precision)


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
    path, file = resolve_model(str(options.model), (CHECKPOINT_SUFFIX, ONNX_SUFFIX)), Path(options.output)
    is_checkpoint = path.suffix == CHECKPOINT_SUFFIX
    _check_quantization(options, is_checkpoint, path)
    check_target(file)
    check_replaces_none(file, [path])
    remove_leftovers(file)
    if options.card:
        check_card(file)
    passes = chosen_passes(options.target, quantized=True)
    contract = load_checkpoint(path).contract if is_checkpoint else contract_of(load_graph(path))
    refuse_quantized(contract, path)
    # The data is read before the slow steps, because it may not fit the model.
    calibration_data = _data_with_split(options.calibrate, options.calibrate_split, contract, options)
    evaluation_source = options.evaluate_on
    if isinstance(evaluation_source, str | Path) and evaluation_source == options.calibrate:
        evaluation_source = calibration_data  # the same path: the data is read once
    evaluation_data = _data_with_split(evaluation_source, options.evaluation_split, contract, options)
    with tempfile.TemporaryDirectory() as folder:
        exported = None
        if is_checkpoint:  # the quantiser needs a float32 file
            write = partial(export_net, passes=passes)
            exported = _export(path, Path(folder) / "float32.onnx", options, write, refused_path(file))
            path, contract = exported.path, exported.contract
        calibration = None
        if calibration_data is not None:
            count = options.calibration_images
            calibration = calibration_crops(calibration_data, options.calibrate_split, contract, count)
            # If `evaluate_on` is a path, `_export` has reported the shares of the labels already.
            if new_classes(options) and not isinstance(options.evaluate_on, str | Path):
                report_shares(contract.labels, open_classifier(path).logits(calibration.crops), options.notify)
        evaluation = None if evaluation_data is None else (evaluation_data, options.evaluation_split)
        types, limit = TARGETS[options.target].types, options.max_drop_points
        result = quantize_file(path, file, options.method, types, calibration, evaluation, limit, options.progress)
    if options.card:
        write_card(file, result.contract)
    return replace(result, source=exported)


def refuse_quantized(contract: Contract, path: Path) -> None:
    """Check that a model is not int8 yet.

    Raises:
        InputError: It is, such as a file of `edgekit teach`.
    """
    if contract.precision == "int8":
        raise InputError(f"model '{path}' is int8 already: use it as it is")


def _export(
    path: Path, file: Path, options: ExportOptions, write: Callable[..., Exported], refused: Path | None = None
) -> Exported:
    """Write the float32 file of a checkpoint, after the verification that the options request.

    If `evaluate_on` is the path of a data set, the file is compared with the net on images of it.

    Args:
        path: The checkpoint, or a file of trained prompts.
        file: The file to write.
        options: The options of the export.
        write: Exports a net with its contract to a file: `export_net` or `export_net_to_ncnn` with some arguments set.
        refused: Where a file that fails the verification is kept; default: `refused_path(file)`.
    """
    progress, notify = options.progress, options.notify
    is_prompts = is_prompts_file(path)
    net, contract = open_prompted_tower(path, options) if is_prompts else open_checkpoint(path, options)
    images = None
    if isinstance(options.evaluate_on, str | Path):  # a `DataSet` has no files for the device's side to read
        images = read_images(
            Path(options.evaluate_on),
            options.evaluation_split,
            _VERIFIED_IMAGES,
            contract.crop,
            contempt="keep",  # CK+'s eighth expression: only pixels and outputs are compared, not the images' classes
            progress=progress,
            notify=notify,
        )
    notify(f"exporting {path}")
    progress("exporting", 0, None)  # the total is not known
    if images is None:
        return write(net, contract, file)
    with tempfile.TemporaryDirectory() as folder:
        exported = write(net, contract, Path(folder) / file.name)
        reference = TorchClassifier(net, contract)
        tolerance = PROMPTS_TOLERANCE if is_prompts else None  # None: that of the file's engine
        logits = verify_on(images, exported.path, reference, refused or refused_path(file), tolerance, progress, notify)
        if new_classes(options):  # a label by text may be worded so badly that all or no images get it
            report_shares(contract.labels, logits, notify)
        write_atomic(file, exported.path.read_bytes())
    return replace(exported, path=file)


def _check_quantization(options: QuantizeOptions, is_checkpoint: bool, path: Path) -> None:
    """Raise InputError if the options of a quantisation do not fit the model `path`, the method or each other."""
    label_options = (new_classes(options), options.merges, options.clip, options.prompts, options.without_ensemble)
    if not is_checkpoint and (any(label_options) or options.uncertain_below is not None):
        raise InputError(f"'{path}' is exported already: choose labels and uncertain_below when you export it")
    # An option with its default value counts as not given.
    is_limit_given = options.max_drop_points != defaults(QuantizeOptions)["max_drop_points"]
    if is_limit_given and options.evaluate_on is None:
        raise InputError("max_drop_points (--max-drop) has no effect without evaluate_on (--eval): leave it out")
    if options.engine == "ncnn" or options.precision != "fp32":
        raise InputError("quantisation is for ONNX Runtime: leave engine and precision out (ncnn has precision fp16)")
    if options.method == "int8" and options.calibrate is None:
        raise InputError("int8 needs images for calibration: name a calibration data set (--calibrate)")
    if options.method != "int8" and options.calibrate is not None:
        raise InputError(f"{options.method} takes no calibration: leave it out")


def _data_with_split(
    data: str | Path | DataSet | None, split: str, contract: Contract, options: ExportOptions
) -> DataSet | None:
    """Return a data set that has the split; None without data. A data set given by its path is read.

    The images are resized as the contract states.

    Raises:
        InputError: The data cannot be read, or has no such split.
    """
    if data is None:
        return None
    if not isinstance(data, DataSet):
        path, crop = Path(data), contract.crop
        reading = partial(options.progress, f"reading {path.name}")
        size_px = crop.resize_hw[0]  # the images of a data set are squares
        data = load_dataset(path, size_px, reading, notify=options.notify, fit=crop.fit)
    data.split(split)  # raises if there is no such split
    return data
