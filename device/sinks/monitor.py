"""Current state of a run, for the web page and MQTT as a document, and as the metrics of Prometheus."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from edgekit import __version__
from edgekit.device.controls import Controls
from edgekit.device.detections import FrameResult
from edgekit.device.frame import CAMERA_STATES, Frame
from edgekit.device.sink import Sink
from edgekit.device.sinks.context import Account
from edgekit.device.sinks.events import Event
from edgekit.device.sinks.jsonl import as_document

if TYPE_CHECKING:
    from edgekit.device.health.sampler import Health


# The frame rate is averaged over five seconds, stage times over one, so that the chart shows short changes.
_RATE_WINDOW_S = 5.0
_STAGE_WINDOW_S = 1.0
_MAX_EVENTS = 20


ReadHealth: TypeAlias = Callable[[], "Health | None"]


@dataclass(eq=False)
class Monitor(Sink):
    """Keeps the latest result and five seconds of history.

    One thread adds results, any thread may read. As a sink, it must come before the sinks that read it.

    Attributes:
        source_name: Name of the source, without a password.
        read_health: Returns the newest health sample, None before the first.
        accounts: Returns the accounts of the run's sinks.
        controls: The run's pauses and commands.
        frames: Number of results.
        missed: Number of frames without a result.
        labels: Number of faces or images by label.
        zone_labels: The same by zone and label, with zones.
        stages: Number of executions of each stage in this run, and their total time in milliseconds.
    """

    source_name: str
    read_health: ReadHealth
    accounts: Callable[[], Sequence[Account]] = lambda: ()
    controls: Controls = field(default_factory=Controls)
    frames: int = 0
    missed: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    zone_labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    stages: dict[str, tuple[int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()  # guards everything that a result or an event changes
        # The results of the last five seconds, the latest one and when it was added.
        self._recent: deque[_Recent] = deque()
        self._latest: FrameResult | None = None
        self._added_s: float | None = None
        self._events: deque[Event] = deque(maxlen=_MAX_EVENTS)
        self._started_s = time.monotonic()  # when the run began

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Add the result of a frame."""
        del frame
        now_s = time.monotonic()
        with self._lock:
            if self._latest is not None:
                # Numbers of a source count all its frames: a gap is frames without a result.
                self.missed += max(0, result.sequence - self._latest.sequence - 1)
            self._latest, self._added_s = result, now_s
            self.frames += 1
            self.labels.update(face.label for face in result.faces)
            self.zone_labels.update((face.zone, face.label) for face in result.faces if face.zone is not None)
            for stage, duration_ms in result.stage_ms.items():
                count, total_ms = self.stages.get(stage, (0, 0.0))
                self.stages[stage] = count + 1, total_ms + duration_ms
            self._recent.append(_Recent(now_s, result.stage_ms, result.age_ms))
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
        sample = self.read_health()
        return sample is None or sample.is_camera_usable

    def document(self) -> dict[str, Any]:
        """Return the current state ready for JSON.

        Frame rate and age cover five seconds, stage times one second.
        """
        report = self.read_health()
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
        covered_s = min(_RATE_WINDOW_S, max(now_s - self._started_s, 1.0))  # shorter at the beginning of the run
        document["fps"] = round(len(recent) / covered_s, 2)
        document["age_ms"] = round(sum(each.age_ms for each in recent) / len(recent), 2) if recent else None
        document["stage_ms"] = _mean_stages(recent, now_s)
        document["latest"] = None if latest is None else as_document(latest)
        document["outputs"] = {account.name: account.as_document() for account in self.accounts()}
        document["health"] = None if report is None else report.as_document()
        return document

    def _prune(self, now_s: float) -> None:
        while self._recent and now_s - self._recent[0].added_s >= _RATE_WINDOW_S:
            self._recent.popleft()


class _Recent(NamedTuple):
    """What the monitor keeps of a result for five seconds."""

    added_s: float
    stage_ms: Mapping[str, float]
    age_ms: float


def _mean_stages(recent: list[_Recent], now_s: float) -> dict[str, float]:
    """Return the mean time of each stage in milliseconds over the last second; if no result is in it, of the latest."""
    # Empty before the first result, and five seconds after the latest one.
    latest = [each for each in recent if now_s - each.added_s <= _STAGE_WINDOW_S] or recent[-1:]
    sums: dict[str, float] = {}
    for each in latest:
        for stage, duration_ms in each.stage_ms.items():
            sums[stage] = sums.get(stage, 0.0) + duration_ms
    return {stage: round(total / len(latest), 3) for stage, total in sums.items()}


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Labels and value of each sample.
_Samples: TypeAlias = Sequence[tuple[Mapping[str, str], float]]

# Numeric fields of a health document: name, factor to the base unit, metric, help text.
_HEALTH = (
    ("temperature_c", 1.0, "edgekit_temperature_celsius", "Temperature of the processor."),
    ("clock_mhz", 1e6, "edgekit_clock_hertz", "Clock of the processor."),
    ("memory_available_mib", float(1 << 20), "edgekit_memory_available_bytes", "Available memory of the machine."),
    ("memory_own_mib", float(1 << 20), "edgekit_memory_resident_bytes", "Memory of this process."),
    ("disk_free_mib", float(1 << 20), "edgekit_disk_free_bytes", "Free space on the disk of the results."),
    ("open_files", 1.0, "edgekit_open_files", "Open files of this process."),
    ("threads", 1.0, "edgekit_threads", "Threads of this process."),
    ("load_1min", 1.0, "edgekit_load1", "Load average over one minute."),
)

