"""Options that several outputs share: rotation, blur, and limits of folders of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgekit.device.sink import SinkOptions
from edgekit.options import option

if TYPE_CHECKING:
    from edgekit.device.sinks.file_series import Rotation

_FILES = ("--jsonl", "--csv", "--save", "--record")
_PICTURES = ("--event-snapshots", "--collect", "--teach")


def _limits(text: str) -> str:
    from edgekit.device.sinks.file_series import parse_limits

    parse_limits(text)
    return text


@dataclass(frozen=True, kw_only=True)
class OutputOptions(SinkOptions):
    """Options that several outputs share."""

    title = "Results"

    rotate_files: str | None = option(
        "--rotate-files",
        "Begin a new file of --jsonl, --csv, --save and --record at this size or after this time: 10MB, 1d or 10MB,1d.",
        metavar="LIMITS",
        parse=_limits,
        needs=_FILES,
    )
    rotate_keep: int = option(
        "--rotate-keep",
        "Number of older files that --rotate-files keeps.",
        default=5,
        least=1,
        most=10_000,
        metavar="N",
        needs="--rotate-files",
    )
    blur_faces: bool = option(
        "--blur-faces",
        "Make faces unrecognisable in --save, --web and --event-snapshots.",
        default=False,
        needs=("--save", "--web", "--event-snapshots"),
    )
    records: Literal["all", "changes"] = option(
        "--records",
        "Frames of which --jsonl and --csv get records. changes: those in which faces or labels have changed, and one "
        "per second.",
        default="all",
        needs=("--jsonl", "--csv"),
    )
    pictures_max_mb: float = option(
        "--pictures-max-mb",
        "Largest size of each folder of pictures, in megabytes. When it is reached, --event-snapshots deletes its "
        "oldest pictures; --collect and --teach save no more.",
        default=200.0,
        least=0.001,
        most=1_000_000,
        metavar="MB",
        needs=_PICTURES,
    )

    @property
    def rotation(self) -> Rotation:
        """When a new file begins, and how many older ones are kept."""
        from edgekit.device.sinks.file_series import Rotation, parse_limits

        size_bytes, age_s = parse_limits(self.rotate_files) if self.rotate_files else (None, None)
        return Rotation(size_bytes, age_s, self.rotate_keep)
