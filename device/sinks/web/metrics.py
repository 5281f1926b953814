"""Metrics of a run in the text format of Prometheus (exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from edgekit import __version__
from edgekit.device.frame import CAMERA_STATES
from edgekit.device.sinks.monitor import Monitor
from edgekit.device.sinks.web.preview import Preview

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


def metrics_text(monitor: Monitor, preview: Preview) -> str:
    """Return all metrics as text."""
    return "".join(line + "\n" for line in _lines(monitor, preview))


def _lines(monitor: Monitor, preview: Preview) -> Iterator[str]:
    state = monitor.document()
    yield from _family("edgekit_info", "gauge", "Version of the program.", [({"version": __version__}, 1)])
    yield from _value("edgekit_frames_total", "counter", "Frames with a result.", state["frames"])
    yield from _value("edgekit_frames_missed_total", "counter", "Frames without a result.", state["missed"])
    faces = [({"label": label}, count) for label, count in state["labels"].items()]
    yield from _family("edgekit_faces_total", "counter", "Classified faces or images by label.", faces)
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
    yield from _value("edgekit_web_viewers", "gauge", "Viewers of the video.", preview.viewers)
    yield from _value("edgekit_web_pictures_encoded_total", "counter", "Images encoded for viewers.", preview.encoded)


def _stages(monitor: Monitor) -> Iterator[str]:
    name = "edgekit_stage_seconds"
    yield f"# HELP {name} Time spent in a stage of the pipeline."
    yield f"# TYPE {name} summary"
    for stage, total in list(monitor.stages.items()):
        yield f"{name}_sum{_labels({'stage': stage})} {total.total_ms / 1e3:.6f}"
        yield f"{name}_count{_labels({'stage': stage})} {total.count}"


def _outputs(outputs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the accounts of the sinks: produced = written + dropped + waiting."""
    for field, kind, name, text in _OUTPUTS:
        samples = [({"output": output}, account[field]) for output, account in outputs.items()]
        yield from _family(name, kind, text, samples)
    dropped = [
        ({"output": output, "reason": reason}, count)
        for output, account in outputs.items()
        for reason, count in account["dropped"].items()
    ]
    yield from _family("edgekit_output_dropped_total", "counter", "Lost items of an output by reason.", dropped)


def _health(health: dict[str, Any]) -> Iterator[str]:
    for field, factor, name, text in _HEALTH:
        value = health.get(field)
        if isinstance(value, (int, float)):
            yield from _value(name, "gauge", text, value * factor)
    if (state := health.get("camera")) is not None:
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
    return _family(name, kind, text, [({}, value)])


def _family(name: str, kind: str, text: str, samples: _Samples) -> Iterator[str]:
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
