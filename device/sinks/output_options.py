"""Options that several outputs share: rotation, disk reserve, blur, and limits of folders of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgekit.device.sink import SinkOptions
from edgekit.options import option, parse_bytes

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
        "Begin a new file of --jsonl, --csv, --save and --record at this size or after this time, and keep N older "
        "ones (5): 10MB, 1d or 10MB,1d,keep=20.",
        metavar="LIMITS",
        parse=_limits,
        needs=_FILES,
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
    disk_reserve: int | None = option(
        "--disk-reserve",
        "Free space that a live run leaves on the disk. Videos pause when less is free, pictures when less than a "
        "half of it is free, records at a quarter. Default: 5 % of the disk, at most 256MiB.",
        metavar="SIZE",
        parse=parse_bytes,
        needs=(*_FILES, *_PICTURES),
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

        return parse_limits(self.rotate_files) if self.rotate_files else Rotation()
