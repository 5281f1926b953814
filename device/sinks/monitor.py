"""Current state of a run, for the web page, the metrics and MQTT."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from edgekit.device.accounting import Account
from edgekit.device.controls import Controls
from edgekit.device.detections import FrameResult
from edgekit.device.events import Event
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.device.sinks.jsonl import as_document

if TYPE_CHECKING:
    from edgekit.device.health.sampler import Health

# The frame rate is averaged over five seconds, stage times over one, so that the chart shows short changes.
_RATE_WINDOW_S = 5.0
_STAGE_WINDOW_S = 1.0
_MAX_EVENTS = 20


ReadHealth: TypeAlias = Callable[[], "Health | None"]


@dataclass(frozen=True)
class StageTotal:
    """Number of executions of a stage in this run, and their total time."""

    count: int = 0
    total_ms: float = 0.0


class Monitor(Sink):
    """Keeps the latest result and five seconds of history.

    One thread adds results, any thread may read. As a sink, it must come before the sinks that read it.
    """

    def __init__(
        self,
        source_name: str,
        health: ReadHealth,
        accounts: Callable[[], Sequence[Account]] = lambda: (),
        controls: Controls | None = None,
    ) -> None:
        """Monitor a run on `source_name`.

        Args:
            source_name: Name of the source, without a password.
            health: Returns the newest health sample, None before the first.
            accounts: Returns the accounts of the run's sinks.
            controls: The run's pauses and commands.
        """
        self.controls = controls or Controls()
        self.source_name = source_name
        self._read_health = health
        self._accounts = accounts
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, Mapping[str, float], float]] = deque()
        self._latest: FrameResult | None = None
        self._events: deque[Event] = deque(maxlen=_MAX_EVENTS)
        self._started_s = time.monotonic()
        self._added_s: float | None = None
        self.frames = 0
        self.missed = 0
        self.labels: Counter[str] = Counter()
        self.stages: dict[str, StageTotal] = {}

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Add the result of a frame."""
        del frame
        now_s = time.monotonic()
        with self._lock:
            if self._latest is not None:
                self.missed += max(0, result.sequence - self._latest.sequence - 1)
            self._latest, self._added_s = result, now_s
            self.frames += 1
            self.labels.update(face.label for face in result.faces)
            for stage, duration_ms in result.stage_ms.items():
                before = self.stages.get(stage, StageTotal())
                self.stages[stage] = StageTotal(before.count + 1, before.total_ms + duration_ms)
            self._recent.append((now_s, result.stage_ms, result.age_ms))
            self._prune(now_s)

    def post(self, event: Event) -> None:
        """Add an event."""
        with self._lock:
            self._events.append(event)

    def since_last_frame_s(self) -> float:
        """Return the seconds since the latest result, or since the start if there was none."""
        with self._lock:
            return time.monotonic() - (self._started_s if self._added_s is None else self._added_s)

    @property
    def is_latest_from_before_pause(self) -> bool:
        """Whether the run pauses, or has no result since the last pause."""
        return self.since_last_frame_s() > self.controls.resumed_for_s

    def is_stalled(self, after_s: float) -> bool:
        """Return whether a run that is not paused has no result since `after_s` seconds."""
        return min(self.since_last_frame_s(), self.controls.resumed_for_s) > after_s

    def is_camera_usable(self) -> bool:
        """Return whether the images of the source show something new."""
        sample = self._read_health()
        return sample is None or sample.is_camera_usable

    def document(self) -> dict[str, Any]:
        """Return the current state ready for JSON.

        Frame rate and age cover five seconds, stage times one second.
        """
        report = self._read_health()
        now_s = time.monotonic()
        with self._lock:
            self._prune(now_s)
            recent, latest = list(self._recent), self._latest
            document: dict[str, Any] = {
                "source": self.source_name,
                "uptime_s": round(now_s - self._started_s, 1),
                "frames": self.frames,
                "missed": self.missed,
                "paused": self.controls.paused,
                "paused_s": round(self.controls.paused_s, 1),
                "commands": dict(self.controls.commands),
                "labels": dict(self.labels.most_common()),
                "events": [event.as_document() for event in reversed(self._events)],
            }
        document["fps"] = round(len(recent) / min(_RATE_WINDOW_S, max(now_s - self._started_s, 1.0)), 2)
        document["age_ms"] = round(sum(age for _, _, age in recent) / len(recent), 2) if recent else None
        document["stage_ms"] = _mean_stages(recent, now_s)
        document["latest"] = None if latest is None else as_document(latest)
        document["outputs"] = {account.name: account.as_document() for account in self._accounts()}
        document["health"] = None if report is None else report.as_document()
        return document

    def _prune(self, now_s: float) -> None:
        while self._recent and now_s - self._recent[0][0] >= _RATE_WINDOW_S:
            self._recent.popleft()


def _mean_stages(recent: list[tuple[float, Mapping[str, float], float]], now_s: float) -> dict[str, float]:
    latest = [stage_ms for at_s, stage_ms, _ in recent if now_s - at_s <= _STAGE_WINDOW_S] or [
        stage_ms for _, stage_ms, _ in recent[-1:]
    ]
    sums: dict[str, float] = {}
    for stage_ms in latest:
        for stage, duration_ms in stage_ms.items():
            sums[stage] = sums.get(stage, 0.0) + duration_ms
    return {stage: round(total / len(latest), 3) for stage, total in sums.items()}
