"""What every form of a report says in the same words: titles, units, states, warnings, order of cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from edgekit.report.quality_flags import EXPLANATIONS

Entry: TypeAlias = Mapping[str, Any]
CellDocument: TypeAlias = Mapping[str, Any]

KINDS = ("inference", "classifier", "pipeline", "camera")
KIND_NOTE = "inference: the net alone; classifier: and cut the faces; pipeline: and find them; camera: and wait"
INTERVAL_NOTE = "±: half of the median's 95 % interval, from the spread between processes"
COLUMNS = ("what", "engine", "threads", "p50 ms", "±", "p90 ms", "p99 ms", "a second", "MiB", "marks")

_EMULATED = "EMULATED: measured on an emulator. These times are not a board's times, not even in their ratios."
_GUEST = "VIRTUAL MACHINE: other guests share this machine. These times are no bare machine's."


def board_title(entry: Entry) -> str:
    """Return what a board is called: its label, its model, its processor."""
    board = entry["board"]
    parts = [entry["label"]] if entry["label"] else []
    parts.append(board["model"] or "unknown board")
    if board["cpu"] and board["cpu"] != board["model"]:
        parts.append(board["cpu"])
    parts.append(f"{board['processors'] or '?'} processors, {board['architecture']}")
    return ", ".join(parts)


def origin(entry: Entry) -> str | None:
    """Return the warning that belongs on top of whatever was not measured on bare hardware."""
    return {"emulator": _EMULATED, "virtual machine": _GUEST}.get(entry["board"]["virtualization"])


def system_line(entry: Entry) -> str:
    """Return the system and the versions that decide what a time means."""
    board, versions = entry["board"], entry["versions"]
    parts = [board["os_release"] or "unknown system", f"kernel {board['kernel'] or 'unknown'}"]
    parts += [f"{name} {version}" for name, version in versions.items()]
    return ", ".join(parts)


def state(conditions: Mapping[str, Any]) -> str:
    """Return the state of a board at one moment, in words."""
    temperature, clock, throttling = (conditions[name] for name in ("temperature_c", "clock_mhz", "throttling"))
    parts = ["temperature unknown" if temperature is None else f"{temperature:.1f} °C"]
    parts.append("clock unknown" if clock is None else f"{clock:.0f} MHz")
    parts.append(f"governor {conditions['governor'] or 'unknown'}")
    parts.append("throttling unknown" if throttling is None else throttle_words(throttling))
    return ", ".join(parts)


def throttle_words(throttling: Mapping[str, Any]) -> str:
    """Return the throttle flags in words."""
    if not throttling["now"] and not throttling["since_boot"]:
        return "not throttled"
    parts = [f"now: {', '.join(throttling['now'])}"] if throttling["now"] else []
    parts += [f"since boot: {', '.join(throttling['since_boot'])}"] if throttling["since_boot"] else []
    return "; ".join(parts)


def facts(entry: Entry) -> list[str]:
    """Return the lines below the tables of a board: how it was measured, states, notes, and what is amiss."""
    settings = entry["settings"]
    lines = [KIND_NOTE, INTERVAL_NOTE]
    lines += [f"before: {state(entry['before'])}", f"after: {state(entry['after'])}", f"with: {system_line(entry)}"]
    if entry["clip"]:
        clip = entry["clip"]
        width, height = clip["first_frame_wh"]
        lines.append(f"frames: {clip['frames']} of '{clip['source']}', {width}x{height}, from memory")
    if entry["notes"]:
        lines.append("noted: " + ", ".join(f"{key}: {value}" for key, value in entry["notes"].items()))
    lines.append(
        f"method: at least {settings['seconds']:g} s and {settings['min_iterations']} iterations a cell, over "
        f"{settings['processes']} processes"
    )
    return lines + warnings(entry)


def warnings(entry: Entry) -> list[str]:
    """Return what a reader must know before believing a figure."""
    found = [warning] if (warning := origin(entry)) else []
    for mark, meaning in EXPLANATIONS.items():
        marked = [cell for cell in entry["cells"] if mark in cell["marks"]]
        if marked:
            found.append(f"{mark.upper()} ({len(marked)} of {len(entry['cells'])} cells): {meaning}")
    repeated = sum(len(cell["repeated"]) for cell in entry["cells"])
    if repeated:
        found.append(f"{repeated} measurements were thrown away and taken again after a pause")
    if not entry["complete"]:
        found.append("INTERRUPTED: not everything that was planned was measured")
    return found


def ordered(cells: Sequence[CellDocument]) -> list[CellDocument]:
    """Return a model's cells in an order for readers, whatever order they were taken in."""
    return sorted(cells, key=lambda cell: (KINDS.index(cell["kind"]), cell["engine"], cell["intra_op_threads"]))


def row(cell: CellDocument) -> tuple[str, ...]:
    """Return a cell as text under `COLUMNS`."""
    latency = cell["latency"]
    return (
        cell["kind"],
        cell["engine"],
        str(cell["intra_op_threads"]),
        ms(latency["p50_ms"]),
        plus_minus(cell),
        ms(latency["p90_ms"]),
        ms(latency["p99_ms"]),
        f"{cell['images_per_s']:.1f}",
        f"{cell['resident_mib']:.0f}",
        ", ".join(cell["marks"]),
    )


def shown_columns(cells: Sequence[CellDocument]) -> list[int]:
    """Return which of `COLUMNS` are worth their width: not those that say the same in every line, or nothing."""
    left_out = {"engine"} if len({cell["engine"] for cell in cells}) == 1 else set()
    left_out |= {"marks"} if not any(cell["marks"] for cell in cells) else set()
    return [index for index, name in enumerate(COLUMNS) if name not in left_out]


def plus_minus(cell: CellDocument) -> str:
    """Return half the median's 95 % interval in percent, or - where there are too few processes for one."""
    limits = cell["median_interval_ms"]
    if limits is None:
        return "-"
    percent = 100 * (math.sqrt(limits[1] / limits[0]) - 1)
    return f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def ms(value: float) -> str:
    """Return milliseconds with three figures that count."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"
