"""Events: derived from the results, stored with images and clips, and passed to the outlets of other sinks."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.device.sink import Sink, SinkOptions
from edgekit.options import option, parse_seconds

if TYPE_CHECKING:
    from edgekit.device.detections import Face, FrameResult
    from edgekit.device.frame import Frame
    from edgekit.device.sinks.context import RunContext


_RECEIVERS = ("--mqtt", "--webhook", "--web", "--event-snapshots", "--event-clips")
_HOLDING = (*_RECEIVERS, "--gpio")


@dataclass(frozen=True, kw_only=True)
class EventOptions(SinkOptions):
    """Options of events."""

    title = "Events"

    event_snapshots: Path | None = option(
        "--event-snapshots",
        "Save the frame of each event, and of each MQTT command snapshot, as JPEG.",
        metavar="DIR",
        main=True,
    )
    send_snapshots: bool = option(
        "--send-snapshots",
        "Also send the images of --event-snapshots to MQTT and to the webhook. Home Assistant shows the newest.",
        default=False,
        needs="--event-snapshots",
    )
    event_hold: float = option(
        "--event-hold",
        "Time for which a new label must last before it becomes an event or switches a pin, such as 2s or 1min.",
        default=1.0,
        metavar="TIME",
        parse=parse_seconds,
        default_text="1s",
        needs=_HOLDING,
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
        """Return the sink, which passes events to other sinks (`run.links.outlets`), and offer its snapshots to them.

        Raises:
            InputError: A label is not one of the model, or the folder is a file.
        """
        run.check_labels("--event-label", self.event_label)
        # For the pins, which use the same time.
        run.links.hold_s = self.event_hold
        if self.event_snapshots is not None:
            from edgekit.device.sinks.snapshots import SnapshotWriter

            run.links.snapshots = SnapshotWriter(self.event_snapshots, run)
            run.links.sends_snapshots = self.send_snapshots
        return EventSink(self, run)


class EventSink(Sink):
    """Posts the events of every frame to all outlets, in order, with snapshots if wanted."""

    def __init__(self, options: EventOptions, run: RunContext) -> None:
        """Use the outlets, snapshots and clips that the sinks of the run link to each other."""
        from edgekit.device.frame import presentation_time_s

        self._detector = EventDetector(options)
        self._links = run.links  # kept, because sinks that are opened later add outlets
        self._snapshots = run.links.snapshots
        self._time_s = presentation_time_s(run.source)
        self._is_camera_usable = run.monitor.is_camera_usable  # a method, called for each frame

    def __exit__(self, *exception: object) -> None:
        if self._snapshots is not None:
            self._snapshots.__exit__(*exception)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Post the frame's events; none while the camera is frozen, dark or covered."""
        if self._snapshots is not None:
            self._snapshots.write(frame, result)  # in every frame: it saves requested images, too
        # Without receivers no events are detected, which would only cost time.
        has_receivers = self._snapshots is not None or self._links.clips is not None or bool(self._links.outlets)
        if not has_receivers or not self._is_camera_usable():
            return
        for event in self._detector.update(result, self._time_s(frame)):
            if self._snapshots is not None:
                event = self._snapshots.take(event, frame, result)
            if self._links.clips is not None:
                event = self._links.clips.take(event, frame, result)
            for outlet in self._links.outlets:
                outlet(event)


# After a gap longer than this, the hold time of a face's label starts again. If the frames are farther apart, a gap is
# longer than this number of periods.
_MAX_GAP_S = 1.0
_MAX_GAP_PERIODS = 2.5


@dataclass(frozen=True)
class Event:
    """A change of the label of one track.

    Attributes:
        event_id: Unique across runs; identifies an event that is received twice.
        track_id: Number of the track, for whole images from 1 in the order of the zones; None if faces are not tracked.
        label: The new label.
        previous: Label of the track's latest event in this zone, None for the first.
        probability: Probability of `label` in the frame that triggered the event.
        held_s: How long the label had been held, in seconds.
        sequence: Sequence number of the triggering frame.
        monotonic_s: Capture time of the triggering frame, monotonic.
        wall_s: Capture time of the triggering frame, Unix time.
        snapshot: Name of the frame's image in the folder of the snapshots; None without one.
        clip: Name of the video in the folder of the clips, which still grows; None without one.
        clock_synchronised: False if `wall_s` may be wrong, see `FrameResult`.
        zone: Name of the zone; None without zones.
    """

    event_id: str
    track_id: int | None
    label: str
    previous: str | None
    probability: float
    held_s: float
    sequence: int
    monotonic_s: float
    wall_s: float
    snapshot: str | None = None
    clip: str | None = None
    clock_synchronised: bool = True
    zone: str | None = None

    def as_document(self) -> dict[str, Any]:
        """Return the JSON document of the event; `event_type` is the field that Home Assistant expects."""
        document: dict[str, Any] = {
            "event_id": self.event_id,
            "event_type": self.label,
            "track_id": self.track_id,
            "label": self.label,
            "previous": self.previous,
            "probability": round(self.probability, 6),
            "held_s": round(self.held_s, 3),
            "sequence": self.sequence,
            "monotonic_s": round(self.monotonic_s, 6),
            "wall_s": round(self.wall_s, 6),
        }
        if not self.clock_synchronised:
            document["clock_synchronised"] = False
        others = {"zone": self.zone, "snapshot": self.snapshot, "clip": self.clip}
        return document | {name: value for name, value in others.items() if value is not None}


