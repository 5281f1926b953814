"""Output of `edgekit export`: text and JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgekit.cli.output import picked
from edgekit.export.options import ExportOptions
from edgekit.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekit.cli.output import Output
    from edgekit.export.quantization import QuantizedExport
    from edgekit.export.to_onnx import Exported


# Counts are in docs/how-to/int8.md.
_GAIN_OF_FP16 = "half floats need fewer instructions on a Cortex-A76 (Pi 5), not on older cores"


def show_export(out: Output, exported: Exported, quantized: QuantizedExport | None, options: ExportOptions) -> None:
    """Print the result of an export. For a quantised file this is `quantized`, and `exported` is the float32 file."""
    check, cost, file = exported.verification, exported.cost, quantized or exported
    engine = "ncnn" if exported.opset is None else f"opset {exported.opset}, IR {exported.ir_version}"
    rewrites = ", ".join(f"{name} ({count})" for name, count in exported.changed.items() if count) or "none"
    difference = f"max abs difference of logits to torch {check.max_abs_difference:.1e}"
    in_float32 = "in float32 " if quantized else ""
    has_new_labels = bool(options.classes or options.classes_file or options.merges or options.clip)
    out.fields(
        [
            ("file", f"{file.path}: {file.size_bytes:,} bytes, {engine}"),
            ("sha256", sha256_of(file.path)),
            ("labels", ", ".join(exported.contract.labels) if has_new_labels else None),
            (
                "verified",
                f"{in_float32}on {check.crops} crops of a test picture: {difference} (allowed: {check.tolerance:.0e})",
            ),
            ("parameters", f"{exported.net_parameters:,} in the net, {cost.parameters:,} in the file"),
            ("multiply-accumulates", _macs(cost.macs)),
            ("rewrites", f"{rewrites} (places changed)" if exported.changed else None),
            *(_quantization_fields(quantized, exported) if quantized else ()),
            ("gain", _GAIN_OF_FP16 if file.contract.precision == "float16" else None),
        ]
    )


def export_document(exported: Exported, quantized: QuantizedExport | None, options: ExportOptions) -> dict[str, Any]:
    """Return the result of an export as the document of --json."""
    file = quantized or exported
    return {
        "path": str(file.path),
        "checkpoint": str(options.model),
        "engine": "ncnn" if exported.opset is None else "onnx",
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
    contract, own, reference = quantized.contract, quantized.own, quantized.reference
    yield contract.precision, f"{quantized.size_bytes / exported.size_bytes:.1%} of the float32 file's size"
    yield "calibration", contract.calibration or None
    if quantized.error is not None:
        yield "logits", f"change by {quantized.error:.3f} of their root mean square"
    if own and reference:
        counts = f"{own.correct} and {reference.correct} of {own.total}"
        yield "accuracy", f"{own.accuracy:.2%}, float32 {reference.accuracy:.2%} ({counts})"
        yield "drop", f"{quantized.drop_points:+.2f} points, at graph optimisation level '{contract.verified_level}'"


def _quantization_document(quantized: QuantizedExport, exported: Exported) -> dict[str, Any]:
    return {
        "size_share": quantized.size_bytes / exported.size_bytes,
        **picked(quantized, "error", "drop_points"),
        "accuracy": quantized.own and quantized.own.accuracy,
        "accuracy_float32": quantized.reference and quantized.reference.accuracy,
    }


def _macs(macs: int | None) -> str:
    return "unknown" if macs is None else f"{macs:,}"
