"""`edgekit profile`: cost of a model per layer, and its estimated latency on boards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from edgekit.cli.command import Command
from edgekit.cli.options import MAX_THREADS, PATH, NumberRange, refuse_unused, yunet_options
from edgekit.cli.output import Output
from edgekit.known_boards import KNOWN_BOARDS

_MAX_SIDE_PX = 8192


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)
    if match is None or not all(1 <= int(side) <= _MAX_SIDE_PX for side in match.groups()):
        raise click.BadParameter(
            f"'{value}' is not a size such as 320x240, at most {_MAX_SIDE_PX} px per side", ctx, param
        )
    return int(match[1]), int(match[2])


@click.command("profile", cls=Command, short_help="Show a model's cost per layer and its estimated latency on boards.")
@click.argument("model")
@click.option(
    "--board",
    type=click.Choice(list(KNOWN_BOARDS)),
    help="Estimate the latency on this board only. Default: all boards.",
)
@click.option(
    "--size", "size_wh", callback=_size, metavar="WxH", help="Size of inputs whose height and width are dynamic."
)
@click.option(
    "--layers",
    "all_layers",
    is_flag=True,
    help="Show all layers in the order of the file, not only the most expensive layers.",
)
@click.option(
    "--seconds",
    type=NumberRange(0, 3600),
    metavar="SECONDS",
    default=2,
    show_default=True,
    help="Duration of the measurement of the layers; 0: no measurement.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    default=1,
    show_default=True,
    metavar="N",
    help="Threads of the measurement of the layers.",
)
@click.option("--plot", type=PATH, help="Draw the board's roofline (.png, .svg, .pdf).")
@click.option("--pipeline", is_flag=True, help="Also estimate the whole loop at 640x480: camera, detector, classifier.")
@click.option(
    "--detect-every",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    metavar="N",
    help="With --pipeline: the detector runs on every Nth frame.",
)
@click.option(
    "--faces",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    metavar="N",
    help="With --pipeline: faces per frame.",
)
@click.option(
    "--classify-every",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    metavar="N",
    help="With --pipeline: each face is classified in every Nth frame.",
)
@yunet_options
def command(
    out: Output,
    model: str,
    all_layers: bool,
    plot: Path | None,
    pipeline: bool,
    detect_every: int,
    faces: int,
    classify_every: int,
    detector_model: Path | None,
    detector_size: int | None,
    **values: Any,
) -> None:
    """Show each layer's multiply-accumulates, bytes and share of the time, and estimate the latency on a board.

    MODEL is any .onnx file, `default`, `fer2013` or `distilled`. Bytes are counted in two ways: without a cache, and
    between the memory and a cache of the board's size. ONNX Runtime measures the shares of the time on this machine. An
    estimate is not a measurement. It is computed with a roofline of the board, which is fitted to published latencies
    of other nets.

    --pipeline estimates the whole loop: capture, YuNet on every Nth frame, optical flow on the other frames, and the
    classifier. A model of whole images needs neither detector nor optical flow.

    \b
    Examples:
      edgekit profile default
      edgekit profile mine.onnx --board pi3b+ --plot roofline.png
      edgekit profile int8.onnx --board pi3b+ --pipeline --detector-size 256 --detect-every 5
      edgekit profile face_detection_yunet_2026may.onnx --size 320x256 --layers --json
    """
    if not pipeline:
        loop_only = ("detect_every", "faces", "classify_every", "detector_model", "detector_size")
        refuse_unused(click.get_current_context(), loop_only, "has no effect without --pipeline")
    if plot:
        from edgekit.files import check_writable
        from edgekit.models.evaluation.plots import check_plot_path

        check_plot_path(plot)
        check_writable(plot)
    from edgekit.cli.export.profile_output import draw_roofline, profile_document, show_profile
    from edgekit.cli.progress import by_stage, progress_bar
    from edgekit.export.profiling.run import LoopOptions, profile

    loop = LoopOptions(detect_every, faces, detector_model, detector_size, classify_every) if pipeline else None
    with progress_bar(out) as bars:
        report = profile(model, **values, loop=loop, progress=by_stage(bars), notify=out.warn)
    show_profile(out, report, all_layers)
    if plot:
        draw_roofline(out, plot, report)
    out.result(profile_document(report))
