"""`edgekit profile`: cost of a model per layer, and its estimated latency on boards."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output, TextTable, picked, reported
from edgekit.export.profiling.options import ProfileOptions
from edgekit.options import Options, option
from edgekit.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgekit.export.profiling.cost import LayerCost
    from edgekit.export.profiling.pipeline_estimate import PipelineEstimate
    from edgekit.export.profiling.profile import Profile
    from edgekit.export.profiling.roofline import BoardEstimate, Estimate
    from edgekit.export.profiling.run import ProfileReport

_SHOWN_LAYERS = 20


@dataclass(frozen=True, kw_only=True)
class ShownOptions(Options):
    """What the command shows of a profile."""

    all_layers: bool = option(
        "--layers", "Show all layers in the order of the file, not only the most expensive ones.", default=False
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

    MODEL is any .onnx file, `default`, `fer2013` or `distilled`. Bytes are those that a board without a cache would
    move. The estimate is computed from a board's computing rate and memory bandwidth, which were fitted to published
    latencies of other nets. It is not a measurement.

    --pipeline estimates the whole loop: capture, YuNet on every fifth frame, optical flow on the other frames, and the
    classifier. A model of whole images needs neither detector nor optical flow.

    \b
    Examples:
      edgekit profile default
      edgekit profile mine.onnx --board pi3b+
      edgekit profile int8.onnx --board pi3b+ --pipeline
      edgekit profile mine.onnx --layers --json
    """
    from edgekit.export.profiling.run import profile

    with reported(out) as callbacks:
        # Its notes, such as that YuNet is downloaded, are printed as warnings.
        report = profile(**vars(options) | callbacks | {"notify": out.warn})
    show_profile(out, report, shown.all_layers)
    out.result(profile_document(report))


def show_profile(out: Output, report: ProfileReport, all_layers: bool) -> None:
    """Print layers, totals and estimates."""
    layers = report.profile.cost.layers
    shown = layers if all_layers else sorted(layers, key=_cost, reverse=True)[:_SHOWN_LAYERS]
    out.show(_layer_table(shown))
    if len(shown) < len(layers):
        out.say(f"the costliest {len(shown)} of {len(layers)} layers; --layers shows all")
    out.fields(_totals(report.profile))
    out.say("Estimates, not measurements: a roofline fitted to latencies published for ncnn on that board.")
    rows = []
    for case in report.estimates:
        if estimate := case.estimate:
            # `rows` is the number of published nets, each of which was left out of a fit once.
            coverage = f"{estimate.roofline.coverage:.0%} of {estimate.roofline.rows}"
            latency = _interval(estimate.low_ms, estimate.high_ms)
            rows.append((_where(case), latency, f"{estimate.memory_share:.0%}", coverage))
    out.show(TextTable(("board", "estimate", "bound by memory", "coverage"), rows, ("board",)))
    if rows:
        out.say("coverage: share of the nets left out of the fit whose latency was inside their interval")
    out.show(*(f"{_where(case)}: no estimate: {case.reason}" for case in report.estimates if case.estimate is None))
    for loop in report.loops:
        _show_loop(out, loop)


def profile_document(report: ProfileReport) -> dict[str, Any]:
    """Return a profile as the document of --json."""
    profile = report.profile
    return {
        "model": str(report.model),
        "precision": profile.precision,
        **picked(profile.cost, "macs", "moved_bytes"),
        "uncounted": list(profile.cost.uncounted),
        "layers": [asdict(layer) | picked(layer, "moved_bytes") for layer in profile.cost.layers],
        "estimates": [_estimate_document(case) for case in report.estimates],
        "estimates_are": "not measurements: a roofline fitted to published latencies",
        "pipeline": [_loop_document(loop) for loop in report.loops],
    }


def _layer_table(layers: Sequence[LayerCost]) -> TextTable:
    """Return a table with the millions of multiply-accumulates and the kilobytes of each layer.

    No count is None here: `profile_file` refuses such a model.
    """
    rows = [
        (
            layer.name,
            layer.op_type,
            f"{(layer.macs or 0) / 1e6:.3f}",
            f"{(layer.weight_bytes or 0) / 1e3:.1f}",
            f"{((layer.read_bytes or 0) + (layer.written_bytes or 0)) / 1e3:.1f}",
        )
        for layer in layers
    ]
    columns = ("layer", "kind", "MMACs", "weights kB", "activ. kB")
    return TextTable(columns, rows, ("layer", "kind"))


