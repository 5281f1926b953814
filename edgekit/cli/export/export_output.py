"""Output of `edgekit export`: text and JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgekit.cli.export.options import ENSEMBLE
from edgekit.export.onnx.targets import GENERIC, TARGETS
from edgekit.text import one_line

if TYPE_CHECKING:
    from edgekit.cli.output import Output
    from edgekit.export.onnx.exported import EnsembleForm, Exported
    from edgekit.export.quantization.gate import QuantizedExport


# What forms without calibration gain, by precision; counts are in docs/how-to/int8.md.
_GAIN = {
    "int8": "this form saves space; no gain in speed was measured on a CPU",
    "float16": "half floats need fewer instructions on a Cortex-A76 (Pi 5), not on older cores",
}


def show_export(
    out: Output, exported: Exported, quantized: QuantizedExport | None, sha256: str, show_labels: bool
) -> None:
    """Print the result of an export. For a quantised file this is `quantized`, and `exported` is the float32 file."""
    check, cost, file = exported.verification, exported.cost, quantized or exported
    engine = "ncnn" if exported.opset is None else f"opset {exported.opset}, IR {exported.ir_version}"
    out.say(f"{file.path}: {file.size_bytes:,} bytes, {engine}")
    out.say(f"sha256 {sha256}")
    if show_labels:
        out.say(one_line(f"labels: {', '.join(exported.contract.labels)}"))
    out.say(
        f"{'in float32 ' * (quantized is not None)}verified on {check.crops} face crops: max abs difference of "
        f"logits to torch {check.max_abs_difference:.1e} (allowed: below {check.tolerance:.0e})"
    )
    folded = " with BatchNorm folded" if exported.changed.get("fold-batchnorm") else ""
    out.say(
        f"{exported.net_parameters:,} parameters in the net, {cost.parameters:,} in the file{folded}, "
        f"{_macs(cost.macs)} multiply-accumulates"
    )
    if exported.changed.keys() != TARGETS[GENERIC].passes:
        done = ", ".join(f"{name} ({count})" for name, count in exported.changed.items() if count)
        out.say(f"rewrites (places changed): {done or 'none'}")
    if quantized:
        _show_quantization(out, quantized, exported)
    elif file.contract.precision in _GAIN:
        out.say(f"{file.contract.precision}: {_GAIN[file.contract.precision]}")
    if exported.ensemble:
        both, one = exported.ensemble.with_ensemble, exported.ensemble.without_ensemble
        out.say(f"with {ENSEMBLE}: {_form(both)}; without: {_form(one)}")


def export_document(
    exported: Exported,
    quantized: QuantizedExport | None,
    *,
    checkpoint: str,
    engine: str,
    target: str,
    sha256: str,
) -> dict[str, Any]:
    """Return the result of an export as the document of --json."""
    file = quantized or exported
    return {
        "path": str(file.path),
        "checkpoint": checkpoint,
        "engine": engine,
        "target": target,
        "rewrites": dict(exported.changed),
        "sha256": sha256,
        "size_bytes": file.size_bytes,
        "opset": exported.opset,
        "ir_version": exported.ir_version,
        "verification": asdict(exported.verification),
        "net_parameters": exported.net_parameters,
        "parameters": exported.cost.parameters,
        "macs": exported.cost.macs,
        "quantization": None if quantized is None else _quantization_document(quantized, exported),
        "contract": asdict(file.contract),
        **({} if exported.ensemble is None else asdict(exported.ensemble)),
    }


def _show_quantization(out: Output, quantized: QuantizedExport, exported: Exported) -> None:
    contract = quantized.contract
    out.say(f"{contract.precision}: {quantized.size_bytes / exported.size_bytes:.1%} of the float32 file's size")
    if contract.calibration:
        out.say(f"calibration: {contract.calibration}")
    if quantized.error is None:
        out.say(_GAIN[contract.precision])
    else:
        alone = ", ".join(f"{error:.3f} with {name} in float32" for name, error in quantized.error_without.items())
        out.say(f"logits change by {quantized.error:.3f} of their root mean square ({alone})")
    if quantized.reference and quantized.own:
        own, reference = quantized.own, quantized.reference
        out.say(
            f"accuracy {own.accuracy:.2%}, float32 {reference.accuracy:.2%} "
            f"({own.correct} and {reference.correct} of {own.total}): drop of {quantized.drop_points:+.2f} points, "
            f"at graph optimisation level '{contract.verified_level}'"
        )


def _quantization_document(quantized: QuantizedExport, exported: Exported) -> dict[str, Any]:
    return {
        "size_share": quantized.size_bytes / exported.size_bytes,
        "error": quantized.error,
        "error_without": quantized.error_without,
        "kept_in_float32": list(quantized.kept),
        "accuracy": quantized.own and quantized.own.accuracy,
        "accuracy_float32": quantized.reference and quantized.reference.accuracy,
        "drop_points": quantized.drop_points,
    }


def _form(form: EnsembleForm) -> str:
    accuracy = "" if form.accuracy is None else f", accuracy {form.accuracy:.2%}"
    return f"{form.size_bytes:,} bytes, {_macs(form.macs)} multiply-accumulates{accuracy}"


def _macs(macs: int | None) -> str:
    return "unknown" if macs is None else f"{macs:,}"
