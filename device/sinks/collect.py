"""`--collect`: crops for labelling, saved while a run goes on.

    DIR/crops/RUN-00001.png     the part of the frame that the classifier saw, before its resizing
    DIR/crops.jsonl             file, time, label, probabilities, track, score, source

`edgekit.device.label` shows them in a browser and sorts them into class folders.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.device.sink import Sink, SinkOptions
from edgekit.options import option, parse_seconds

if TYPE_CHECKING:
    from edgekit.device.sinks.context import RunContext
    from edgekit.device.sinks.crop_strategies import Strategy

_DEFAULT_MARGIN = 0.3
_LEAST_INTERVAL_S = 0.1


def parse_when(text: str) -> tuple[str, float]:
    """Return the name of a strategy of --collect-when and its number: margin, seconds, or 0 if it has none.

    Raises:
        ValueError: The text is not a strategy.
    """
    name, colon, value = text.partition(":")
    number = 0.0
    try:
        if name == "uncertain":
            number = float(value) if colon else _DEFAULT_MARGIN
            is_valid = 0 < number <= 1
        elif name == "every":
            number = parse_seconds(value)
            is_valid = number >= _LEAST_INTERVAL_S
        else:
            is_valid = text == "best-of-track"
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError(
            f"'{text}' is not a strategy: write uncertain, uncertain:0.2 (a margin of 0 to 1), every:10s or "
            "best-of-track"
        )
    return name, number


def _checked_when(text: str) -> str:
    parse_when(text)
    return text


@dataclass(frozen=True, kw_only=True)
class CollectOptions(SinkOptions):
    """Options of collecting."""

    title = "Collecting"

    collect: Path | None = option(
        "--collect",
        "Save crops of faces or images in DIR, for labelling with `edgekit data label DIR`.",
        metavar="DIR",
        excludes="--blur-faces",
        main=True,
    )
    collect_when: str = option(
        "--collect-when",
        "Which crops are saved. uncertain: those whose two largest probabilities differ by less than 0.3; "
        "uncertain:0.2 sets another difference. every:10s: all faces of a frame every 10 seconds. best-of-track: one "
        "crop of each face.",
        default="uncertain",
        metavar="STRATEGY",
        parse=_checked_when,
        needs="--collect",
    )

    def files(self) -> list[Path]:
        """Return the table of the crops, which no other output may write."""
        from edgekit.device.sinks.picture_folder import CROPS_FILE

        return [] if self.collect is None else [self.collect / CROPS_FILE]

    def folders(self) -> list[Path]:
        """Return the folder of the crops."""
        return [] if self.collect is None else [self.collect]

    def open(self, run: RunContext) -> Sink | None:
        """Return the sink.

        Raises:
            InputError: The folder is a file.
        """
        if self.collect is None:
            return None
        from edgekit.device.sinks.crop_strategies import CollectSink

        return CollectSink(self._strategy(run), self.collect, run)

    def _strategy(self, run: RunContext) -> Strategy:
        """Return the strategy of --collect-when; of images without times, `every` saves the crops of each."""
        from edgekit.device.sinks.crop_strategies import EveryInterval, best_of_track, uncertain

        name, number = parse_when(self.collect_when)
        if name == "uncertain":
            return uncertain(number)
        if name == "best-of-track":
            return best_of_track()
        has_times = run.source.live or run.source.fps is not None  # a camera or a video
        return EveryInterval(number if has_times else 0.0)
