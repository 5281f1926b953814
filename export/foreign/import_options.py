"""Options of `edgekit import` for an ONNX classifier; read without importing onnx."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.options import Options, option


def numbers(text: str) -> tuple[float, ...]:
    """Return the numbers of a text such as "0.5,0.5,0.5".

    Raises:
        ValueError: The text is something else.
    """
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise ValueError(f"'{text}': expected numbers separated by commas") from error


def read_labels(text: str) -> tuple[str, ...]:
    """Return the classes of a text "a,b,c", or of a text file with one class per line.

    Raises:
        InputError: The file does not exist, or is no text.
    """
    path = Path(text)
    if path.suffix != ".txt":
        return tuple(name.strip() for name in text.split(","))
    try:
        lines = require_file(path, "file of labels").read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"file of labels '{text}' is not UTF-8 text: save it as UTF-8") from error
    return tuple(line.strip() for line in lines if line.strip())


@dataclass(frozen=True, kw_only=True)
class ImportOptions(Options):
    """What `import_onnx` does not find in the file; an option replaces a statement of the file."""

    title = "ONNX classifier"

    image_size: int | None = option("--image-size", "Side of the input.", metavar="PX", least=1, most=1024)
    # Not the types of `contract`: importing it takes too long for the help.
    channels: Literal["rgb", "bgr", "gray"] | None = option(
        "--channels", "Colour order of the input.", default_text="rgb; of a checkpoint gray"
    )
    mean: tuple[float, ...] | None = option(
        "--mean",
        "Mean per channel, with which the net's input is (pixel - mean) / std. Pixels are 0 to 1; if a value of --mean "
        "or --std is above 1, they are 0 to 255.",
        metavar="X,Y,Z",
        parse=numbers,
        default_text="ImageNet's",
        needs="--std",
    )
    std: tuple[float, ...] | None = option(
        "--std", "Standard deviation per channel, see --mean.", metavar="X,Y,Z", parse=numbers, needs="--mean"
    )
    fit: Literal["square", "pad", "stretch"] | None = option(
        "--fit", "How images become square.", default_text="square"
    )
    subject: Literal["face", "image"] = option(
        "--subject", "What the model classifies: each detected face, or the whole image.", default="image"
    )
