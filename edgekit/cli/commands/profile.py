"""`edgekit profile`: what a net costs, layer by layer, and what it should take on a board."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import MAX_THREADS, PATH, NumberRange, detector_options, refuse_unused
from edgekit.cli.output import Output, common_options, one_line
from edgekit.errors import InputError
from edgekit.latencies import KNOWN_BOARDS, KnownBoard

if TYPE_CHECKING:
    from edgekit.export.profiling.pipeline_estimate import PipelineEstimate
    from edgekit.export.profiling.profile import LayerProfile, Profile
    from edgekit.export.profiling.roofline import Estimate

_SHOWN_LAYERS = 20
# The figures take 55; a narrower terminal breaks lines.
_LEAST_COLUMNS = 80
_THREADS = (1, 4)
_MAX_SIDE_PX = 8192


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)
    if match is None or not all(1 <= int(side) <= _MAX_SIDE_PX for side in match.groups()):
        raise click.BadParameter(f"'{value}' is no size such as 320x240, up to {_MAX_SIDE_PX}", ctx, param)
    return int(match[1]), int(match[2])


@click.command("profile", short_help="Show what a net costs, here and on a board.")
@click.argument("model")
@click.option("--board", type=click.Choice(list(KNOWN_BOARDS)), help="One board only; default: all of them.")
@click.option("--size", callback=_size, metavar="WxH", help="Size of inputs whose height and width are free.")
@click.option("--layers", "all_layers", is_flag=True, help="Show all layers in their order, not the costliest alone.")
@click.option("--seconds", type=NumberRange(0, 3600), default=2, show_default=True, help="How long to measure.")
@click.option("--threads", type=click.IntRange(1, MAX_THREADS), default=1, show_default=True, help="To measure with.")
@click.option("--plot", type=PATH, help="Draw the board's roofline (.png, .svg, .pdf).")
@click.option("--pipeline", is_flag=True, help="Estimate the whole loop at 640x480: camera, detector, classifier.")
@click.option(
    "--detect-every", type=click.IntRange(1, 1000), default=5, show_default=True, metavar="N", help="With --pipeline."
)
@click.option("--faces", type=click.IntRange(1, 100), default=1, show_default=True, help="With --pipeline: a frame.")
@detector_options
@common_options
def command(
    out: Output,
    model: str,
    board: str | None,
    size: tuple[int, int] | None,
    all_layers: bool,
    seconds: float,
    threads: int,
    plot: Path | None,
    pipeline: bool,
    detect_every: int,
    faces: int,
    detector_name: str,
    detector_model: Path | None,
    detector_size: int,
) -> None:
    """Show each layer's multiply-accumulates, bytes and share of the time, and estimate latency on a board.

    MODEL is any .onnx file, or `default`. Bytes are counted without reuse in a cache, and as what passes between memory
    and a cache of the board's size. The time's shares are ONNX Runtime's, measured on this machine. An estimate comes
    from the roofline of a board, found from published latencies of other nets; it is not a measurement.

    --pipeline adds capture, YuNet on every Nth frame, optical flow between, and the classifier.

    \b
    Examples:
      edgekit profile default
      edgekit profile mine.onnx --board pi3b+ --plot roofline.png
      edgekit profile int8.onnx --board pi3b+ --pipeline --detector-size 256 --detect-every 5
      edgekit profile face_detection_yunet_2026may.onnx --size 320x256 --layers --json
    """
    from edgekit.cli.progress import progress_bar
    from edgekit.export.profiling.profile import has_free_size, profile_file
    from edgekit.model_store import NCNN_SUFFIX, ONNX_SUFFIX, resolve_model

    if plot:
        from edgekit.files import check_writable
        from edgekit.models.evaluation.plots import check_plot_path

        check_plot_path(plot)
        check_writable(plot)
    if not pipeline:
        loop = ("detect_every", "faces", "detector_name", "detector_model", "detector_size")
        refuse_unused(click.get_current_context(), loop, "goes with --pipeline")
    if pipeline and detector_name != "yunet":
        raise click.UsageError("--pipeline knows what YuNet costs: leave --detector at yunet")
    if pipeline and not seconds:
        raise click.UsageError("--pipeline scales what it measures here: leave --seconds above 0")
    if pipeline and threads != 1:
        raise click.UsageError("--pipeline measures with one thread: leave --threads out")
    if model.endswith(NCNN_SUFFIX):
        raise InputError(
            f"model '{model}' is for ncnn, which names no time for a layer: profile the .onnx file of the same "
            "checkpoint (the estimates are from ncnn's latencies), and compare engines with 'edgekit bench'"
        )
    path = resolve_model(model, (ONNX_SUFFIX,))
    if size and not has_free_size(path):
        raise InputError(f"model '{path}' has a fixed input size: leave --size out")
    boards = [KNOWN_BOARDS[board]] if board else list(KNOWN_BOARDS.values())
    detector = _loop_files(path, detector_model, detector_size, out) if pipeline else None
    bar = progress_bar(out)
    with bar as progress:
        task = progress.add_task("measuring", total=1.0)
        profile = profile_file(
            path,
            cache_kib=boards[0].shared_cache_kib,
            size_wh=size,
            intra_op_threads=1 if pipeline else threads,
            seconds=seconds,
            progress=lambda share: progress.update(task, completed=share),
        )
    _say_layers(out, profile, all_layers)
    _say_totals(out, profile)
    estimates = [(each, count, profile.on(each, count)) for each in boards for count in _THREADS]
    _say_estimates(out, estimates)
    loops: list[dict[str, Any]] = []
    if detector:
        for each in boards:
            for count in _THREADS:
                loops.append(_loop(out, profile, path, detector, each, count, detect_every, detector_size, faces))
    if plot:
        _draw(out, plot, profile, path, boards[0])
    out.result(_document(path, profile, estimates, loops))


def _loop_files(path: Path, given: Path | None, size_px: int, out: Output) -> Path:
    """Return YuNet's file; it and the classifier are tried before anything is measured."""
    from edgekit.device.detection.yunet import YuNet
    from edgekit.device.engines.classifier import Classifier
    from edgekit.downloads import YUNET, UnavailableError, cached_download

    Classifier(path, 1)
    try:
        detector = given or cached_download(YUNET, notify=out.warn)
    except UnavailableError as error:
        raise InputError(f"{error}: name YuNet's file with --detector-model") from error
    YuNet(detector, size_px, score_threshold=0.7, intra_op_threads=1)
    return detector


