"""The options of `edgekit.teach`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from edgekit.errors import warn
from edgekit.options import Options, option

StageProgress: TypeAlias = Callable[[str, int, int | None], None]

DEFAULT_SIZE_PX = 160


@dataclass(frozen=True, kw_only=True)
class TeachOptions(Options):
    """The options of a teaching.

    Attributes:
        output: The .onnx file.
        image_size_px: Side of the images that the net sees: 96, 128, 160, 192 or 224.
        subject: Whole images, or crops of faces (`edgekit data crop`, `run --collect`).
        threads: Threads of the net; None: chosen for the machine.
        progress: Called with (stage, done, total or None).
        notify: Called with each warning.
    """

    output: str | Path | None = option(
        "--output", "The model file.", short="-o", metavar="FILE.onnx", parse=Path, main=True
    )
    image_size_px: int = option(
        "--image-size",
        "Side of the net's input: 96, 128, 160, 192 or 224. Larger values are more accurate and slower.",
        metavar="PX",
        default=DEFAULT_SIZE_PX,
        main=True,
    )
    # Not `contract.Subject`: importing the contract takes too long for the help.
    subject: Literal["image", "face"] = option(
        "--subject",
        "What is classified: the whole image, or the state of a face, such as 'eyes closed', in crops of faces.",
        default="image",
        main=True,
    )
    threads: int | None = option("--threads", "Threads of the net.", metavar="N", least=1, default_text="by machine")
    progress: StageProgress = lambda _stage, _done, _total: None
    notify: Callable[[str], None] = warn


@dataclass(frozen=True, kw_only=True)
class Teaching(TeachOptions):
    """The arguments of `teach`.

    Attributes:
        pictures: A folder with a folder or a video per class, or the folder of `edgekit data label`.
    """

    pictures: str | Path = field(kw_only=False)
