"""Drawing, blur and snapshots of `edgekit run`, for the sinks that store or send images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.cli.run.output_options import Outputs, allowed_commands

if TYPE_CHECKING:
    from edgekit.device.annotate import Draw
    from edgekit.device.blur import FaceBlur
    from edgekit.device.frame import Source
    from edgekit.device.sinks.command_snapshots import CommandSnapshots
    from edgekit.device.sinks.disk_reserve import DiskReserve
    from edgekit.device.sinks.snapshots import EventSnapshots


def draw_function(outputs: Outputs) -> Draw:
    """Return the function that draws faces, with the options of `outputs`."""
    from edgekit.device.annotate import draw_faces

    return partial(draw_faces, with_ids=outputs.draw_ids)


def warn_of_drawn_labels(outputs: Outputs, labels: Sequence[str], notify: Callable[[str], None]) -> None:
    """Report the labels that are drawn as "class N", if an output draws labels."""
    images = (outputs.save, outputs.web, outputs.event_snapshots, outputs.command_snapshots)
    if not outputs.show and all(target is None for target in images):
        return
    from edgekit.device.annotate import drawn_label

    drawn = {label: drawn_label(label, labels) for label in labels if not label.isascii()}
    numbered = [f"'{label}' as '{text}'" for label, text in drawn.items() if text == f"class {labels.index(label)}"]
    if numbered:
        notify(f"images can contain ASCII letters only, so these labels are drawn as numbers: {', '.join(numbered)}")


def face_blur(outputs: Outputs, source: Source) -> FaceBlur | None:
    """Return the face blur of one sink; each sink needs its own, because it keeps recent boxes."""
    if not outputs.blur_faces:
        return None
    from edgekit.device.blur import FaceBlur
    from edgekit.device.frame import presentation_time_s

    return FaceBlur(presentation_time_s(source))


def event_snapshots(outputs: Outputs, source: Source, notify: Callable[[str], None]) -> EventSnapshots | None:
    """Return the writer of the images of events; None without --event-snapshots."""
    if outputs.event_snapshots is None:
        return None
    from edgekit.device.sinks.snapshots import EventSnapshots

    return EventSnapshots(
        outputs.event_snapshots,
        notify,
        **_folder_options(outputs, source, outputs.event_snapshots_max, outputs.event_snapshots_max_mb),
        is_disk_low=_reserve(outputs, EventSnapshots.what, outputs.event_snapshots, notify).is_low,
    )


def command_snapshots(outputs: Outputs, source: Source, notify: Callable[[str], None]) -> CommandSnapshots | None:
    """Return the sink of the command `snapshot`; None if it is not allowed."""
    if outputs.command_snapshots is None or "snapshot" not in allowed_commands(outputs):
        return None
    from edgekit.device.sinks.command_snapshots import CommandSnapshots

    return CommandSnapshots(
        outputs.command_snapshots,
        notify,
        **_folder_options(outputs, source, outputs.command_snapshots_max, outputs.command_snapshots_max_mb),
        is_disk_low=_reserve(outputs, CommandSnapshots.what, outputs.command_snapshots, notify).is_low,
    )


def _reserve(outputs: Outputs, what: str, folder: Path, notify: Callable[[str], None]) -> DiskReserve:
    from edgekit.device.sinks.disk_reserve import IMAGES, DiskReserve

    return DiskReserve(folder, IMAGES, outputs.disk_reserve, f"{what} to '{folder}'", notify)


def _folder_options(outputs: Outputs, source: Source, max_files: int, max_mb: float) -> dict[str, Any]:
    """Return the arguments that all folders of snapshots have."""
    return {
        "max_files": max_files,
        "max_bytes": round(max_mb * 1e6),
        "blur": face_blur(outputs, source),
        "draw": draw_function(outputs),
    }
