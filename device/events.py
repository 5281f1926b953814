"""Events: label changes of tracked faces or of the whole image, filtered by hold time, cooldown and probability."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from edgekit.device.detections import Face, FrameResult

# After a gap longer than this, the hold time of a face's label starts again. If the frames are farther apart, a gap is
# longer than this number of periods.
_MAX_GAP_S = 1.0
_MAX_GAP_PERIODS = 2.5
# Tracks that are kept at most, during a long cooldown. A tracker uses a number for one face only, so that few tracks
# reappear.
_MAX_TRACKS = 100


@dataclass(frozen=True)
class EventRules:
    """Conditions for an event, in addition to a label that differs from that of the track's latest event.

    Frames in which the face is uncertain are ignored.

    Attributes:
        hold_s: How long the label must be held, in seconds.
        cooldown_s: Least time since the latest event of the same track, in seconds.
        min_probability: Frames with a lower probability are ignored.
        labels: Only these labels become events (empty: all). A change to another label still counts as a change, so
            that the same label can become an event again afterwards.
    """

    hold_s: float = 1.0
    cooldown_s: float = 0.0
    min_probability: float = 0.0
    labels: Collection[str] = ()


@dataclass(frozen=True)
class Event:
    """A change of the label of one track.

    Attributes:
        event_id: Unique across runs; identifies an event that is received twice.
        track_id: Number of the track, 1 for the whole image; None if faces are not tracked.
        label: The new label.
        previous: Label of the track's latest event, None for the first.
        probability: Probability of `label` in the frame that triggered the event.
        held_s: How long the label had been held, in seconds.
        sequence: Sequence number of the triggering frame.
        monotonic_s: Capture time of the triggering frame, monotonic.
        wall_s: Capture time of the triggering frame, Unix time.
        snapshot: Name of the frame's image in the folder of the snapshots; None without one.
        clock_synchronised: False if `wall_s` may be wrong, see `FrameResult`.
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
    clock_synchronised: bool = True

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
        return document if self.snapshot is None else document | {"snapshot": self.snapshot}


class Outlet(Protocol):
    """A receiver of events, such as a webhook."""

    def post(self, event: Event) -> None:
        """Take an event without waiting for its delivery."""
        ...


@dataclass
class _Track:
    label: str
    since_s: float
    # Time of the latest frame with a label that counts, and of the latest frame with the face.
    counted_s: float
    seen_s: float
    # Label and time of the latest event.
    event_label: str | None = None
    event_s: float = float("-inf")
    # Whether another label, of which no events are wanted, was held since then.
    has_left: bool = False


class EventDetector:
    """Derives events from the results of successive frames, according to `EventRules`."""

    def __init__(self, rules: EventRules) -> None:
        self._rules = rules
        self._tracks: dict[tuple[str, int], _Track] = {}
        self._run_id = secrets.token_hex(4)
        self._numbers = itertools.count()
        self._latest_s: float | None = None
        # Seconds between the latest three frames. The smaller value counts, so that an outage does not extend the gap.
        self._periods_s: tuple[float, float] = (0.0, 0.0)

    def update(self, result: FrameResult, at_s: float | None = None) -> list[Event]:
        """Return the events of this frame, in the order of its faces.

        Args:
            result: The result of the frame.
            at_s: Presentation time of the frame in seconds; default: its monotonic capture time.
        """
        now_s = result.monotonic_s if at_s is None else at_s
        events = []
        for index, face in enumerate(result.faces):
            # Untracked faces are identified by their index.
            key = ("index", index) if face.track_id is None else ("track", face.track_id)
            track = self._update_track(key, face, now_s)
            if track is not None and self._is_due(track, now_s):
                events.append(self._event(track, face, result, now_s))
                track.event_label, track.event_s, track.has_left = track.label, now_s, False
        self._remove_ended(now_s)
        if self._latest_s is not None:
            period_s = now_s - self._latest_s
            self._periods_s = (self._periods_s[1] or period_s, period_s)
        self._latest_s = now_s
        return events

    @property
    def _max_gap_s(self) -> float:
        return max(_MAX_GAP_S, _MAX_GAP_PERIODS * min(self._periods_s))

    def _update_track(self, key: tuple[str, int], face: Face, now_s: float) -> _Track | None:
        track = self._tracks.pop(key, None)
        if track is not None:
            track.seen_s = now_s
            self._tracks[key] = track  # the order is that of `seen_s`
        if face.uncertain or face.probability < self._rules.min_probability:
            return None
        if track is None:
            self._tracks[key] = _Track(face.label, now_s, now_s, now_s)
            return self._tracks[key]
        if face.label != track.label or now_s - track.counted_s > self._max_gap_s:
            track.label, track.since_s = face.label, now_s
        track.counted_s = now_s
        return track

    def _is_due(self, track: _Track, now_s: float) -> bool:
        rules = self._rules
        if now_s - track.since_s < rules.hold_s or (track.label == track.event_label and not track.has_left):
            return False
        if rules.labels and track.label not in rules.labels:
            # No event. A return to the label of the latest event then counts as a change.
            track.has_left = True
            return False
        return now_s - track.event_s >= rules.cooldown_s

    def _event(self, track: _Track, face: Face, result: FrameResult, now_s: float) -> Event:
        return Event(
            event_id=f"{self._run_id}-{next(self._numbers)}",
            track_id=face.track_id,
            label=track.label,
            previous=track.event_label,
            probability=face.probability,
            held_s=now_s - track.since_s,
            sequence=result.sequence,
            monotonic_s=result.monotonic_s,
            wall_s=result.wall_s,
            clock_synchronised=result.clock_synchronised,
        )

    def _remove_ended(self, now_s: float) -> None:
        # Tracks are kept during the cooldown, which also applies to a track that reappears.
        kept_s = max(self._max_gap_s, self._rules.cooldown_s)
        for key in list(self._tracks):
            # `abs`, so that no track is kept for ever if the time goes back.
            unseen_s = abs(now_s - self._tracks[key].seen_s)
            if unseen_s <= self._max_gap_s or (len(self._tracks) <= _MAX_TRACKS and unseen_s <= kept_s):
                return
            del self._tracks[key]
