"""A run: a stream with its outputs, its health and its signals, from the start to the summary."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from edgekit.cli.output import Output
from edgekit.cli.render.run import print_summary, progress_sinks, summary
from edgekit.cli.signals import StopSignals
from edgekit.device.pipeline.stream_options import StreamOptions
from edgekit.device.sink import STDOUT, SinkOptions
from edgekit.device.sinks.jsonl import JsonLinesOptions
from edgekit.device.sinks.output_options import OutputOptions
from edgekit.device.sinks.outputs import (
    check_outputs,
    lock_outputs,
    open_recorder,
    open_sinks,
    option_of,
    results_folder,
    run_context,
)
from edgekit.device.sources.settings import CameraSettings

if TYPE_CHECKING:
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
    is_on_stdout = option_of(outputs, JsonLinesOptions).jsonl == STDOUT
    if out.as_json and is_on_stdout:
        raise click.UsageError("--json and --jsonl - both write to stdout: give --jsonl a file, or leave --json out")
    check_outputs(outputs, stream_options.source)
    with StopSignals(partial(out.result, _STOPPED)) as signals, ExitStack() as opened:
        opened.enter_context(lock_outputs(outputs))
        # Imports take seconds on a Pi, and signals are handled during them too.
        from edgekit.device.health.runtime_monitor import RuntimeMonitor
        from edgekit.device.pipeline.stream import Stream
        from edgekit.device.pipeline.summary import Tally
        from edgekit.device.sinks.context import OutputContext

        context = OutputContext(rules=option_of(outputs, OutputOptions), notify=out.warn)
        recorder = open_recorder(outputs, context)
        if taught is not None:
            stream_options = replace(stream_options, model=taught.current)
        options = replace(stream_options, camera_settings=replace(camera, recording=recorder), notify=out.warn)
        stream = opened.enter_context(Stream(options))
        monitor = RuntimeMonitor(results_folder(outputs), lambda: stream.localizer, out.warn, live=stream.source.live)
        opened.enter_context(monitor)
        # With --jsonl - stdout has the results, and text goes to stderr.
        text = replace(out, as_json=True) if is_on_stdout else out
        tally, finished = Tally(), False
        sinks = [
            *open_sinks(outputs, run_context(context, stream, monitor.health, recorder, text.say, taught)),
            tally,
            *([] if is_on_stdout else progress_sinks(out, stream.source.frame_count, options.max_frames)),
            *monitor.sinks(stream.controls),
        ]
        signals.on_stop(stream.stop)
        gc.freeze()  # garbage collections during the run do not examine the objects of the start
        try:
            stream.run(sinks, annotate=monitor.annotated)
            finished = True
        finally:
            # A run that fails late (a lost camera, a full disk) has results too.
            if stream.meter.frames or finished or signals.received:
                print_summary(text, stream, tally, monitor, context.accounts)
                out.result(summary(stream, tally, monitor, signals, finished, context.accounts))
    signals.raise_interrupt()
