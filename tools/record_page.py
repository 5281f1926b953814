"""The page of the fields that a run writes: from the docstrings of their classes, the metrics, and the tables below."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping

import numpy as np

from edgekit.boards import Conditions, Throttling
from edgekit.device.detections import Detections, Face, FrameResult
from edgekit.device.frame import Frame
from edgekit.device.health.sampler import Health, ProcessUse
from edgekit.device.sinks.context import Account
from edgekit.device.sinks.events import Event
from edgekit.device.sinks.monitor import Monitor, metrics_text
from edgekit.device.zones import Zone

_ABSENT = (
    "`file`, `position_s`, `subject`, `health` and `clock_synchronised` are absent when there is nothing to state."
)
_FRAME = {
    "sequence": "Number of the frame, counted by the source; a missing number is a dropped frame.",
    "faces": "List of [faces](#a-face).",
    "results": "With a model of whole images, instead of `faces`.",
    "subject": "`image` with a model of whole images.",
    "health": "[Health](#health) of the board, in the first result after each sample.",
}
_STATE = {
    "faces": "number of faces",
    "label, probability": "label and probability of the largest face; null without a face",
    "labels": "labels of all faces",
    "paused": "true while the run is paused by [a command](../how-to/mqtt.md#commands); `faces` is then 0, and after "
    "it until the next frame",
    "fps, age_ms": "frame rate and mean age of the results over five seconds",
    "frames": "number of frames with a result since the start",
    "monotonic_s, wall_s": "capture time of the latest frame",
    "zones": "with [zones](../how-to/zones.md), `faces`, `label` and `probability` of each by its name",
}
_API_STATE = {
    "source, uptime_s": "name of the source; time since the start of the run",
    "frames, missed": "number of frames with a result, and without a result",
    "paused, paused_s": "true while the run is paused; total time of all pauses",
    "commands": "number of received commands for each name; `ignored` counts the ignored ones",
    "labels": "number of faces for each label since the start",
    "fps, age_ms": "frame rate and mean age of the results over five seconds",
    "stage_ms": "mean time of each stage over one second",
    "latest": "the latest [frame](#a-frame)",
    "events": "the latest [events](#an-event), the newest first",
    "outputs": "[account](#accounts-of-the-outputs) of each output",
    "health": "[health](#health) of the board",
    "viewers": "number of viewers of the video",
    "stalled": "true if there was no frame for ten seconds",
}
_HEALTH = {
    "monotonic_s, wall_s": "time of the sample",
    "temperature_c": "temperature of the processor",
    "clock_mhz, clock_min_mhz, clock_max_mhz": "clock of the processor, and its limits",
    "clock_source": "`firmware`, `cpufreq` (the clock that the kernel requested) or `cpuinfo`",
    "governor": "the kernel's frequency governor",
    "throttling": "throttle flags: `flags` as a number, `now` and `since_boot` in words",
    "memory_available_mib, memory_own_mib": "available memory of the machine; memory of this process",
    "load_1min": "load average over one minute",
    "threads, open_files": "number of threads and of open files of this process",
    "disk_free_mib": "free space on the disk of the results; of several, the one with the least at the start",
    "camera": "[state of a camera or stream](../how-to/cameras.md#cameras-that-show-nothing): `ok`, `frozen`, `dark`, "
    "`covered` or `lost`; null for files",
    "camera_faults": "how often each state other than `ok` has begun",
}
_SUMMARY = {
    "ended": "`finished`, `interrupted` (Ctrl-C), `stopped` (SIGTERM) or `failed`. If a run is stopped before its "
    "first frame, there is only this field and `frames`",
    "source, detector": "name of the source; name of the detector that was used",
    "skipped, damaged": "images or frames that could not be decoded; frames of a video file that were decoded, but "
    "[are damaged](../how-to/cameras.md), 0 if the file was not read to its end",
    "model": "`path`, `architecture`, `precision` and `subject` of the model",
    "settings, versions": "options in effect; versions of edgekit, Python and the libraries",
    "frames, faces, frames_with_faces": "number of frames with a result, of faces in them, of frames with a face",
    "classified": "number of faces that were classified in their frame",
    "dropped, dropped_by_stage": "frames that newer ones replaced, in total and for each stage",
    "seconds, fps": "time from the first captured frame to the last result, without pauses; frame rate in this time",
    "labels": "number of faces for each label",
    "stages": "for each row of [the table of a run](../explanation/frame.md#the-table-of-a-run), where `wait`, "
    "`sinks` and `age` are `wait for a stage`, `outputs` and `capture to result`: `count`, `mean_ms`, `p50_ms`, "
    "`p90_ms`, `p99_ms`, `max_ms`",
    "paused_s, commands": "total time of all pauses; number of commands for each name",
    "outputs": "[account](#accounts-of-the-outputs) of each output",
    "health": "`samples`, `cost_ms` (processor time per sample), the extremes of all samples (`max_temperature_c`, "
    "`min_clock_mhz`, …), `throttled` and `max_load_level`",
}
_ACCOUNT = {
    "produced": "items from the run, and those that the output found in its buffer file at the start",
    "written": "items that are stored, or that the receiver has confirmed",
    "dropped": "number of lost items by reason: the operating system's error (`disk full`, …), `disk reserve`, `disk "
    "too slow`, `encoder or disk too slow`, `folder missing`, `folder full`; for events `buffer full`, `buffer not "
    "writable`, `damaged`, `receiver failed`, `rejected`, `queue full`, `end of the run`",
    "waiting": "items in a buffer; at the end of a run, only those in a file that the next run reads",
}


def page() -> Iterable[str]:
    """Yield the paragraphs of the page."""
    yield "# Records, events, messages, metrics"
    yield "The fields that a run writes. Names contain the unit; boxes are in pixels of the frame."
    yield "## A frame"
    yield (
        "One line of `--jsonl`, the response of `POST /classify`, and `latest` in `/api/state`. With a model of whole "
        "images, `results` replaces `faces`: one entry with the fields of a face, where `xyxy` is the frame or its "
        f"region, or an entry for each zone. {_ABSENT}"
    )
    yield _table(_attributes(FrameResult) | _FRAME)
    yield "## A face"
    yield (
        "A row of a CSV also has `sequence`, `monotonic_s`, `wall_s` and `file` of the frame, and `face`, the index in "
        "the frame from 0. It has `x0`, `y0`, `x1`, `y1` instead of `xyxy`, `p_CLASS` and `raw_p_CLASS` instead of "
        "`probabilities` and `raw_probabilities`, and not `detected`. `distance` exists with taught models only, "
        "`zone` with [zones](../how-to/zones.md) only, `position_s` with a video file only."
    )
    yield _table({name: text for name, text in _attributes(Face).items() if name != "uncertain"})
    yield "## An event"
    yield (
        "`--webhook` and `TOPIC/event` send [events](../how-to/webhooks.md#events), `/api/state` lists them. "
        "`snapshot` needs `--event-snapshots`, `snapshot_jpeg` also `--send-snapshots`, `clip` needs `--event-clips`, "
        "`zone` needs `--zone`."
    )
    event = _attributes(Event) | {"event_type": "The label again, for Home Assistant."}
    yield _table(event | {"snapshot_jpeg": "The event's image in base64."})
    yield "## State"
    yield "`TOPIC/state` every 10 s and when `faces`, `label` or `paused` has changed, at most once per second:"
    yield _table(_STATE)
    yield "`/api/state`, and twice per second `/api/events`:"
    yield _table(_API_STATE)
    yield "## Health"
    yield (
        "`health` in records and in `/api/state`, and `TOPIC/health`, which also has `dropped`, the number of items "
        "that all outputs have lost, and `dropped_by`, by output and reason. A field is null if it is unknown."
    )
    yield _table(_HEALTH)
    yield "## Metrics"
    yield "`/metrics` in the text format of Prometheus:"
    yield _metrics()
    yield "## The summary"
    yield "`edgekit run --json` prints one document at the end of the run:"
    yield _table(_SUMMARY)
    yield "## Accounts of the outputs"
    yield (
        "Every output counts its items: `produced` = `written` + `dropped` + `waiting`. A run with losses ends with "
        "one warning; its exit code stays 0 with a camera, because the run went on. [A run that goes "
        "on](../how-to/troubleshooting.md#a-run-that-goes-on) states what each fault can cost."
    )
    yield _table(_ACCOUNT)


def _attributes(cls: type) -> dict[str, str]:
    """Return the texts of the section "Attributes" of a docstring by name."""
    found: dict[str, str] = {}
    for line in (inspect.getdoc(cls) or "").partition("Attributes:\n")[2].splitlines():
        if field := re.fullmatch(r"    (\w+): (.*)", line):
            name, found[field[1]] = field[1], field[2]
        elif found:
            found[name] += " " + line.strip()
    return {name: _of_json(text) for name, text in found.items()}


def _of_json(text: str) -> str:
    """Return a description of a Python value as one of a JSON value."""
    plain = re.sub(r"(, see `[\w.]+`|float32 \(4,\): | \(`Health.as_document`\))", "", text)
    return plain.replace("None", "null").replace("False", "false")


def _table(meanings: Mapping[str, str]) -> str:
    """Return a table of fields; names that share a meaning are separated by commas."""
    rows = (f"| {', '.join(f'`{name}`' for name in names.split(', '))} | {text} |" for names, text in meanings.items())
    return "\n".join(["| field | meaning |", "| --- | --- |", *rows])


def _metrics() -> str:
    text = every_metric()
    labels = {name: re.findall(r'(\w+)="', given) for name, given in re.findall(r"^(\w+)(\S*) ", text, re.M)}
    rows = []
    for metric, meaning in re.findall(r"^# HELP (\w+) (.*)$", text, re.M):
        names = [metric] if metric in labels else [f"{metric}_sum", f"{metric}_count"]
        marks = [", ".join(f"`{each}`" for each in group) for group in (names, labels[names[0]])]
        rows.append(f"| {marks[0]} | {marks[1]} | {meaning} |")
    return "\n".join(["| metric | labels | meaning |", "| --- | --- | --- |", *rows])


def every_metric() -> str:
    """Return the text of `/metrics` of a run in which every counted event occurred."""
    account = Account("jsonl")
    account.produce()
    account.drop("disk full")
    conditions = Conditions(71.5, 1200.0, "firmware", 600.0, 1400.0, "ondemand", Throttling(0x80008), 412, 1.5)
    health = Health(1.0, 1.7e9, conditions, ProcessUse(150.0, 150.0, 9, 20), 2048, "frozen", {"frozen": 1})
    monitor = Monitor("demo", lambda: health, lambda: [account])
    monitor.controls.commands["pause"] += 1
    zone = Zone("door", ((0, 0), (1, 0), (1, 1)))
    face = Detections(
        np.zeros((1, 4), np.float32), np.ones(1, np.float32), zones=(zone,), zone_indices=np.zeros(1, np.int64)
    )
    frame = Frame(0, 0.0, 0.0, np.zeros((9, 9, 3), np.uint8))
    monitor.write(frame, FrameResult(0, 0.0, 0.0, (9, 9), face, {"detect": 1.0}, 5.0))
    return metrics_text(monitor, 0, 0)