@dataclass
class _Label:
    """The label that a face has held, and its latest event; times are presentation times.

    Attributes:
        label: The label; frames in which the face is uncertain do not change it.
        since_s: Since when it is held.
        labelled_s: The latest frame in which the face has the label.
        seen_s: The latest frame with the face.
        event_label: Label of the latest event.
        event_s: Time of the latest event.
        has_left: Whether another label, of which no events are wanted, was held since then.
    """

    label: str
    since_s: float
    labelled_s: float
    seen_s: float
    event_label: str | None = None
    event_s: float = float("-inf")
    has_left: bool = False


class EventDetector:
    """Derives events from the results of successive frames: labels that differ from that of the track's latest event.

    With zones, that is the latest event in the same zone. Frames in which the face is uncertain are ignored.
    """

    def __init__(self, options: EventOptions) -> None:
        """Use the labels, hold time and cooldown of `options`."""
        self._options = options
        # The labels of faces without a track, by their index in the frame. Tracks have theirs in `Track.states`.
        self._untracked: dict[object, _Label] = {}
        self._run_id = os.urandom(4).hex()
        self._numbers = itertools.count()
        # The time of the latest frame, and the times between the latest three frames, see `_max_gap_s`.
        self._latest_s: float | None = None
        self._periods_s: tuple[float, float] = (0.0, 0.0)

    def update(self, result: FrameResult, at_s: float | None = None) -> list[Event]:
        """Return the events of this frame, in the order of its faces.

        Args:
            result: The result of the frame.
            at_s: Presentation time of the frame in seconds; default: its monotonic capture time.
        """
        now_s = result.monotonic_s if at_s is None else at_s
        tracks = result.faces.tracks
        events = []
        key: tuple[object, str | None]  # with the zone, because a face has a label in each zone
        for index, face in enumerate(result.faces):
            if tracks is None:
                labels, key = self._untracked, (index, face.zone)
            else:
                # With `self`, because all consumers of a track keep their values in `states`.
                labels, key = tracks[index].states, (self, face.zone)
            label = self._updated(labels.get(key), face, now_s)
            if label is None:
                continue
            labels[key] = label
            if not face.uncertain and self._is_due(label, now_s):
                events.append(self._event(label, face, result, now_s))
                label.event_label, label.event_s, label.has_left = label.label, now_s, False
        if self._latest_s is not None:
            period_s = now_s - self._latest_s
            # The two latest periods; at the second frame there is only one.
            self._periods_s = (self._periods_s[1] or period_s, period_s)
        self._latest_s = now_s
        return events

    @property
    def _max_gap_s(self) -> float:
        """Longest time without a face after which its label continues."""
        # The shorter of two periods, so that a single outage does not make this time longer.
        return max(_MAX_GAP_S, _MAX_GAP_PERIODS * min(self._periods_s))

    def _updated(self, last: _Label | None, face: Face, now_s: float) -> _Label | None:
        """Return the label that a face holds in this frame.

        `last` is the label that it held before, None for a new face. It is forgotten after a gap: the face was missing
        for too long. An uncertain face holds the label that it had before, or none.
        """
        # During the cooldown of its latest event, a face that was missing is not a new one.
        forgotten_after_s = max(self._max_gap_s, self._options.event_cooldown)
        # The gap ends at the frame before (`_latest_s`), not now: in an outage of the source no face is missing.
        if last is not None and self._latest_s is not None and self._latest_s - last.seen_s > forgotten_after_s:
            last = None
        if last is not None:
            last.seen_s = now_s
        if face.uncertain:
            return last
        if last is None:
            return _Label(face.label, since_s=now_s, labelled_s=now_s, seen_s=now_s)
        # After a long uncertainty or outage, the same label is held anew, because it may have changed meanwhile.
        if face.label != last.label or now_s - last.labelled_s > self._max_gap_s:
            last.label, last.since_s = face.label, now_s
        last.labelled_s = now_s
        return last

    def _is_due(self, label: _Label, now_s: float) -> bool:
        """Return whether a label is an event now: it is new, was held for long enough, and the cooldown is over."""
        options = self._options
        if now_s - label.since_s < options.event_hold:
            return False
        if label.label == label.event_label and not label.has_left:
            return False
        if options.event_label and label.label not in options.event_label:
            # No event of this label is wanted. A return to the label of the latest event then counts as a change.
            label.has_left = True
            return False
        return now_s - label.event_s >= options.event_cooldown  # infinite without an event

    def _event(self, label: _Label, face: Face, result: FrameResult, now_s: float) -> Event:
        """Return the event of a label that a face holds."""
        return Event(
            event_id=f"{self._run_id}-{next(self._numbers)}",
            track_id=face.track_id,
            label=label.label,
            previous=label.event_label,  # None: the first event of the face
            probability=face.probability,
            held_s=now_s - label.since_s,
            sequence=result.sequence,
            monotonic_s=result.monotonic_s,
            wall_s=result.wall_s,
            clock_synchronised=result.clock_synchronised,
            zone=face.zone,
        )
