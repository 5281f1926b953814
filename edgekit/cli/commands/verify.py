"""`edgekit verify`: compare an exported file, run by the device's code, with its source, run by the training code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli.command import Command
from edgekit.cli.options import PATH, contempt_option, threads_option
from edgekit.cli.output import Output
from edgekit.errors import GateError


@click.command("verify", cls=Command, short_help="Check that a file classifies in the same way as its source.")
@click.argument("model")
@click.option(
    "--against", required=True, metavar="MODEL", help="The .safetensors or .onnx file that MODEL was made from."
)
@click.option("--data", type=PATH, required=True, help="Data set: class folders, .tar.gz, fer2013.csv or .h5.")
@click.option(
    "--split", default="PrivateTest", metavar="NAME", help="Split to compare on. Default: PrivateTest or test."
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Compare at most N images, spread evenly over the split."
)
@click.option("--layers", is_flag=True, help="Show the difference of every layer that exists in both models.")
@contempt_option
@threads_option
def command(out: Output, model: str, against: str, data: Path, split: str, layers: bool, **values: Any) -> None:
    """Classify the same images with training code and device code, from image file to label, and compare.

    MODEL is an exported file. Its crops must be equal to the crops of the training in every pixel. A float32 file must
    predict the same label for every image, and its logits may differ by rounding errors only. Larger differences are
    allowed for int8 and half floats (docs/how-to/verify.md lists all limits). If a difference is too large, the first
    layer that differs is printed.

    MODEL is also refused if its contract does not match the net, or if the oldest supported onnxruntime cannot run it.
    If MODEL is refused, the exit code is 3.

    \b
    Examples:
      edgekit verify mine.onnx --against runs/mine/best.safetensors --data fer2013.tar.gz
      edgekit verify int8.onnx --against mine.onnx --data folders --split test --limit 500 --json
      edgekit verify mine.ncnn --against runs/mine/best.safetensors --data fer2013.tar.gz
      edgekit verify default --against default --data fer2013.tar.gz --layers
    """
    from edgekit.cli.export.verify_output import show_report, verify_document
    from edgekit.cli.progress import by_stage, progress_bar
    from edgekit.export.verification.run import verify

    with progress_bar(out) as bars:
        report = verify(
            model, against, data, split=split, layers=layers, **values, progress=by_stage(bars), notify=out.say
        )
    show_report(out, report, layers)
    out.result({**verify_document(report), "data": str(data), "split": split})
    if not report.passed:
        raise GateError(f"'{report.model}' is refused: {'; '.join(report.faults)}")
    out.say("verified")