def _say_layers(out: Output, profile: Profile, all_layers: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    order = sorted(profile.layers, key=_weight, reverse=True)[:_SHOWN_LAYERS]
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    table.add_column("kind")
    for column in ("MMACs", "weights\nkB", "activ.\nkB", "reused\nkB", "FLOPs\n/B", "here"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in profile.layers if all_layers else order:
        intensity, share = layer.flops_per_byte, layer.share
        cells = (
            layer.name,
            layer.op_type,
            f"{layer.macs / 1e6:.3f}",
            *(f"{count / 1e3:.1f}" for count in (layer.weight_bytes, layer.activation_bytes, layer.memory_bytes)),
            "-" if intensity is None else f"{intensity:.1f}",
            "-" if share is None else f"{share:.1%}",
        )
        table.add_row(*(Text(one_line(cell), overflow="fold") for cell in cells))
    console = out.console
    console.width = max(console.width, _LEAST_COLUMNS)
    console.print(table)
    out.say("reused kB: what is left of weights and activations past the cache; here: share of this machine's time")
    if not all_layers and len(profile.layers) > _SHOWN_LAYERS:
        out.say(f"the costliest {_SHOWN_LAYERS} of {len(profile.layers)} layers; --layers shows all")


def _weight(layer: LayerProfile) -> float:
    return layer.share if layer.share is not None else (layer.macs + layer.moved_bytes) * 1e-12


def _say_totals(out: Output, profile: Profile) -> None:
    left_out = f", not counting {', '.join(profile.cost.uncounted)}" if profile.cost.uncounted else ""
    intensity = 2 * profile.macs / profile.moved_bytes if profile.moved_bytes else 0.0
    out.say(f"MACs        {profile.macs:,} ({profile.precision}){left_out}")
    out.say(
        f"bytes       {profile.moved_bytes:,} without reuse in a cache ({intensity:.1f} FLOPs a byte), "
        f"{profile.memory_bytes:,} past a cache of {profile.cache_kib} KiB"
    )
    if profile.measured is not None:
        measured = profile.measured
        kinds = ", ".join(f"{one_line(kind)} {share:.0%}" for kind, share in measured.by_kind()[:4])
        out.say(
            f"here        {measured.median_ms:.2f} ms, median of {measured.runs}, {measured.intra_op_threads} threads, "
            f"profiler on: {kinds}; {profile.runtime_share or 0:.0%} in nodes the runtime added"
        )


def _say_estimates(out: Output, estimates: list[tuple[KnownBoard, int, Estimate | str]]) -> None:
    out.say("Estimates, not measurements: a roofline found from latencies published for ncnn on that board.")
    for board, threads, found in estimates:
        where = f"{board.name}, {threads} thread{'s' if threads > 1 else ''}"
        if isinstance(found, str):
            out.say(f"  {where:<32} no estimate: {found}")
            continue
        roofline = found.roofline
        out.say(
            f"  {where:<32} {_interval(found.low_ms, found.high_ms)}; {found.memory_share:.0%} of it waits for memory; "
            f"{roofline.coverage:.0%} of {roofline.rows} nets left out lay inside"
        )


def _interval(low_ms: float, high_ms: float) -> str:
    if high_ms < 0.1:
        return "below 0.1 ms"
    digits = 1 if high_ms < 100 else 0
    return f"{low_ms:.{digits}f} to {high_ms:.{digits}f} ms"


def _loop(
    out: Output,
    profile: Profile,
    path: Path,
    detector: Path,
    board: KnownBoard,
    threads: int,
    detect_every: int,
    size_px: int,
    faces: int,
) -> dict[str, Any]:
    from edgekit.export.profiling.pipeline_estimate import FRAME_WH, estimate_pipeline

    found = estimate_pipeline(
        profile,
        path,
        detector,
        board,
        threads=threads,
        detect_every=detect_every,
        detector_size_px=size_px,
        faces=faces,
    )
    where = f"{board.name}, {threads} thread{'s' if threads > 1 else ''}"
    if isinstance(found, str):
        out.say(f"whole loop on {where}: no estimate: {found}")
        return {"board": board.key, "threads": threads, "reason": found}
    low_fps, high_fps = found.fps
    width, height = found.detector_wh
    out.say(
        f"whole loop on {where}, {FRAME_WH[0]}x{FRAME_WH[1]}, YuNet at {width}x{height} every {detect_every}th frame, "
        f"{faces} face{'s' if faces > 1 else ''}, {found.precision}: an estimate"
    )
    stage, _ = found.longest_stage
    out.say(f"  one after the other: {low_fps:.0f} to {high_fps:.0f} frames a second, bound by: {found.bound_by.name}")
    if found.staged_fps is not None:
        low_fps, high_fps = found.staged_fps
        out.say(f"  stages side by side: {low_fps:.0f} to {high_fps:.0f} frames a second, bound by stage {stage}")
    for part in found.parts:
        out.say(f"  {part.name:<32} {part.middle_ms:6.2f} ms a frame ({part.basis})")
    return _loop_document(found, board)


def _loop_document(found: PipelineEstimate, board: KnownBoard) -> dict[str, Any]:
    document = asdict(found)
    low_fps, high_fps = found.fps
    staged_low_fps, staged_high_fps = found.staged_fps or (None, None)
    return document | {
        "board": board.key,
        "middle_ms": found.middle_ms,
        "low_fps": low_fps,
        "high_fps": high_fps,
        "bound_by": found.bound_by.name,
        "staged_low_fps": staged_low_fps,
        "staged_high_fps": staged_high_fps,
        "longest_stage": found.longest_stage[0],
        "is": "an estimate, not a measurement",
    }


def _draw(out: Output, plot: Path, profile: Profile, path: Path, board: KnownBoard) -> None:
    from edgekit.export.profiling.roofline_plot import save_roofline

    for threads in _THREADS:
        found = profile.on(board, threads)
        if not isinstance(found, str):
            title = (
                f"{one_line(path.name)} on a {board.name}, {threads} thread{'s' if threads > 1 else ''}, "
                f"{profile.precision}: {_interval(found.low_ms, found.high_ms)} estimated"
            )
            save_roofline(plot, profile, found, title)
            out.say(f"roofline: {plot}")
            return
    raise InputError(f"no roofline to draw: {found}")


def _document(
    path: Path,
    profile: Profile,
    estimates: list[tuple[KnownBoard, int, Estimate | str]],
    loops: list[dict[str, Any]],
) -> dict[str, Any]:
    measured = profile.measured
    return {
        "model": str(path),
        "precision": profile.precision,
        "macs": profile.macs,
        "moved_bytes": profile.moved_bytes,
        "memory_bytes": profile.memory_bytes,
        "cache_kib": profile.cache_kib,
        "uncounted": list(profile.cost.uncounted),
        "measured": measured
        and {
            "runs": measured.runs,
            "intra_op_threads": measured.intra_op_threads,
            "median_ms": measured.median_ms,
            "runtime_share": profile.runtime_share,
            "kinds": dict(measured.by_kind()),
        },
        "layers": [asdict(layer) | {"flops_per_byte": layer.flops_per_byte} for layer in profile.layers],
        "estimates": [_estimate_document(*entry) for entry in estimates],
        "estimates_are": "not measurements: a roofline found from latencies that others published",
        "pipeline": loops,
    }


def _estimate_document(board: KnownBoard, threads: int, found: Estimate | str) -> dict[str, Any]:
    document: dict[str, Any] = {"board": board.key, "name": board.name, "threads": threads}
    if isinstance(found, str):
        return document | {"low_ms": None, "high_ms": None, "reason": found}
    return document | {
        "low_ms": found.low_ms,
        "high_ms": found.high_ms,
        "memory_share": found.memory_share,
        "rows": found.roofline.rows,
        "coverage": found.roofline.coverage,
        "reason": None,
    }
