"""A run: a stream with its outputs, its health and its signals, from the start to the summary."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import click

from edgekit.cli.output import Output, is_progress_shown, progress_bar, updater
from edgekit.cli.signals import StopSignals
from edgekit.device.pipeline import StreamOptions
from edgekit.device.sink import STDOUT, SinkOptions
from edgekit.device.sinks.clips import ClipOptions
from edgekit.device.sinks.jsonl import JsonLinesOptions
from edgekit.device.sinks.outputs import (
    OutputOptions,
    check_outputs,
    lock_outputs,
    open_sinks,
    option_of,
    results_folder,
    run_context,
)
from edgekit.device.sinks.record import RecordOptions
from edgekit.device.sources.settings import CameraSettings
from edgekit.options import as_document

if TYPE_CHECKING:
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame
    from edgekit.device.health import RuntimeMonitor
    from edgekit.device.pipeline.stream import Stream
    from edgekit.device.pipeline.summary import Tally
    from edgekit.device.sink import Sink
    from edgekit.device.sinks.context import Account
    from edgekit.device.teach.taught_file import TaughtFile

# What --json prints if the run is stopped before it has begun.
_STOPPED = {"ended": "stopped", "frames": 0}


def run_stream(
    out: Output,
    stream_options: StreamOptions,
    camera: CameraSettings,
    outputs: tuple[SinkOptions, ...],
    taught: TaughtFile | None = None,
) -> None:
    """Run until the source ends or a signal arrives, and print the summary.

    With `taught`, the run begins with the model that this file states.
    """
    prints_results = option_of(outputs, JsonLinesOptions).jsonl == STDOUT
    if out.as_json and prints_results:
        raise click.UsageError("--json and --jsonl - both write to stdout: give --jsonl a file, or leave --json out")
    check_outputs(outputs, stream_options.source)
    with StopSignals(partial(out.result, _STOPPED)) as signals, ExitStack() as opened:
        opened.enter_context(lock_outputs(outputs))
        # Imports take seconds on a Pi, and signals are handled during them too.
        from edgekit.device.health import RuntimeMonitor
        from edgekit.device.pipeline.stream import Stream
        from edgekit.device.pipeline.summary import Tally
        from edgekit.device.sinks.context import OutputContext

        # With `--jsonl -`, stdout has the results, and text goes to stderr as with --json.
        text = replace(out, as_json=True) if prints_results else out
        context = OutputContext(rules=option_of(outputs, OutputOptions), notify=out.warn, say=text.say)
        # The video that a camera encodes goes to the recorder of --record. With --event-clips, it first goes to a tap,
        # which passes it on to the recorder.
        recorder = option_of(outputs, RecordOptions).recorder(context)
        has_camera = stream_options.camera is not None
        tap = option_of(outputs, ClipOptions).tap(context.rules, recorder) if has_camera else None
        camera = replace(camera, recording=tap or recorder)
        if taught is not None:
            stream_options = replace(stream_options, model=taught.current)
        stream = opened.enter_context(Stream(replace(stream_options, camera_settings=camera, notify=out.warn)))
        # The localizer as a function, because a new model replaces it during the run.
        monitor = RuntimeMonitor(results_folder(outputs), lambda: stream.localizer, out.warn, live=stream.source.live)
        opened.enter_context(monitor)
        sinks = open_sinks(outputs, run_context(context, stream, monitor.health, recorder, tap, taught))
        tally = Tally()
        sinks.append(tally)
        if not prints_results:
            sinks += _progress_sinks(out, stream.source.frame_count, stream_options.max_frames)
        sinks += monitor.sinks(stream.controls)
        signals.on_stop(stream.stop)
        gc.freeze()  # garbage collections during the run do not examine the objects of the start
        finished = False
        try:
            stream.run(sinks, annotate=monitor.annotated)
            finished = True
        finally:
            # A run that fails late (a lost camera, a full disk) has results too.
            if stream.meter.frames or finished or signals.received:
                _print_summary(text, stream, tally, monitor, context.accounts)
                out.result(_summary(stream, tally, monitor, context.accounts, _ended(signals, finished)))
    signals.raise_interrupt()


def _progress_sinks(out: Output, frame_count: int | None, max_frames: int | None) -> list[Sink]:
    """Return a list with the sink of the progress bar, empty if it would show nothing."""
    if frame_count is None or not is_progress_shown():
        return []
    return [_Progress(out, min(frame_count, max_frames or frame_count))]


class _Progress:
    """Sink that moves a progress bar by one per frame."""

    def __init__(self, out: Output, total: int) -> None:
        self._bar = progress_bar(out)
        self._update = updater(self._bar, "frames")
        self._total = total
        self._done = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def write(self, frame: Frame, result: FrameResult) -> None:
        del frame, result
        self._done += 1
        self._update(self._done, self._total)


def _print_summary(
    text: Output, stream: Stream, tally: Tally, monitor: RuntimeMonitor, accounts: Sequence[Account]
) -> None:
    """Print frame rate, latencies, faces, counts of the outputs, threads and health.

    A warning names the outputs that have lost something.
    """
    from edgekit.device.pipeline.summary import count_lines, rate_line, summary_table
    from edgekit.report.view import thread_text

    text.say(f"source {stream.source.name}, detector {stream.localizer.detector_name}, model {stream.options.model}")
    text.say(rate_line(stream.meter))
    text.show(summary_table(stream.meter))
    text.say(count_lines(stream.meter, tally))
    controls = stream.controls
    if controls.paused_s:
        text.say(f"paused: {controls.paused_s:.1f} s")
    if controls.commands:
        text.say("commands: " + ", ".join(f"{count} {name}" for name, count in controls.commands.most_common()))
    if accounts:
        text.say("outputs: " + "; ".join(account.describe() for account in accounts))
    text.say(thread_text(stream.threads))
    text.say(f"health: {monitor.describe() or 'unknown'}")
    losses = "; ".join(account.describe() for account in accounts if account.lost)
    if losses:
        text.warn(f"not everything was written: {losses}")


def _summary(
    stream: Stream, tally: Tally, monitor: RuntimeMonitor, accounts: Sequence[Account], ended: str
) -> dict[str, Any]:
    """Return the document of --json: how the run ended, its settings, times, counts, outputs and health."""
    from msgspec.structs import asdict

    from edgekit.device.engines.session import versions
    from edgekit.device.pipeline.summary import summary_document

    classifier = stream.classifier
    return {
        "ended": ended,
        "source": stream.source.name,
        "skipped": stream.source.skipped,
        "damaged": getattr(stream.source, "damaged", 0),  # only a source of files counts them
        "model": {
            "path": str(classifier.path),
            "architecture": classifier.contract.architecture,
            "precision": classifier.contract.precision,
            "subject": classifier.contract.subject,
        },
        "detector": stream.localizer.detector_name,
        "settings": {
            **as_document(stream.options),
            **as_document(stream.options.camera_settings),
            "detector_size_px": stream.localizer.input_size_px,
            "threads": asdict(stream.threads),
            "mirror": classifier.mirror,
            "uncertain_below": classifier.contract.uncertain_below,
        },
        "versions": versions(),
        **summary_document(stream.meter, tally),
        "paused_s": round(stream.controls.paused_s, 3),
        "commands": dict(stream.controls.commands),
        "outputs": {account.name: account.as_document() for account in accounts},
        "health": monitor.as_document(),
    }


def _ended(signals: StopSignals, finished: bool) -> str:
    """Return how the run ended, for the field `ended` of the summary."""
    if signals.interrupted:  # Ctrl-C
        return "interrupted"
    if signals.terminated:  # SIGTERM or SIGHUP
        return "stopped"
    return "finished" if finished else "failed"
