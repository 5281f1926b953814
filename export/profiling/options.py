"""Options of `edgekit.profile`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from edgekit.known_boards import KNOWN_BOARDS
from edgekit.models.callbacks import Notify, StageProgress, ignore_message, ignore_progress
from edgekit.options import Options, option


@dataclass(frozen=True)
class ProfileOptions(Options):
    """Options of `edgekit.profile`.

    Attributes:
        model: Any .onnx file, or a shipped model's name.
        progress: Called with (stage, done, total or None).
        notify: Called with one line for the user.
    """

    model: str | Path
    _: KW_ONLY
    board: str | None = option(
        "--board", "Estimate the latency on this board only. Default: all boards.", metavar="|".join(KNOWN_BOARDS)
    )
    pipeline: bool = option(
        "--pipeline", "Also estimate the whole loop at 640x480: camera, detector, classifier.", default=False
    )
    detector: Path | None = option(
        "--detector",
        "YuNet's .onnx file. Default: the file is downloaded once.",
        metavar="FILE",
        needs="--pipeline",
    )
    progress: StageProgress = ignore_progress
    notify: Notify = ignore_message