# Fields of the account of a sink: name, type, metric, help text.
_OUTPUTS = (
    ("produced", "counter", "edgekit_output_produced_total", "Items that an output received."),
    ("written", "counter", "edgekit_output_written_total", "Items that are stored or confirmed."),
    ("waiting", "gauge", "edgekit_output_waiting", "Items that wait to be written."),
)


def metrics_text(monitor: Monitor, viewers: int, encoded: int) -> str:
    """Return all metrics in the text format of Prometheus (exposition format 0.0.4).

    Args:
        monitor: The state of the run.
        viewers: Number of viewers of the video.
        encoded: Number of images that were encoded for them.
    """
    return "".join(line + "\n" for line in _lines(monitor, viewers, encoded))


def _lines(monitor: Monitor, viewers: int, encoded: int) -> Iterator[str]:
    """Yield the lines of `metrics_text`."""
    state = monitor.document()
    yield from _family("edgekit_info", "gauge", "Version of the program.", [({"version": __version__}, 1)])
    yield from _value("edgekit_frames_total", "counter", "Frames with a result.", state["frames"])
    yield from _value("edgekit_frames_missed_total", "counter", "Frames without a result.", state["missed"])
    # Copied with `list`, because the run's thread adds entries meanwhile.
    by_zone = [({"label": label, "zone": zone}, count) for (zone, label), count in list(monitor.zone_labels.items())]
    by_label = [({"label": label}, count) for label, count in state["labels"].items()]
    faces_text = "Classified faces or images by label, with --zone also by zone."
    # One of the two, because a sum over the metric would count a face of a zone twice.
    yield from _family("edgekit_faces_total", "counter", faces_text, by_zone or by_label)
    rate_text = "Frame rate over the last five seconds."
    yield from _value("edgekit_frames_per_second", "gauge", rate_text, state["fps"])
    if state["age_ms"] is not None:
        yield from _value("edgekit_result_age_seconds", "gauge", "Time from capture to result.", state["age_ms"] / 1e3)
    since_s = round(monitor.since_last_frame_s(), 3)
    yield from _value("edgekit_since_last_frame_seconds", "gauge", "Time since the latest result.", since_s)
    yield from _value("edgekit_paused", "gauge", "1 while the run is paused.", int(state["paused"]))
    yield from _value("edgekit_paused_seconds_total", "counter", "Time in pauses.", state["paused_s"])
    commands = [({"command": name}, count) for name, count in state["commands"].items()]
    yield from _family("edgekit_commands_total", "counter", "Commands received, or ignored, by name.", commands)
    yield from _stages(monitor)
    yield from _outputs(state["outputs"])
    yield from _health(state["health"] or {})
    yield from _value("edgekit_web_viewers", "gauge", "Viewers of the video.", viewers)
    yield from _value("edgekit_web_pictures_encoded_total", "counter", "Images encoded for viewers.", encoded)


def _stages(monitor: Monitor) -> Iterator[str]:
    """Yield the total time and the number of executions of each stage."""
    name = "edgekit_stage_seconds"
    yield f"# HELP {name} Time spent in a stage of the pipeline."
    yield f"# TYPE {name} summary"
    for stage, (count, total_ms) in list(monitor.stages.items()):
        yield f"{name}_sum{_labels({'stage': stage})} {total_ms / 1e3:.6f}"
        yield f"{name}_count{_labels({'stage': stage})} {count}"


def _outputs(outputs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the accounts of the sinks: produced = written + dropped + waiting."""
    for key, kind, name, text in _OUTPUTS:
        samples = [({"output": output}, account[key]) for output, account in outputs.items()]
        yield from _family(name, kind, text, samples)
    dropped = [
        ({"output": output, "reason": reason}, count)
        for output, account in outputs.items()
        for reason, count in account["dropped"].items()
    ]
    yield from _family("edgekit_output_dropped_total", "counter", "Lost items of an output by reason.", dropped)


def _health(health: dict[str, Any]) -> Iterator[str]:
    """Yield the metrics of a health document; values that the machine does not have are left out."""
    for key, factor, name, text in _HEALTH:
        value = health.get(key)
        if isinstance(value, (int, float)):
            yield from _value(name, "gauge", text, value * factor)
    state = health.get("camera")
    if state is not None:
        states = [({"state": name}, int(name == state)) for name in CAMERA_STATES]
        yield from _family("edgekit_camera_state", "gauge", "1 for the state of the camera.", states)
        faults = [({"state": name}, count) for name, count in health["camera_faults"].items()]
        yield from _family("edgekit_camera_faults_total", "counter", "How often a state other than ok began.", faults)
    throttling = health.get("throttling")
    if isinstance(throttling, dict):
        flags = int(str(throttling.get("flags", "0x0")), 16)
        yield from _value("edgekit_throttle_flags", "gauge", "Throttle flags of the firmware.", flags)
        is_throttled = int(bool(throttling.get("now")))
        yield from _value(
            "edgekit_throttled", "gauge", "1 while the board is throttled or its supply voltage is low.", is_throttled
        )


def _value(name: str, kind: str, text: str, value: float) -> Iterator[str]:
    """Return the lines of a metric with one value and no labels."""
    return _family(name, kind, text, [({}, value)])


def _family(name: str, kind: str, text: str, samples: _Samples) -> Iterator[str]:
    """Yield the lines of a metric: its help text, its kind ("counter" or "gauge"), and a line for each sample."""
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{_labels(labels)} {value}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
