"""Options of `edgekit.verify`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from edgekit.models.callbacks import Notify, StageProgress, ignore_message, ignore_progress
from edgekit.options import Options, option
from edgekit.shared_options import contempt, threads


@dataclass(frozen=True)
class VerifyOptions(Options):
    """Options of `edgekit.verify`.

    Attributes:
        model: The exported file, .onnx, .ncnn or one of another package's engine, or a shipped model's name.
        progress: Called with (stage, done, total or None).
        notify: Called with one line for the user.
    """

    model: str | Path
    against: str | Path = option(
        "--against",
        "The .safetensors or .onnx file that MODEL was made from.",
        metavar="MODEL",
        parse=str,
        required=True,
    )
    data: str | Path = option(
        "--data", "Data set: class folders, .tar.gz, fer2013.csv or .h5.", metavar="DATA", required=True
    )
    _: KW_ONLY
    split: str = option(
        "--split",
        "Split to compare on. Default: PrivateTest or test.",
        default="PrivateTest",
        metavar="NAME",
        default_text="",
    )
    limit: int | None = option(
        "--limit", "Compare at most N images, spread evenly over the split.", metavar="N", least=1
    )
    contempt: str = contempt()
    threads: int | None = threads()
    progress: StageProgress = ignore_progress
    notify: Notify = ignore_message