def _cost(layer: LayerCost) -> int:
    """Return a key for sorting by cost: multiply-accumulates plus bytes."""
    return (layer.macs or 0) + (layer.moved_bytes or 0)


def _totals(profile: Profile) -> Iterator[tuple[str, str]]:
    cost = profile.cost
    uncounted = f", without those of {', '.join(cost.uncounted)}" if cost.uncounted else ""
    yield "MACs", f"{cost.macs:,} ({profile.precision}){uncounted}"
    yield "bytes", f"{cost.moved_bytes:,} without reuse in a cache"


def _show_loop(out: Output, loop: BoardEstimate[PipelineEstimate]) -> None:
    """Print the estimated frame rate of the whole loop on a board, with the time of each part per frame."""
    from edgekit.device.benchmark.measure import FRAME_WH

    found = loop.estimate
    if found is None:
        out.say(f"whole loop on {_where(loop)}: no estimate: {loop.reason}")
        return
    low_fps, high_fps = found.fps
    subject = "the whole image" if found.detector_wh is None else "one face, YuNet at {}x{}".format(*found.detector_wh)
    out.say(f"whole loop on {_where(loop)}, {FRAME_WH[0]}x{FRAME_WH[1]}, {subject}, {found.precision}: an estimate")
    out.say(f"  one thread: {low_fps:.0f} to {high_fps:.0f} frames/s, slowest part: {found.bound_by.name}")
    if found.staged_fps is not None:
        low_fps, high_fps = found.staged_fps
        stage, _ = found.longest_stage
        out.say(f"  one thread per stage: {low_fps:.0f} to {high_fps:.0f} frames/s, slowest stage: {stage}")
    rows = [(part.name, f"{part.middle_ms:.2f}", part.basis) for part in found.parts]
    out.show(TextTable(("part", "ms per frame", "from"), rows, ("part", "from")))


def _where(case: BoardEstimate[Any]) -> str:
    return f"{case.board.name}, {counted(case.threads, 'thread')}"


def _interval(low_ms: float, high_ms: float) -> str:
    """Return an interval of latencies as text."""
    if high_ms < 0.1:
        return "below 0.1 ms"
    digits = 1 if high_ms < 100 else 0
    return f"{low_ms:.{digits}f} to {high_ms:.{digits}f} ms"


def _estimate_document(case: BoardEstimate[Estimate]) -> dict[str, Any]:
    """Return the estimated latency on a board, or the reason why there is none, for the document of --json."""
    estimate = case.estimate
    of_roofline = {}
    if estimate is not None:
        of_roofline = {"memory_share": estimate.memory_share, **picked(estimate.roofline, "rows", "coverage")}
    return {
        "board": case.board.key,
        "name": case.board.name,
        "threads": case.threads,
        **picked(estimate, "low_ms", "high_ms"),  # None without an estimate
        **of_roofline,
        "reason": None if estimate else case.reason,
    }


def _loop_document(loop: BoardEstimate[PipelineEstimate]) -> dict[str, Any]:
    """Return the estimate of the whole loop on a board, or the reason why there is none, for the document of --json."""
    estimate = loop.estimate
    if estimate is None:
        return {"board": loop.board.key, "threads": loop.threads, "reason": loop.reason}
    low_fps, high_fps = estimate.fps
    staged_low_fps, staged_high_fps = estimate.staged_fps or (None, None)
    return asdict(estimate) | {
        "middle_ms": estimate.middle_ms,
        "low_fps": low_fps,
        "high_fps": high_fps,
        "bound_by": estimate.bound_by.name,
        "staged_low_fps": staged_low_fps,
        "staged_high_fps": staged_high_fps,
        "longest_stage": estimate.longest_stage[0],  # its name
        "is": "an estimate, not a measurement",
        "board": loop.board.key,
    }
