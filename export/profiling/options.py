"""Options of `edgekit.profile`."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from edgekit.known_boards import KNOWN_BOARDS
from edgekit.models.callbacks import Notify, StageProgress, ignore_message, ignore_progress
from edgekit.options import Options, option
from edgekit.shared_options import MAX_THREADS

_MAX_SIDE_PX = 8192


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None or not all(1 <= int(side) <= _MAX_SIDE_PX for side in match.groups()):
        raise ValueError(f"'{text}' is not a size such as 320x240, at most {_MAX_SIDE_PX} px per side")
    return int(match[1]), int(match[2])


@dataclass(frozen=True, kw_only=True)
class LoopOptions(Options):
    """Settings of the estimate of the whole loop for one face: capture, YuNet, optical flow, classifier.

    For a model that classifies whole images all settings except `classify_every` must have their defaults.
    """

    title = "Whole loop"
    detect_every: int = option(
        "--detect-every",
        "With --pipeline: the detector runs on every Nth frame.",
        default=5,
        least=1,
        most=1000,
        needs="--pipeline",
    )
    classify_every: int = option(
        "--classify-every",
        "With --pipeline: the face is classified in every Nth frame.",
        default=1,
        least=1,
        most=1000,
        needs="--pipeline",
    )
    detector_model: Path | None = option(
        "--detector",
        "YuNet's .onnx file. Default: the file is downloaded once.",
        metavar="FILE",
        needs="--pipeline",
    )


@dataclass(frozen=True)
class ProfileOptions(Options):
    """Options of `edgekit.profile`.

    Attributes:
        model: Any .onnx file, or a shipped model's name.
        loop: Settings of an estimate of the whole loop at 640x480; None: no such estimate.
        progress: Called with (stage, done, total or None).
        notify: Called with one line for the user.
    """

    model: str | Path
    _: KW_ONLY
    board: str | None = option(
        "--board", "Estimate the latency on this board only. Default: all boards.", metavar="|".join(KNOWN_BOARDS)
    )
    size_wh: tuple[int, int] | None = option(
        "--size", "Size of inputs whose height and width are dynamic.", metavar="WxH", parse=_size
    )
    seconds: float = option(
        "--seconds",
        "Duration of the measurement of the layers; 0: no measurement.",
        default=2.0,
        metavar="SECONDS",
        least=0,
        most=3600,
    )
    threads: int = option(
        "--threads", "Threads of the measurement of the layers.", default=1, least=1, most=MAX_THREADS
    )
    loop: LoopOptions | None = None
    progress: StageProgress = ignore_progress
    notify: Notify = ignore_message
