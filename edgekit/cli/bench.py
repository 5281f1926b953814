"""`edgekit bench`: how fast models are on this machine."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.common import Output, common_options
from edgekit.cli.options import MAX_THREADS, SEED, detector_options

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from edgekit.device.detect import Detector

_CLIP_LIMIT_MIB = 160


def _thread_counts(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    parts = value.split(",")
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= MAX_THREADS for part in parts):
        raise click.BadParameter(f"'{value}' is no list of numbers from 1 to {MAX_THREADS}, such as 1,2,4", ctx, param)
    return tuple(int(part) for part in parts)


@click.command("bench", short_help="Measure how fast models are on this machine.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--threads", callback=_thread_counts, metavar="1,2,4", help="Thread counts; default: 1 and all processors."
)
@click.option(
    "--source", "source_uri", default="demo", show_default=True, metavar="URI", help="Frames of the pipeline."
)
@click.option("--seconds", type=click.FloatRange(0.01, 3600), default=10, show_default=True, help="Least time a cell.")
@click.option("--batch", type=click.IntRange(1, 1024), default=1, show_default=True, help="Faces the classifier gets.")
@click.option("--pipeline/--no-pipeline", default=True, show_default=True, help="Measure the whole pipeline too.")
@detector_options
@click.option("--seed", type=SEED, default=0, show_default=True, help="Decides the order of the cells.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the report as JSON.")
@common_options
def command(
    out: Output,
    models: tuple[str, ...],
    threads: tuple[int, ...] | None,
    source_uri: str,
    seconds: float,
    batch: int,
    pipeline: bool,
    detector_name: str,
    detector_model: Path | None,
    detector_size: int,
    seed: int,
    output: Path | None,
) -> None:
    """Measure models: the net alone, with preparing faces, and the whole pipeline over frames held in memory.

    Every model is measured with every number of threads, in an order shuffled by the seed, each for at least --seconds
    and 100 iterations after a warm-up. The report has percentiles, memory, versions, and the board with its
    temperature, clock, governor and throttle flags before and after.

    \b
    Examples:
      edgekit bench default
      edgekit bench float.onnx int8.onnx --threads 1,2,4 -o report.json
      edgekit bench mine.onnx --source holiday.mp4 --detector haar --seconds 30
      edgekit bench mine.onnx --no-pipeline --batch 8 --json
    """
    from edgekit.boards import read_board
    from edgekit.cli.progress import progress_bar
    from edgekit.device.benchmark import KINDS, load_clip, measure, plan_cells
    from edgekit.device.benchmark_report import describe_model, report_document, report_view
    from edgekit.device.session import available_processors
    from edgekit.device.sources import open_source
    from edgekit.errors import InputError
    from edgekit.files import atomic_path
    from edgekit.modelfiles import ONNX_SUFFIX, resolve_model

    if math.isnan(seconds):
        raise InputError("--seconds is no number: give one from 0.01 to 3600")
    if output is not None and output.suffix != ".json":
        raise InputError(f"report '{output}' must end in .json")
    named = [(name, resolve_model(name, (ONNX_SUFFIX,))) for name in models]
    counts = threads or tuple(sorted({1, available_processors()}))
    cells = plan_cells(named, counts, KINDS if pipeline else KINDS[:-1], seed)
    described = [describe_model(name, path) for name, path in named]
    # Opened before the first measurement: a report that cannot be written is not found out after an hour.
    with atomic_path(output) if output is not None else nullcontext() as report:
        clip, make_detector = None, None
        if pipeline:
            make_detector = _detector_maker(out, detector_name, detector_model, detector_size)
            clip = load_clip(open_source(source_uri, out.warn), _CLIP_LIMIT_MIB)
            rest = "" if clip.complete else f", as many as {_CLIP_LIMIT_MIB} MiB hold"
            out.say(f"{clip.name}: {len(clip.frames)} frames decoded into memory and played over and over{rest}")
        measurements = []
        bar = progress_bar(out)
        bar.live.auto_refresh = False  # a thread that draws takes time from what is measured
        with bar as progress:
            task = progress.add_task("cells", total=len(cells))
            for index, cell in enumerate(cells):
                progress.update(task, description=f"{cell.kind}, {cell.model}, {cell.intra_op_threads} threads")
                show = partial(_show, progress, task, index)
                measurements.append(
                    measure(cell, seconds=seconds, batch=batch, clip=clip, make_detector=make_detector, progress=show)
                )
        board = read_board()
        settings = {"seconds": seconds, "batch": batch, "intra_op_threads": list(counts), "seed": seed}
        if pipeline:
            settings["detector_size_px"] = detector_size
        document = report_document(
            board=board, models=described, measurements=measurements, clip=clip, settings=settings
        )
        if report is not None:
            report.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
    out.console.print(report_view(board, measurements))
    if output is not None:
        out.say(f"report: {output}")
    out.result(document)


def _show(progress: Progress, task: TaskID, cells_done: int, share: float) -> None:
    progress.update(task, completed=cells_done + share, refresh=True)


def _detector_maker(out: Output, name: str, model_path: Path | None, size_px: int) -> Callable[[int], Detector]:
    from edgekit.device.detect import create_detector

    # Made once ahead: what it falls back to is then settled, and said once.
    settled = create_detector(name, model_path=model_path, input_size_px=size_px, notify=out.warn).name

    def make(intra_op_threads: int) -> Detector:
        return create_detector(
            settled,
            model_path=model_path if settled == "yunet" else None,
            input_size_px=size_px,
            intra_op_threads=intra_op_threads,
            notify=out.warn,
        )

    return make
