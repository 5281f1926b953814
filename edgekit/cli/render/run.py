"""What `edgekit run` prints: the progress bar for recordings, and the summary as text and as the document of --json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from edgekit.cli.output import Output
from edgekit.cli.progress import is_progress_shown, progress_bar, updater
from edgekit.cli.signals import StopSignals
from edgekit.options import as_document

if TYPE_CHECKING:
    from edgekit.device.accounting import Account
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame
    from edgekit.device.health.runtime_monitor import RuntimeMonitor
    from edgekit.device.pipeline.stream import Stream
    from edgekit.device.pipeline.summary import Tally
    from edgekit.device.sink import Sink


def progress_sinks(out: Output, frame_count: int | None, max_frames: int | None) -> list[Sink]:
    """Return a list with the sink of the progress bar, empty if it would show nothing."""
    if frame_count is None or not is_progress_shown():
        return []
    return [_Progress(out, min(frame_count, max_frames or frame_count))]


class _Progress:
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


def print_summary(
    text: Output,
    stream: Stream,
    tally: Tally,
    monitor: RuntimeMonitor,
    accounts: Sequence[Account],
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


def summary(
    stream: Stream,
    tally: Tally,
    monitor: RuntimeMonitor,
    signals: StopSignals,
    finished: bool,
    accounts: Sequence[Account],
) -> dict[str, Any]:
    """Return the document of --json."""
    from msgspec.structs import asdict

    from edgekit.device.engines.session import versions
    from edgekit.device.pipeline.summary import summary_document

    classifier = stream.classifier
    return {
        "ended": _ended(signals, finished),
        "source": stream.source.name,
        "skipped": stream.source.skipped,
        "damaged": getattr(stream.source, "damaged", 0),
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
    if signals.interrupted:
        return "interrupted"
    if signals.terminated:
        return "stopped"
    return "finished" if finished else "failed"
