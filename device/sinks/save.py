"""`--save`: the frames with drawn boxes and labels, as a video or as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.device.sink import Sink, SinkOptions
from edgekit.options import option

if TYPE_CHECKING:
    from edgekit.device.sinks.context import RunContext


@dataclass(frozen=True, kw_only=True)
class SaveOptions(SinkOptions):
    """Options of saved frames."""

    title = "Results"

    save: Path | None = option(
        "--save",
        "Save the frames with boxes and labels. PATH is an .mp4 file; for images, an image file or a folder.",
        metavar="PATH",
        main=True,
    )

    def files(self) -> list[Path]:
        """Return the file, or the folder."""
        return [] if self.save is None else [self.save]

    def open(self, run: RunContext) -> Sink | None:
        """Return the sink for a video or for pictures, by the name of the target."""
        if self.save is None:
            return None
        from edgekit.device.imaging import IMAGE_SUFFIXES
        from edgekit.device.sinks.saved_frames import PictureSink, VideoSink

        # A name without a suffix, or of an existing folder, is a folder of pictures.
        has_pictures = self.save.suffix.lower() in ("", *IMAGE_SUFFIXES) or self.save.is_dir()
        return PictureSink(self.save, run) if has_pictures else VideoSink(self.save, run)
