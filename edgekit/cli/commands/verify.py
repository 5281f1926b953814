"""`edgekit verify`: compare an exported file, run by the device's code, with its source, run by the training code."""

from __future__ import annotations

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output, reported
from edgekit.errors import GateError
from edgekit.export.verification.options import VerifyOptions


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
    from edgekit.cli.export.verify_output import show_report, verify_document
    from edgekit.export.verification.run import verify

    with reported(out) as callbacks:
        report = verify(**vars(options) | callbacks)
    show_report(out, report)
    out.result({**verify_document(report), "data": str(options.data), "split": options.split})
    if not report.passed:
        raise GateError(f"'{report.model}' is refused: {'; '.join(report.faults)}")
    out.say("verified")
