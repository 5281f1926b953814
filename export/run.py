"""The public function `edgekit.export`: export of a checkpoint to one .onnx or .ncnn file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgekit.errors import InputError
from edgekit.export.ncnn.to_ncnn import export_net_to_ncnn, pnnx_program
from edgekit.export.onnx.exported import Exported
from edgekit.export.onnx.options import ENSEMBLE, ExportOptions
from edgekit.export.onnx.prompted import export_prompts, open_prompts, prompts_contract
from edgekit.export.onnx.relabelling import described_classes, new_classes, relabelling_of
from edgekit.export.onnx.targets import GENERIC, TARGETS, chosen_passes
from edgekit.export.onnx.to_onnx import check_target, export_net, open_checkpoint
from edgekit.export.own_images import read_own_images, verify_on
from edgekit.files import remove_leftovers, write_atomic
from edgekit.model_store import CHECKPOINT_SUFFIX, NCNN_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.clip.checkpoint import is_prompts_file
from edgekit.models.data import DataSet
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import TorchClassifier
from edgekit.options import takes


@takes(ExportOptions)
def export(options: ExportOptions) -> Exported:
    """Export a checkpoint to one self-describing .onnx or .ncnn file, verified against torch on face crops.

    `ExportOptions` describes the arguments.

    Example:
        exported = edgekit.export("runs/mine/best.safetensors", "mine.onnx", target="a53")
        print(exported.size_bytes, exported.cost.macs, exported.verification.max_abs_difference)

    Raises:
        InputError: The model cannot be used, or the arguments do not fit it.
        GateError: The file's logits differ from the model's, or a device computes other pixels or labels from the
            images of `evaluate_on`; `output` is left unchanged, and in the second case the file is kept as
            NAME.refused.onnx.
        StorageError: The file cannot be written.
    """
    path, file = resolve_model(str(options.model), (CHECKPOINT_SUFFIX,)), Path(options.output)
    progress, notify = options.progress, options.notify
    remove_leftovers(file)
    to_ncnn = file.suffix == NCNN_SUFFIX if options.engine is None else options.engine == "ncnn"
    # Everything that can be wrong is checked before the slow steps.
    check_target(file, NCNN_SUFFIX if to_ncnn else ONNX_SUFFIX)
    if options.precision != "fp32" and not to_ncnn:
        raise InputError(f"precision {options.precision} is for .ncnn files: leave it out, or quantise to fp16")
    if is_prompts_file(path):
        return _export_prompts(path, file, options)
    relabel = relabelling_of(path, options)
    chosen = chosen_passes(options.target, options.passes, options.without, ncnn=to_ncnn)
    if to_ncnn:
        pnnx_program()
    net, contract = open_checkpoint(path, relabel)
    images = None
    if options.evaluate_on is not None:
        where = Path(options.evaluate_on)
        images = read_own_images(where, options.evaluation_split, contract.crop, progress, notify)
    notify(f"exporting {path}")
    progress("exporting", 0, None)
    precision = options.precision
    if precision == "auto":
        precision = "fp16" if TARGETS[options.target].half_floats else "fp32"
    write: Callable[..., Exported] = partial(export_net_to_ncnn, precision=precision) if to_ncnn else export_net
    if images is None:
        return write(net, contract, file, chosen)
    with tempfile.TemporaryDirectory() as folder:
        exported = write(net, contract, Path(folder) / file.name, chosen)
        verify_on(images, exported.path, TorchClassifier(net, contract), file, progress, notify)
        write_atomic(file, exported.path.read_bytes())
    return replace(exported, path=file)


def _export_prompts(path: Path, file: Path, options: ExportOptions) -> Exported:
    """Export trained prompts with their CLIP; without the ensemble, both forms are evaluated on `evaluate_on`."""
    is_alone = ENSEMBLE in options.without
    rewrites = [*options.passes, *(name for name in options.without if name != ENSEMBLE)]
    if options.merges or options.prompts or rewrites or options.target != GENERIC or file.suffix != ONNX_SUFFIX:
        raise InputError(
            f"'{path}' holds trained prompts, which are exported for ONNX Runtime without rewrites and merged labels: "
            "leave target, passes, merges, prompts and engine out"
        )
    if options.evaluate_on is not None and not is_alone:
        raise InputError(f"--eval of prompts needs --no-pass {ENSEMBLE}: add it, or run 'edgekit eval FILE'")
    classes = new_classes(options)
    descriptions = described_classes(classes, options.notify) if classes else None
    prompted = open_prompts(path, options.clip, descriptions, options.notify)
    contract = replace(prompts_contract(path, prompted), uncertain_below=options.uncertain_below or 0.0)
    data = None
    if options.evaluate_on is not None:
        where, split, crop = Path(options.evaluate_on), options.evaluation_split, contract.crop
        reading = partial(options.progress, f"reading {where.name}")
        whole = load_dataset(where, crop.resize_hw[0], reading, notify=options.notify, fit=crop.fit)
        data = DataSet(whole.name, whole.classes, {split: whole.split(split)})
    options.notify(f"exporting {path}")
    options.progress("exporting", 0, None)
    return export_prompts(prompted, contract, file, not is_alone, data)
