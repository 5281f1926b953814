"""From labels that flicker to events worth sending: what has to hold, and for how long, before something happened."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from edgekit.device.detections import Face, FrameResult

# A face may be missed in a few frames without starting over; after this long it is another visit.
_GAP_S = 1.0


@dataclass(frozen=True)
class EventRules:
    """When a label becomes an event.

    It has held on one track for `hold_s`, differs from the label of the track's last event, and that event is at least
    `cooldown_s` ago. `labels` limits events to these (empty: all); the others still count as changes, so that a label
    can come back. `min_probability` is the least probability with which a label counts as seen.
    """

    hold_s: float = 1.0
    cooldown_s: float = 0.0
    min_probability: float = 0.0
    labels: Collection[str] = ()


@dataclass(frozen=True)
class Event:
    """A track's label changed. `event_id` is unique: a receiver can tell what it got twice.

    `track_id` is None where nothing is tracked. `previous` is the label of the track's last event. The times are
    those of the frame that decided; the label had held for `held_s` then.
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

    def as_document(self) -> dict[str, Any]:
        """Return the event as it is sent; `event_type` is what Home Assistant looks for."""
        return {
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


class Outlet(Protocol):
    """Where events go."""

    def post(self, event: Event) -> None:
        """Take an event; returns at once, whatever becomes of it."""
        ...


@dataclass
class _Track:
    label: str
    since_s: float
    seen_s: float
    told: str | None = None
    told_s: float = float("-inf")


class EventDetector:
    """Applies the rules to one frame after the other."""

    def __init__(self, rules: EventRules) -> None:
        self._rules = rules
        self._tracks: dict[tuple[str, int], _Track] = {}
        self._run_id = secrets.token_hex(4)
        self._numbers = itertools.count()

    def update(self, result: FrameResult, at_s: float | None = None) -> list[Event]:
        """Return what happened with this frame, in the order of its faces.

        Args:
            result: The frame's.
            at_s: When it was taken, in seconds that count on from frame to frame; default: its monotonic time. For a
                recording that is its place in it, however fast it is read.
        """
        now_s = result.monotonic_s if at_s is None else at_s
        events = []
        for index, face in enumerate(result.faces):
            # Without tracks, a face's place in the list has to stand for it.
            key = ("place", index) if face.track_id is None else ("track", face.track_id)
            track = self._follow(key, face, now_s)
            if track is not None and self._is_due(track, now_s):
                events.append(self._event(track, face, result, now_s))
                track.told, track.told_s = track.label, now_s
        self._forget(now_s)
        return events

    def _follow(self, key: tuple[str, int], face: Face, now_s: float) -> _Track | None:
        track = self._tracks.get(key)
        if face.probability < self._rules.min_probability:
            return None
        if track is None:
            self._tracks[key] = _Track(face.label, now_s, now_s)
            return self._tracks[key]
        if face.label != track.label or now_s - track.seen_s > _GAP_S:
            track.label, track.since_s = face.label, now_s
        track.seen_s = now_s
        return track

    def _is_due(self, track: _Track, now_s: float) -> bool:
        rules = self._rules
        if now_s - track.since_s < rules.hold_s or track.label == track.told:
            return False
        if rules.labels and track.label not in rules.labels:
            # Not to be told, but the next label is a change again.
            track.told = None
            return False
        return now_s - track.told_s >= rules.cooldown_s

    def _event(self, track: _Track, face: Face, result: FrameResult, now_s: float) -> Event:
        return Event(
            event_id=f"{self._run_id}-{next(self._numbers)}",
            track_id=face.track_id,
            label=track.label,
            previous=track.told,
            probability=face.probability,
            held_s=now_s - track.since_s,
            sequence=result.sequence,
            monotonic_s=result.monotonic_s,
            wall_s=result.wall_s,
        )

    def _forget(self, now_s: float) -> None:
        # A track that is gone for good must not stay; within the cooldown one that comes back must not be new.
        kept_s = max(_GAP_S, self._rules.cooldown_s)
        gone = [key for key, track in self._tracks.items() if now_s - track.seen_s > kept_s]
        for key in gone:
            del self._tracks[key]
