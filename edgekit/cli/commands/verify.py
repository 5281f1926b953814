"""`edgekit verify`: compare an exported file, run by the device's code, with its source, run by the training code."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output, TextTable, picked, reported
from edgekit.errors import GateError
from edgekit.export.verification.options import VerifyOptions

if TYPE_CHECKING:
    from edgekit.export.verification.run import ParityCheck, VerifyReport


@edgekit_command(
    "verify", short_help="Check that a file classifies in the same way as its source.", options=VerifyOptions
)
@click.argument("model")
def command(out: Output, options: VerifyOptions) -> None:
    """Classify the same images with training code and device code, from image file to label, and compare.

    MODEL is an exported file. Its crops must be equal to the crops of the training in every pixel. A float32 file must
    predict the same label for every image, and its logits may differ by rounding errors only. Larger differences are
    allowed for int8 and half floats (docs/how-to/verify.md lists all limits).

    MODEL is also refused if its contract does not match the net, or if the oldest supported onnxruntime cannot run it.
    If MODEL is refused, the exit code is 3.

    \b
    Examples:
      edgekit verify mine.onnx --against runs/mine/best.safetensors --data fer2013.tar.gz
      edgekit verify int8.onnx --against mine.onnx --data folders --split test --limit 500 --json
      edgekit verify mine.ncnn --against runs/mine/best.safetensors --data fer2013.tar.gz
    """
    from edgekit.export.verification.run import verify

    with reported(out) as callbacks:
        report = verify(**vars(options) | callbacks)
    show_report(out, report)
    out.result({**verify_document(report), "data": str(options.data), "split": options.split})
    if not report.passed:
        # Without a check, the file cannot run on a device at all.
        cure = f": check that it was made from '{report.against}'" if report.check and not report.is_itself else ""
        raise GateError(f"'{report.model}' is refused: {'; '.join(report.faults)}{cure}")
    out.say("verified")


def show_report(out: Output, report: VerifyReport) -> None:
    """Print the differences that were found.

    `oldest_runtime` is None for engines other than ONNX Runtime, `check` for a file that a device cannot run.
    """
    if report.oldest_runtime and report.check:
        out.say(f"onnxruntime {report.oldest_runtime}, the oldest supported, has all operators of the file")
    if report.check:
        _show_parity(out, report.check)
        out.show(_accuracy_table(report.check))
        if report.is_itself:
            out.say(
                "compared with itself: a device can run the file, and reads, crops and batches images as the training "
                "does. Not checked: weights, labels, colour order, normalisation and fit; for a file of another "
                "program, compare the accuracy with its own"
            )


def verify_document(report: VerifyReport) -> dict[str, Any]:
    """Return the result of a verification as the document of --json; the caller adds the name of the data set."""
    document: dict[str, Any] = {"model": str(report.model), "against": str(report.against), "engine": report.engine}
    document["itself"] = report.is_itself
    if report.oldest_runtime:
        document["oldest_runtime"] = {"version": report.oldest_runtime}
    if report.check:
        document |= _check_document(report.check)
    return {**document, "passed": report.passed, "faults": list(report.faults)}


def _show_parity(out: Output, check: ParityCheck) -> None:
    """Print the differences between the training's code and the device's, each with its limit."""
    parity, tolerance = check.parity, check.tolerance
    if tolerance.relative is not None:  # int8 and half floats
        limit = f"{parity.relative_difference:.3f} of their root mean square, allowed: {tolerance.relative:g}"
    else:
        limit = f"allowed: {check.allowed_difference:.1e}"
    largest = f"{parity.logits_difference:.2e} ({limit}; largest {parity.largest_logit:.1f})"
    out.fields(
        [
            ("images", f"{parity.images}, classified by both sides"),
            ("crops", f"{parity.crops_different} differ, by at most {parity.crop_difference} of 255 (allowed: 0)"),
            ("logits", f"differ by at most {largest}"),
            ("batch size", f"changes logits by at most {parity.batch_difference:.2e}"),
            ("top-1", f"equal on {parity.same_top1} (required: {tolerance.top1_share:.0%})"),
        ]
    )


def _accuracy_table(check: ParityCheck) -> TextTable:
    """Return the recall of each class on both sides; a table without rows if the images have no labels."""
    sides = [side for side in (check.parity.reference, check.parity.device) if side]
    rows = [(label, *(_share(side.per_class[label]) for side in sides)) for label in check.contract.labels]
    rows.append(("all", *(_share(side.accuracy) for side in sides)))
    return TextTable(("class", "training side", "device side"), rows if len(sides) == 2 else (), ("class",))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _check_document(check: ParityCheck) -> dict[str, Any]:
    """Return the part of the document of --json that compares the training's code with the device's."""
    parity, tolerance = check.parity, check.tolerance
    sides = {"training": parity.reference, "device": parity.device}
    return {
        "precision": check.contract.precision,
        "images": parity.images,
        "crops": {
            "different": parity.crops_different,
            "max_abs_difference": parity.crop_difference,
            "first": parity.first_different,
        },
        "logits": {
            # None instead of NaN and infinity, which JSON does not have.
            "max_abs_difference": _finite(parity.logits_difference),
            "batch_difference": _finite(parity.batch_difference),
            "tolerance": check.allowed_difference,
            "relative_difference": _finite(parity.relative_difference),
            "relative_tolerance": tolerance.relative,
        },
        "top1": {
            "same": parity.same_top1,
            "agreement": parity.same_top1 / parity.images,
            "tolerance": tolerance.top1_share,
        },
        "accuracy": {
            side: picked(result, "accuracy", "correct", "per_class") if result else None
            for side, result in sides.items()
        },
    }


def _finite(value: float) -> float | None:
    """Return a number for JSON; None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
