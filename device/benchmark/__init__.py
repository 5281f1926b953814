"""Measures models on this machine: options of `edgekit.benchmark`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import warn
from edgekit.options import Options, option
from edgekit.shared_options import MAX_THREADS, detector

if TYPE_CHECKING:
    from edgekit.device.benchmark.rounds import BenchmarkProgress
    from edgekit.report.document import Kind


def _thread_counts(text: str) -> tuple[int, ...]:
    """Return the numbers of a text such as "1,2,4"; raise ValueError for another text, or for a repeated number."""
    parts = text.split(",")
    if not all(re.fullmatch("[0-9]{1,4}", part) and 1 <= int(part) <= MAX_THREADS for part in parts):
        raise ValueError(f"'{text}' is not a list of numbers from 1 to {MAX_THREADS}, such as 1,2,4")
    counts = tuple(map(int, parts))
    if twice := next((count for count in counts if counts.count(count) > 1), None):
        raise ValueError(f"thread count given twice: {twice}")
    return counts


def _note(text: str) -> tuple[str, str]:
    """Return key and value of the text `KEY=VALUE`; raise ValueError if it is not of this form, or too long."""
    key, separator, value = text.partition("=")
    if not (key and separator and text.isprintable() and len(key) <= 100 and len(value) <= 200):
        raise ValueError(f"'{text}' is not KEY=VALUE, such as fan=none")
    return key, value


@dataclass(frozen=True)
class BenchmarkOptions(Options):
    """Options of `edgekit.benchmark`.

    Attributes:
        models: One or several .onnx or .ncnn files, or names such as "default".
        kinds: What to measure, see `Cell`; None: all.
        detector_size_px: Longer side of the detector's input image; None: 320, or the fixed size of the file.
        seed: Determines the order of the cells.
        report_name: Returns the name of a model or source in the report; default: as it is given.
        progress: Called before and after each process.
        notify: Receives warnings.
    """

    title = "Measurement"
    models: str | Path | Sequence[str | Path]
    _: KW_ONLY
    kinds: Sequence[Kind] | None = None
    threads: Sequence[int] | None = option(
        "--threads",
        "Numbers of threads. Default: 1 and the number of processors; for `run`, the numbers that `edgekit run` "
        "chooses.",
        metavar="1,2,4",
        parse=_thread_counts,
    )
    seconds: float = option(
        "--seconds",
        "Minimum time per cell, shared by its processes.",
        default=10.0,
        metavar="SECONDS",
        least=0.01,
        most=3600,
    )
    processes: int = option(
        "--processes", "Processes per cell; an interval needs at least three.", default=3, least=1, most=100
    )
    batch: int = option("--batch", "Faces or images per inference of `net`.", default=1, least=1, most=1024)
    source: str = option(
        "--source",
        "Frame source of `frame` and `run`.",
        default="demo",
        metavar="URI",
        excludes=("--no-pipeline", "--formats"),
        section="Frames",
    )
    detector: str | Path | None = detector(excludes=("--no-pipeline", "--formats"), section="Frames")
    detector_size_px: int | None = None
    seed: int = 0
    cool_down_s: float = option(
        "--cool-down",
        "Longest pause between processes, in which the board cools down.",
        default=20.0,
        metavar="SECONDS",
        least=0,
        most=3600,
        section="Conditions",
    )
    allow_throttled: bool = option(
        "--allow-throttled",
        "Keep measurements of a throttled board instead of repeating them.",
        default=False,
        section="Conditions",
    )
    notes: Mapping[str, str] | Sequence[tuple[str, str]] = option(
        "--note",
        "Note a condition that no program detects, such as fan=none. Repeatable.",
        default=(),
        metavar="KEY=VALUE",
        parse=_note,
        several=True,
        section="Conditions",
    )
    report_name: Callable[[str], str] = lambda name: name
    progress: Callable[[BenchmarkProgress], None] = lambda _: None
    notify: Callable[[str], None] = warn
