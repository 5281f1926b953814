"""Events: derived from the results, stored with images, and passed to the outlets of other sinks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.device.sink import Sink, SinkOptions
from edgekit.errors import InputError
from edgekit.options import option, parse_seconds

if TYPE_CHECKING:
    from edgekit.device.detections import FrameResult
    from edgekit.device.events import EventRules
    from edgekit.device.frame import Frame
    from edgekit.device.sinks.context import RunContext, SinkLinks
    from edgekit.device.sinks.snapshots import SnapshotWriter

_RECEIVERS = ("--mqtt", "--webhook", "--web", "--event-snapshots")


@dataclass(frozen=True, kw_only=True)
class EventOptions(SinkOptions):
    """Options of events."""

    title = "Events"

    event_snapshots: Path | None = option(
        "--event-snapshots",
        "Save the frame of each event (a face or image has a new label), and of each MQTT command snapshot, as JPEG.",
        metavar="DIR",
        main=True,
    )
    send_snapshots: bool = option(
        "--send-snapshots",
        "Send the images of --event-snapshots to MQTT, where Home Assistant shows the newest, and to the webhook.",
        default=False,
        needs="--event-snapshots",
    )
    event_hold: float = option(
        "--event-hold",
        "Time that a label must persist to become an event, such as 2s or 1min.",
        default=1.0,
        metavar="TIME",
        parse=parse_seconds,
        default_text="1s",
        needs=_RECEIVERS,
    )
    event_cooldown: float = option(
        "--event-cooldown",
        "Shortest time between two events of one face, such as 30s.",
        default=0.0,
        metavar="TIME",
        parse=parse_seconds,
        default_text="0s",
        needs=_RECEIVERS,
    )
    event_label: tuple[str, ...] = option(
        "--event-label",
        "Send events of this label only. Repeatable.",
        default=(),
        metavar="LABEL",
        needs=_RECEIVERS,
    )

    def folders(self) -> list[Path]:
        """Return the folder of the images, whose oldest ones are deleted."""
        return [] if self.event_snapshots is None else [self.event_snapshots]

    def open(self, run: RunContext) -> Sink | None:
        """Return the sink, which posts to the outlets that other sinks add to the links of the run.

        Raises:
            InputError: A label is not one of the model, or the folder is a file.
        """
        from edgekit.device.events import EventRules
        from edgekit.device.frame import presentation_time_s

        labels = run.contract.labels
        for label in self.event_label:
            if label not in labels:
                raise InputError(
                    f"--event-label '{label}' is not a label of the model: choose from {', '.join(labels)}"
                )
        snapshots: SnapshotWriter | None = None
        if self.event_snapshots is not None:
            from edgekit.device.sinks.snapshots import SnapshotWriter

            run.links.snapshots = snapshots = SnapshotWriter(self.event_snapshots, run)
            run.links.sends_snapshots = self.send_snapshots
        rules = EventRules(self.event_hold, self.event_cooldown, labels=frozenset(self.event_label))
        return EventSink(rules, run.links, presentation_time_s(run.source), snapshots, run.monitor.is_camera_usable)


class EventSink(Sink):
    """Applies event rules to every frame and posts the events to all outlets, in order, with snapshots if wanted."""

    def __init__(
        self,
        rules: EventRules,
        links: SinkLinks,
        time_s: Callable[[Frame], float],
        snapshots: SnapshotWriter | None,
        is_camera_usable: Callable[[], bool] = lambda: True,
    ) -> None:
        from edgekit.device.events import EventDetector

        self._detector = EventDetector(rules)
        self._links = links
        self._time_s = time_s
        self._snapshots = snapshots
        self._is_camera_usable = is_camera_usable

    def __exit__(self, *exception: object) -> None:
        if self._snapshots is not None:
            self._snapshots.__exit__(*exception)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Post the frame's events; none while the camera is frozen, dark or covered."""
        if self._snapshots is not None:
            self._snapshots.write(frame, result)
        elif not self._links.outlets:
            return
        if not self._is_camera_usable():
            return
        for event in self._detector.update(result, self._time_s(frame)):
            if self._snapshots is not None:
                event = self._snapshots.take(event, frame, result)
            for outlet in self._links.outlets:
                outlet(event)
