"""`edgekit export`: write a checkpoint as one self-describing file for ONNX Runtime or ncnn."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output, picked, reported
from edgekit.export.options import ExportOptions, QuantizationOptions
from edgekit.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekit.export.quantization import QuantizedExport
    from edgekit.export.to_onnx import Exported

# Counts are in docs/how-to/int8.md.
_GAIN_OF_FP16 = "half floats need fewer instructions on a Cortex-A76 (Pi 5), not on older cores"


@edgekit_command(
    "export", short_help="Export a checkpoint to one file.", options=ExportOptions, quantization=QuantizationOptions
)
@click.argument("model")
def command(out: Output, options: ExportOptions, quantization: QuantizationOptions) -> None:
    """Export MODEL to one file that contains the net, the labels and the preprocessing.

    MODEL is a .safetensors checkpoint, the folder of a training, `default`, `fer2013` or `distilled`. The file accepts
    any batch size.

    The file is written only if its logits on a test picture equal those of the checkpoint, except for rounding errors.
    With --eval DATA, up to 500 of your images are also classified as in the training and as on a device. If pixels or
    labels differ, the file is kept under another name (exit code 3).

    --quantize int8 --calibrate DATA converts weights and activations to 8 bits. With --eval DATA, the accuracy is
    measured before and after. If it drops by more than --max-drop, the int8 file is kept under another name (exit code
    3).

    The labels can change without a training. With --merge, the probability of a new label is the sum of the
    probabilities of old labels. With --class, a student of a CLIP, such as `distilled`, gets new labels from texts.
    New labels can also be merged.

    With --clip, MODEL can be a file of trained prompts. The exported file then averages the outputs of the CLIP with
    prompts and of the CLIP without prompts. With --no-ensemble, it has the CLIP with prompts only.

    \b
    Examples:
      edgekit export runs/mine/best.safetensors -o mine.onnx
      edgekit export default -o default.onnx --json
      edgekit export default -o a53.onnx --target a53
      edgekit export default -o mine.ncnn --engine ncnn
      edgekit export default -o int8.onnx --target a53 --quantize int8
          --calibrate fer2013.tar.gz --eval fer2013.tar.gz
      edgekit export distilled --class happy --class "sad face" --class neutral -o s.onnx
      edgekit export runs/student/best.safetensors --classes labels.json --clip clip.pt -o s.onnx
      edgekit export default --merge positive=happy --merge negative=angry,disgust,fear,sad
          -o moods.onnx
      edgekit export runs/prompts/best.safetensors --clip ViT-B-16.pt -o clip.onnx
      edgekit export runs/prompts/best.safetensors --clip clip.pt --no-ensemble --eval faces
          -o clip.onnx
    """
    from edgekit.device.engines.engine import contract_in
    from edgekit.export.run import export, quantize, refuse_quantized
    from edgekit.model_store import CHECKPOINT_SUFFIX, ONNX_SUFFIX, resolve_model

    if quantization.method is not None and str(options.model).endswith(ONNX_SUFFIX):
        # A better error than that of `resolve_model` for a file that is quantised already.
        onnx_file = resolve_model(str(options.model), (ONNX_SUFFIX,))
        refuse_quantized(contract_in(onnx_file), onnx_file)
    options = replace(options, model=resolve_model(str(options.model), (CHECKPOINT_SUFFIX,)))
    quantized: QuantizedExport | None = None
    with reported(out) as callbacks:
        if quantization.method is not None:
            quantized = quantize(**vars(options) | vars(quantization) | callbacks)
            exported = quantized.source
        else:
            exported = export(**vars(options) | callbacks)
    assert exported is not None  # `quantize` keeps the float32 export of a checkpoint
    show_export(out, exported, quantized, options)
    out.result(export_document(exported, quantized, options))


def show_export(out: Output, exported: Exported, quantized: QuantizedExport | None, options: ExportOptions) -> None:
    """Print the result of an export: `exported` is the float32 file, `quantized` the quantised one if it was made."""
    check, cost = exported.verification, exported.cost
    file = quantized or exported
    # A file for ncnn has no opset.
    engine = "ncnn" if exported.opset is None else f"opset {exported.opset}, IR {exported.ir_version}"
    applied = ", ".join(f"{name} ({count})" for name, count in exported.changed.items() if count)
    rewrites = f"{applied} (places changed)" if applied else "none applies to this net"
    difference = f"max abs difference of logits to torch {check.max_abs_difference:.1e}"
    verified = f"on {check.crops} crops of a test picture: {difference} (allowed: {check.tolerance:.0e})"
    # --clip without --class is for trained prompts, whose classes become the labels.
    has_new_labels = bool(options.classes or options.classes_file or options.merges or options.clip)
    out.fields(
        [
            ("file", f"{file.path}: {file.size_bytes:,} bytes, {engine}"),
            ("sha256", sha256_of(file.path)),
            ("labels", ", ".join(exported.contract.labels) if has_new_labels else None),
            ("verified", f"in float32 {verified}" if quantized else verified),
            ("parameters", f"{exported.net_parameters:,} in the net, {cost.parameters:,} in the file"),
            ("multiply-accumulates", _macs(cost.macs)),
            # The target may have no rewrites.
            ("rewrites", rewrites if exported.changed else None),
            *(_quantization_fields(quantized, exported) if quantized else ()),
            ("gain", _GAIN_OF_FP16 if file.contract.precision == "float16" else None),
        ]
    )


def export_document(exported: Exported, quantized: QuantizedExport | None, options: ExportOptions) -> dict[str, Any]:
    """Return the result of an export as the document of --json; `exported` is the float32 file."""
    file = quantized or exported
    return {
        "path": str(file.path),
        "checkpoint": str(options.model),
        "engine": "ncnn" if exported.opset is None else "onnx",  # a file for ncnn has no opset
        "target": options.target,
        "rewrites": dict(exported.changed),
        "sha256": sha256_of(file.path),
        "size_bytes": file.size_bytes,
        **picked(exported, "opset", "ir_version", "net_parameters"),
        **picked(exported.cost, "parameters", "macs"),
        "verification": asdict(exported.verification),
        "quantization": None if quantized is None else _quantization_document(quantized, exported),
        "contract": asdict(file.contract),
    }


def _quantization_fields(quantized: QuantizedExport, exported: Exported) -> Iterator[tuple[str, str | None]]:
    """Yield the fields about a quantised file: its size, its calibration, and its differences from the float32 file."""
    contract = quantized.contract
    own, reference = quantized.own, quantized.reference  # evaluations of the quantised and of the float32 file
    yield contract.precision, f"{quantized.size_bytes / exported.size_bytes:.1%} of the float32 file's size"
    yield "calibration", contract.calibration or None
    if quantized.error is not None:
        yield "logits", f"change by {quantized.error:.3f} of their root mean square"
    if own and reference:
        counts = f"{own.correct} and {reference.correct} of {own.total}"
        yield "accuracy", f"{own.accuracy:.2%}, float32 {reference.accuracy:.2%} ({counts})"
        yield "drop", f"{quantized.drop_points:+.2f} points, at graph optimisation level '{contract.verified_level}'"


def _quantization_document(quantized: QuantizedExport, exported: Exported) -> dict[str, Any]:
    """Return the part of the document of --json about quantisation; an accuracy is None if it was not measured."""
    return {
        "size_share": quantized.size_bytes / exported.size_bytes,
        **picked(quantized, "error", "drop_points"),
        "accuracy": quantized.own.accuracy if quantized.own else None,
        "accuracy_float32": quantized.reference.accuracy if quantized.reference else None,
    }


def _macs(macs: int | None) -> str:
    return "unknown" if macs is None else f"{macs:,}"
