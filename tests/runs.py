"""A run as sinks see it, without a camera or a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgekit.boards import Conditions, Throttling
from edgekit.contract import Contract, CropSpec, InputSpec, OutputSpec, Subject
from edgekit.device.controls import Controls
from edgekit.device.sinks.context import Account, RunContext, Shutdown
from edgekit.device.sinks.monitor import Monitor, ReadHealth
from edgekit.device.sinks.outputs import OutputOptions
from tests.waiting import PATIENCE_S

LABELS = ("calm", "happy", "sad")
# A board that the firmware has slowed down.
HOT = Conditions(71.5, 1200.0, "firmware", 600.0, 1400.0, "ondemand", Throttling(0x80008), 412, 1.5)


class Source:
    """The attributes of a source that a sink reads."""

    name = "camera"

    def __init__(self, live: bool = True, fps: float | None = 25.0, paths: Sequence[Path] = ()) -> None:
        self.live, self.fps, self.paths = live, fps, paths
        self.frame_count = len(paths) or None
        self.dropped = self.skipped = 0
        self.is_stopped = False

    def stop(self) -> None:
        self.is_stopped = True


class Images:
    """Saved images of events, by name."""

    latest = None

    def __init__(self, images: dict[str, bytes]) -> None:
        self.jpeg = images.get


def contract(labels: Sequence[str] = LABELS, subject: Subject = "face") -> Contract:
    return Contract(
        architecture="mean",
        labels=tuple(labels),
        input=InputSpec("input", (8, 8), "rgb", 1 / 255, (0.0,) * 3, (1.0,) * 3),
        crop=CropSpec(margin=0.0, grayscale=False, resize_hw=(8, 8), center_crop_hw=(8, 8)),
        output=OutputSpec("logits"),
        subject=subject,
    )


def run_of(
    notify: Callable[[str], None],
    source: Source | None = None,
    *,
    labels: Sequence[str] = LABELS,
    subject: Subject = "face",
    end_s: float = PATIENCE_S,
    health: ReadHealth = lambda: None,
    **rules: Any,
) -> RunContext:
    """Return a run of a live source, whose outputs have the shared options `rules` and `end_s` to end."""
    accounts: list[Account] = []
    controls = Controls()
    return RunContext(
        rules=OutputOptions(**rules),
        notify=notify,
        accounts=accounts,
        shutdown=Shutdown(end_s),
        source=source or Source(),
        contract=contract(labels, subject),
        controls=controls,
        monitor=Monitor("demo", health, lambda: accounts, controls),
        say=notify,
    )


def counts(run: RunContext, name: str) -> dict[str, Any]:
    """Return the counts of an output."""
    return next(account.as_document() for account in run.accounts if account.name == name)
