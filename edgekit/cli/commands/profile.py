"""`edgekit profile`: cost of a model per layer, and its estimated latency on boards."""

from __future__ import annotations

from dataclasses import dataclass

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output, reported
from edgekit.export.profiling.options import ProfileOptions
from edgekit.options import Options, option


@dataclass(frozen=True, kw_only=True)
class ShownOptions(Options):
    """What the command shows of a profile."""

    all_layers: bool = option(
        "--layers", "Show all layers in the order of the file, not only the most expensive layers.", default=False
    )


@edgekit_command(
    "profile",
    short_help="Show a model's cost per layer and its estimated latency on boards.",
    options=ProfileOptions,
    shown=ShownOptions,
)
@click.argument("model")
def command(out: Output, options: ProfileOptions, shown: ShownOptions) -> None:
    """Show each layer's multiply-accumulates and bytes, and estimate the latency on a board.

    MODEL is any .onnx file, `default`, `fer2013` or `distilled`. Bytes are counted without a cache. An estimate is not
    a measurement. It is computed with a roofline of the board, which is fitted to published latencies of other nets.

    --pipeline estimates the whole loop: capture, YuNet on every fifth frame, optical flow on the other frames, and the
    classifier. A model of whole images needs neither detector nor optical flow.

    \b
    Examples:
      edgekit profile default
      edgekit profile mine.onnx --board pi3b+
      edgekit profile int8.onnx --board pi3b+ --pipeline
      edgekit profile mine.onnx --layers --json
    """
    from edgekit.cli.export.profile_output import profile_document, show_profile
    from edgekit.export.profiling.run import profile

    with reported(out) as callbacks:
        report = profile(**vars(options) | callbacks | {"notify": out.warn})
    show_profile(out, report, shown.all_layers)
    out.result(profile_document(report))
