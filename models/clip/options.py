"""Options of the evaluation of a CLIP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.options import Options, option


@dataclass(frozen=True, kw_only=True)
class ClipOptions(Options):
    """Which CLIP is evaluated, and how its classes are described."""

    title = "CLIP"
    clip: str | None = option(
        "--clip",
        "The CLIP that the prompts were trained for, or the CLIP to evaluate zero-shot.",
        metavar="FILE|DIR|NAME",
        needs="--data",
    )
    descriptions: Path | None = option(
        "--descriptions",
        "JSON file of sentences for each class. Default: the sentences of the training.",
        metavar="FILE",
        needs="--clip",
    )
    activation: Literal["gelu", "quick-gelu"] | None = option(
        "--activation",
        "Activation function of the CLIP, if its file does not name it. OpenAI's weights need quick-gelu.",
        needs="--clip",
    )
