"""`edgekit bench`: how fast models are on this machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.boards.hosts import HostChoice, host_options, no_install_option
from edgekit.cli.options import MAX_THREADS, SEED, NumberRange, detector_options
from edgekit.cli.output import Output, common_options
from edgekit.cli.power_file import open_meter
from edgekit.cli.render.reports import ReportFiles, report_options

if TYPE_CHECKING:
    from edgekit.device.benchmark.cells import Cell
    from edgekit.device.benchmark.worker import DetectorChoice

_CLIP_LIMIT_MIB = 160
_MAX_NOTES = 30


def _thread_counts(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    parts = value.split(",")
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= MAX_THREADS for part in parts):
        raise click.BadParameter(f"'{value}' is no list of numbers from 1 to {MAX_THREADS}, such as 1,2,4", ctx, param)
    return tuple(int(part) for part in parts)


def _notes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    notes = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not (key and separator and value.isprintable() and len(key) <= 100 and len(text) <= 200):
            raise click.BadParameter(f"'{value}' is not KEY=VALUE, such as fan=none", ctx, param)
        notes[key] = text
    if len(notes) > _MAX_NOTES:
        raise click.BadParameter(f"{len(notes)} notes are more than {_MAX_NOTES}", ctx, param)
    return notes


@click.command("bench", short_help="Measure how fast models are on this machine.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--threads", callback=_thread_counts, metavar="1,2,4", help="Thread counts; default: 1 and all processors."
)
@click.option(
    "--source", "source_uri", default="demo", show_default=True, metavar="URI", help="Frames of the pipeline."
)
@click.option("--seconds", type=NumberRange(0.01, 3600), default=10, show_default=True, help="Least time a cell.")
@click.option(
    "--processes", type=click.IntRange(1, 100), default=3, show_default=True, help="Processes that share a cell's time."
)
@click.option("--batch", type=click.IntRange(1, 1024), default=1, show_default=True, help="Faces the classifier gets.")
@click.option("--pipeline/--no-pipeline", default=True, show_default=True, help="Measure the whole pipeline too.")
@click.option(
    "--camera",
    is_flag=False,
    flag_value="auto",
    metavar="[CAMERA]",
    help="Measure this machine's camera too: auto (if no value follows), picamera2, usb, /dev/videoN or N.",
)
@detector_options
@click.option("--seed", type=SEED, default=0, show_default=True, help="Decides the order of the cells.")
@click.option(
    "--cool-down",
    type=NumberRange(0, 3600),
    default=20,
    show_default=True,
    metavar="SECONDS",
    help="Longest pause between processes, in which the board cools.",
)
@click.option("--allow-throttled", is_flag=True, help="Keep what a throttled board measured, marked; do not repeat it.")
@click.option(
    "--note",
    "notes",
    multiple=True,
    callback=_notes,
    metavar="KEY=VALUE",
    help="Say what no program sees, such as fan=none.",
)
@click.option(
    "--power-file", metavar="FILE|-", help="A power meter's readings, lines of `seconds watts`; -: stdin, as they come."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the report as JSON.")
@report_options
@host_options
@no_install_option
@common_options
def command(
    out: Output,
    chosen: HostChoice,
    models: tuple[str, ...],
    threads: tuple[int, ...] | None,
    source_uri: str,
    seconds: float,
    processes: int,
    batch: int,
    pipeline: bool,
    camera: str | None,
    detector_name: str,
    detector_model: Path | None,
    detector_size: int,
    seed: int,
    cool_down: float,
    allow_throttled: bool,
    notes: dict[str, str],
    power_file: str | None,
    output: Path | None,
    html_path: Path | None,
    markdown_path: Path | None,
    csv_path: Path | None,
) -> None:
    """Measure models: the net alone, with preparing faces, and the whole pipeline over frames held in memory.

    MODEL is an .onnx or .ncnn file, or `default`; each runs on its own engine.

    Every model is measured with every number of threads for at least --seconds and 100 iterations, shared by several
    processes, after a warm-up that lasts until the times are stable. The processes run in rounds, each in an order
    shuffled by the seed. The report has percentiles, the median's interval, memory, versions, and the board with its
    temperature, clock, governor and throttle flags. A process during which the board throttled or its clock changed is
    measured again after a pause. Ctrl-C keeps what is finished.

    With --host or --inventory all this happens on boards over SSH, which are prepared for it and need no internet.

    \b
    Examples:
      edgekit bench default
      edgekit bench float.onnx int8.onnx float.ncnn --threads 1,2,4 -o report.json --html report.html
      edgekit bench mine.onnx --source holiday.mp4 --detector haar --seconds 30
      edgekit bench mine.onnx --camera
      edgekit bench mine.onnx --note fan=none --note supply=5.1V --power-file meter.txt
      edgekit bench mine.onnx --no-pipeline --batch 8 --json
      edgekit bench mine.onnx --host pi@raspberrypi.local --html report.html
      edgekit bench mine.onnx --inventory boards.toml -o boards.json
    """
    from edgekit.report.schema import check_fits

    files = ReportFiles(output, html_path, markdown_path, csv_path)
    files.check()
    check_fits(names=(*models, source_uri), boards=max(1, len(chosen.hosts)))
    if chosen.hosts:
        from edgekit.cli.boards.bench import bench_on_hosts

        bench_on_hosts(out, chosen, models, files)
        return

    import os
    import tempfile
    import time
    from dataclasses import replace

    from edgekit.boards import read_board
    from edgekit.device.benchmark.cells import FRAME_KINDS, KINDS, plan_cells, plan_rounds
    from edgekit.device.benchmark.document import describe_model, report_document
    from edgekit.device.benchmark.frame_cache import load_frame_cache, save_frame_cache
    from edgekit.device.benchmark.measure import MIN_ITERATIONS
    from edgekit.device.benchmark.rounds import Plan
    from edgekit.device.benchmark.worker import DetectorChoice, Job
    from edgekit.device.engines.session import available_processors
    from edgekit.device.sources import open_source
    from edgekit.model_store import DEVICE_SUFFIXES, resolve_model
    from edgekit.remote.file_names import reported_name
    from edgekit.report.terminal import report_view

    named = [(reported_name(name), resolve_model(name, DEVICE_SUFFIXES).absolute()) for name in models]
    counts = threads or tuple(sorted({1, available_processors()}))
    left_out = {"pipeline": not pipeline, "camera": camera is None}
    cells = plan_cells(named, counts, [kind for kind in KINDS if not left_out.get(kind)])
    described = [describe_model(name, path) for name, path in named]
    board = read_board()
    with ExitStack() as stack:
        stack.enter_context(_hang_up_as_terminate())
        write = files.open(stack)
        meter = open_meter(power_file)
        clip, clip_path, detector = None, None, None
        if pipeline or camera is not None:
            detector = _settled_detector(out, DetectorChoice(detector_name, detector_model, detector_size))
        if pipeline:
            clip = load_frame_cache(open_source(source_uri, out.warn), _CLIP_LIMIT_MIB)
            clip = replace(clip, name=reported_name(clip.name))
            rest = "" if clip.complete else f", as many as {_CLIP_LIMIT_MIB} MiB hold"
            out.say(f"{clip.name}: {len(clip.frames)} frames decoded into memory and played over and over{rest}")
            # Without a name in any folder: however this process ends, the memory is given back.
            frames = stack.enter_context(tempfile.TemporaryFile(dir=_memory_folder()))
            save_frame_cache(clip, frames)
            clip_path = Path(f"/proc/{os.getpid()}/fd/{frames.fileno()}")

        def job(cell: Cell) -> Job:
            return Job(
                **{name: getattr(cell, name) for name in ("model", "path", "intra_op_threads", "kind")},
                seconds=seconds / processes,
                min_iterations=math.ceil(MIN_ITERATIONS / processes),
                batch=batch,
                clip_path=clip_path if cell.kind == "pipeline" else None,
                detector=detector if cell.kind in FRAME_KINDS else None,
                camera=camera if cell.kind == "camera" else None,
            )

        plan = Plan(plan_rounds(cells, processes, seed), job, cool_down, allow_throttled)
        started_s, started_unix_s = time.monotonic(), time.time()
        measured, complete = _measured(out, plan, board.processors)
        if not measured:
            raise KeyboardInterrupt
        document = report_document(
            board=board,
            models=described,
            measured=measured,
            started_s=started_s,
            complete=complete,
            clip=clip,
            settings={
                "seconds": seconds,
                "min_iterations": MIN_ITERATIONS,
                "processes": processes,
                "batch": batch,
                "intra_op_threads": list(counts),
                "seed": seed,
                "cool_down_s": cool_down,
                "allow_throttled": allow_throttled,
                **({"detector_size_px": detector_size} if detector else {}),
                **({"camera": camera} if camera is not None else {}),
            },
            notes=notes,
            power=meter(started_unix_s, out),
        )
        write(document)
    out.console.print(report_view(document))
    for path in (output, html_path, markdown_path, csv_path):
        if path is not None:
            out.say(f"report: {path}")
    out.result(document)
    if not complete:
        raise KeyboardInterrupt


def _measured(out: Output, plan: Any, processors: int | None) -> Any:
    from edgekit.cli.progress import progress_bar
    from edgekit.device.benchmark.rounds import measure_all

    total = len(plan.order)
    done = 0
    bar = progress_bar(out)
    bar.live.auto_refresh = False  # a thread that draws takes time from what is measured

    with bar as progress:
        task = progress.add_task("processes", total=total)

        def show(cell: Cell, share: float) -> None:
            text = f"{cell.kind}, {cell.model}, {cell.intra_op_threads} threads"
            progress.update(task, description=text, completed=share * total, refresh=True)

        def tell(cell: Cell, message: dict[str, Any]) -> None:
            nonlocal done
            done += 1
            if progress.disable:
                # No terminal to draw on: a line a process, for logs and for whoever started this over a network.
                process = message["process"]
                marks = f" ({', '.join(process['marks'])})" if process["marks"] else ""
                out.say(
                    f"{done}/{total} {cell.kind}, {cell.model}, {cell.intra_op_threads} threads: "
                    f"{process['latency']['p50_ms']:.3f} ms{marks}"
                )

        return measure_all(plan, processors=processors, progress=show, finished=tell)


def _settled_detector(out: Output, chosen: DetectorChoice) -> DetectorChoice:
    """Return the detector that there is: what it falls back to is then settled, and said once."""
    from dataclasses import replace

    from edgekit.device.detection import create_detector

    made = create_detector(
        chosen.name, model_path=chosen.model_path, input_size_px=chosen.input_size_px, notify=out.warn
    )
    model_path = chosen.model_path.absolute() if chosen.model_path and made.name == "yunet" else None
    return replace(chosen, name=made.name, model_path=model_path)


@contextmanager
def _hang_up_as_terminate() -> Iterator[None]:
    """Let the end of a terminal or of an SSH connection end the benchmark as SIGTERM does, cleaning up."""
    import signal

    before = signal.getsignal(signal.SIGHUP)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _memory_folder() -> str | None:
    """Return a folder that lies in memory, where there is one with room."""
    import shutil

    folder = Path("/dev/shm")
    try:
        has_room = shutil.disk_usage(folder).free > 2 * _CLIP_LIMIT_MIB << 20
    except OSError:
        return None
    return str(folder) if has_room else None
