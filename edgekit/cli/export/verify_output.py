"""Output of `edgekit verify`: text and JSON document."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgekit.cli.output import Output, one_line

if TYPE_CHECKING:
    from edgekit.export.verification.first_difference import LayerDifference
    from edgekit.export.verification.run import ParityCheck, VerifyReport


def show_report(out: Output, report: VerifyReport, show_layers: bool) -> None:
    """Print the differences that were found."""
    if report.oldest_runtime and report.check:
        how = f"loaded by {report.loaded_by}" if report.loaded_by else "by its list of operators"
        out.say(f"onnxruntime {report.oldest_runtime}, the oldest supported: can run the file ({how})")
    if report.check:
        _show_parity(out, report.check)
        _show_accuracy(out, report.check)
        _show_layers(out, report.check, show_layers)


def verify_document(report: VerifyReport) -> dict[str, Any]:
    """Return the result of a verification as the document of --json; the caller adds the name of the data set."""
    document: dict[str, Any] = {"model": str(report.model), "against": str(report.against), "engine": report.engine}
    if report.oldest_runtime:
        document["oldest_runtime"] = {"version": report.oldest_runtime, "loaded_by": report.loaded_by}
    if report.check:
        document |= _check_document(report.check)
    return {**document, "passed": report.passed, "faults": list(report.faults)}


def _show_parity(out: Output, check: ParityCheck) -> None:
    found, tolerance = check.parity, check.tolerance
    allowed = check.allowed_difference
    limit = "" if allowed is None else f"allowed: {allowed:.1e}"
    if tolerance.relative is not None:
        limit = f"{found.relative_difference:.3f} of their root mean square, allowed: {tolerance.relative:g}"
    out.say(f"images          {found.images}, classified by both sides")
    out.say(f"crops           {found.crops_different} differ, by at most {found.crop_difference} of 255 (allowed: 0)")
    out.say(
        f"logits          differ by at most {found.logits_difference:.2e} ({limit}; largest {found.largest_logit:.1f})"
    )
    out.say(f"batch size      changes logits by at most {found.batch_difference:.2e}")
    out.say(f"top-1           equal on {found.same_top1} (required: {tolerance.top1_share:.0%})")


def _show_accuracy(out: Output, check: ParityCheck) -> None:
    reference, device = check.parity.reference, check.parity.device
    if reference is None or device is None:
        return
    rows = []
    for label in check.contract.labels:
        shares = (side.per_class[label] for side in (reference, device))
        rows.append((label, *("-" if share is None else f"{share:.2%}" for share in shares)))
    rows.append(("all", f"{reference.accuracy:.2%}", f"{device.accuracy:.2%}"))
    out.table(("class",), ("training side", "device side"), rows)


def _show_layers(out: Output, check: ParityCheck, show_all: bool) -> None:
    if check.layers == ():
        out.say("layers          none can be compared: no layer of both models has results in float32")
        return
    if show_all and check.layers:
        rows = [(layer.name, layer.op_type, f"{layer.relative:.1e}", f"{layer.max_abs:.1e}") for layer in check.layers]
        out.table(("layer", "kind"), ("relative difference", "largest"), rows)
    if first := check.first:
        out.say(f"first to differ {one_line(first.name)} ({first.op_type}), by {first.relative:.1e} of its values")
    elif check.layers:
        out.say(f"layers          none of {len(check.layers)} compared ones differs on the device's pixels")


def _check_document(check: ParityCheck) -> dict[str, Any]:
    found, tolerance = check.parity, check.tolerance
    sides = {"training": found.reference, "device": found.device}
    document: dict[str, Any] = {
        "precision": check.contract.precision,
        "images": found.images,
        "crops": {
            "different": found.crops_different,
            "max_abs_difference": found.crop_difference,
            "first": found.first_different,
        },
        "logits": {
            "max_abs_difference": _finite(found.logits_difference),
            "batch_difference": _finite(found.batch_difference),
            "tolerance": check.allowed_difference,
            "relative_difference": _finite(found.relative_difference),
            "relative_tolerance": tolerance.relative,
        },
        "top1": {
            "same": found.same_top1,
            "agreement": found.same_top1 / found.images,
            "tolerance": tolerance.top1_share,
        },
        "accuracy": {
            side: result and {"accuracy": result.accuracy, "correct": result.correct, "per_class": result.per_class}
            for side, result in sides.items()
        },
    }
    if check.layers is not None:
        document["layers"] = [_layer_document(layer) for layer in check.layers]
        document["first_difference"] = check.first and _layer_document(check.first)
    return document


def _layer_document(layer: LayerDifference) -> dict[str, Any]:
    return asdict(layer) | {"relative": _finite(layer.relative), "max_abs": _finite(layer.max_abs)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
