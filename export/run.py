"""The public function `edgekit.export`: export of a checkpoint to one .onnx or .ncnn file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from edgekit.errors import InputError
from edgekit.export.ncnn.to_ncnn import NcnnPrecision, export_net_to_ncnn, pnnx_program
from edgekit.export.onnx.exported import Exported
from edgekit.export.onnx.prompted import export_prompts, open_prompts, prompts_contract
from edgekit.export.onnx.relabelling import NewClasses, described_classes, relabelling
from edgekit.export.onnx.targets import GENERIC, TARGETS, chosen_passes
from edgekit.export.onnx.to_onnx import check_target, export_net, open_checkpoint
from edgekit.export.own_images import read_own_images, verify_on
from edgekit.files import remove_leftovers, write_atomic
from edgekit.model_store import CHECKPOINT_SUFFIX, NCNN_SUFFIX, ONNX_SUFFIX, resolve_model
from edgekit.models.callbacks import Notify, StageProgress, ignore_message, ignore_progress
from edgekit.models.clip.checkpoint import is_prompts_file
from edgekit.models.clip.text_tower import text_tower_beside
from edgekit.models.data import DataSet
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import TorchClassifier


def export(
    model: str | Path,
    output: str | Path,
    *,
    target: str = GENERIC,
    precision: NcnnPrecision | Literal["auto"] = "fp32",
    passes: Collection[str] = (),
    without: Collection[str] = (),
    merges: Sequence[str] = (),
    classes: NewClasses = (),
    clip: str | None = None,
    prompts: str | Path | None = None,
    uncertain_below: float | None = None,
    ensemble: bool = True,
    compare_on: str | Path | None = None,
    compare_split: str = "PrivateTest",
    evaluate_on: str | Path | None = None,
    evaluation_split: str = "PrivateTest",
    progress: StageProgress = ignore_progress,
    notify: Notify = ignore_message,
) -> Exported:
    """Export a checkpoint to one self-describing .onnx or .ncnn file, verified against torch on face crops.

    Example:
        exported = edgekit.export("runs/mine/best.safetensors", "mine.onnx", target="a53")
        print(exported.size_bytes, exported.cost.macs, exported.verification.max_abs_difference)

    Args:
        model: A .safetensors checkpoint, a shipped model's name, or a file of trained prompts.
        output: The file to write; its suffix chooses the engine.
        target: Preset of rewrites; a key of `edgekit.export.onnx.targets.TARGETS`.
        precision: For an .ncnn file: "fp16" computes in half floats where the processor has them. "auto": "fp16" for
            targets that need fewer instructions with half floats, which is "a76"; "fp32" for the others.
        passes: Rewrites to add to the preset's.
        without: Rewrites to remove from the preset's.
        merges: Texts `NEW=OLD,OLD` that merge old labels into new ones; old labels that no text names are removed.
            With `classes`, the texts merge these.
        classes: New labels of a CLIP's student or of trained prompts, with or without describing sentences.
        clip: The teacher's CLIP for `classes`, or the CLIP of trained prompts; by name or file. None: for `classes`,
            the text tower NAME.text.safetensors beside the checkpoint.
        prompts: The teacher's trained prompts for `classes`, if it has prompts.
        uncertain_below: A face or image whose largest probability is lower gets the label "uncertain"; 0: none. None:
            the checkpoint's threshold; with `merges` or `classes`, 0.
        ensemble: For trained prompts: whether the file contains the frozen tower.
        compare_on: For trained prompts without ensemble: a data set to evaluate both forms on.
        compare_split: The split of `compare_on`.
        evaluate_on: A data set with which the file is verified from image file to label, as `edgekit.verify` does.
        evaluation_split: The split of `evaluate_on`.
        progress: Called with (stage, done, total or None).
        notify: Called with one line for the user.

    Raises:
        InputError: The model cannot be used, or the arguments do not fit it.
        GateError: The file's logits differ from the model's, or a device computes other pixels or labels from the
            images of `evaluate_on`; `output` is left unchanged, and in the second case the file is kept as
            NAME.refused.onnx.
        StorageError: The file cannot be written.
    """
    path, file = resolve_model(str(model), (CHECKPOINT_SUFFIX,)), Path(output)
    remove_leftovers(file)
    if is_prompts_file(path):
        if evaluate_on is not None:
            raise InputError(f"'{path}' holds trained prompts: evaluate_on is for a net's checkpoint: leave it out")
        if merges or prompts or passes or without or target != GENERIC or precision != "fp32":
            raise InputError(
                f"'{path}' holds trained prompts, which are exported without rewrites and merged labels: "
                "leave target, passes, merges, prompts and precision out"
            )
        descriptions = described_classes(classes, notify) if classes else None
        prompted = open_prompts(path, clip, descriptions, notify)
        contract = replace(prompts_contract(path, prompted), uncertain_below=uncertain_below or 0.0)
        data = None
        if compare_on is not None:
            crop, reading = contract.crop, partial(progress, f"reading {Path(compare_on).name}")
            whole = load_dataset(Path(compare_on), crop.resize_hw[0], reading, notify=notify, fit=crop.fit)
            data = DataSet(whole.name, whole.classes, {compare_split: whole.split(compare_split)})
        notify(f"exporting {path}")
        progress("exporting", 0, None)
        return export_prompts(prompted, contract, file, ensemble, data)
    if not ensemble or compare_on is not None:
        raise InputError(f"'{path}' holds no trained prompts: leave ensemble and compare_on out")
    teachers_prompts = None if prompts is None else Path(prompts)
    relabel = relabelling(merges, classes, clip, teachers_prompts, notify, uncertain_below, text_tower_beside(path))
    to_ncnn = file.suffix == NCNN_SUFFIX
    if precision != "fp32" and not to_ncnn:
        raise InputError(f"precision {precision} is for .ncnn files: leave it out, or see edgekit.quantize")
    chosen = chosen_passes(target, passes, without, ncnn=to_ncnn)
    # Everything that can be wrong is checked before the slow steps.
    check_target(file, NCNN_SUFFIX if to_ncnn else ONNX_SUFFIX)
    if to_ncnn:
        pnnx_program()
    net, contract = open_checkpoint(path, relabel)
    images = None
    if evaluate_on is not None:
        images = read_own_images(Path(evaluate_on), evaluation_split, contract.crop, progress, notify)
    notify(f"exporting {path}")
    progress("exporting", 0, None)
    if precision == "auto":
        precision = "fp16" if TARGETS[target].half_floats else "fp32"
    write: Callable[..., Exported] = partial(export_net_to_ncnn, precision=precision) if to_ncnn else export_net
    if images is None:
        return write(net, contract, file, chosen)
    with tempfile.TemporaryDirectory() as folder:
        exported = write(net, contract, Path(folder) / file.name, chosen)
        verify_on(images, exported.path, TorchClassifier(net, contract), file, progress, notify)
        write_atomic(file, exported.path.read_bytes())
    return replace(exported, path=file)
