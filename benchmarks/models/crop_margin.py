"""Margin by which a detector's box must be widened so that a face is framed as in FER-2013.

    python benchmarks/models/crop_margin.py --data fer2013.tar.gz --model fer2013 --detector-model yunet.onnx

Faces of a split are enlarged and pasted into larger frames, detected, cropped by the runtime's code with several
margins and vertical shifts, and classified. Prints, for the faces that were detected: the accuracy minus the accuracy
on the original pictures of the same faces, in percentage points; the number of faces; and the position of the boxes
relative to the square into which the face was pasted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from edgekit.contract import CropSpec
from edgekit.device.detection import DETECTOR_NAMES, Detector, create_detector
from edgekit.device.engines.classifier import Classifier
from edgekit.device.imaging import resize
from edgekit.device.region import DEFAULT_INPUT_SIZE_PX
from edgekit.errors import EdgekitError
from edgekit.model_store import resolve_model
from edgekit.models.data.readers import load_dataset
from edgekit.preprocess import FloatArray, ImageU8, crop_face, crop_image

FRAME_WH = (640, 480)
FACE_SIDES_PX = (120, 260)
BACKGROUNDS = ("border", "mean")
MARGINS = (-0.05, -0.025, 0.0, 0.025, 0.05, 0.1, 0.15)
SHIFTS = (-0.05, 0.0, 0.05)
_CLEARANCE_PX = 60


@dataclass(frozen=True)
class Pasted:
    """A frame with one face and the square it was pasted into, (left, top, right, bottom)."""

    frame_bgr: ImageU8
    xyxy: tuple[int, int, int, int]


@dataclass(frozen=True)
class Result:
    """Result of one detector and background.

    `box` is the median position of the boxes relative to the true square, with the square's side as the unit: x and y
    offset of the centre, width, height. `exact_points` and `points[shift][margin]` are the accuracy on crops at the
    true square and at the box, minus the accuracy on the original pictures, in percentage points.
    """

    detector: str
    background: str
    faces: int
    found: int
    original_accuracy: float
    exact_points: float
    box: tuple[float, float, float, float]
    points: dict[str, dict[str, float]]


def paste(face_gray: ImageU8, background: str, rng: np.random.Generator) -> Pasted:
    """Return a frame with the face pasted into it; its background is the face's blurred border or mean gray."""
    side = int(rng.integers(*FACE_SIDES_PX))
    face = cv2.resize(face_gray, (side, side), interpolation=cv2.INTER_CUBIC)
    width, height = FRAME_WH
    left = int(rng.integers(_CLEARANCE_PX, width - side - _CLEARANCE_PX))
    top = int(rng.integers(_CLEARANCE_PX, height - side - _CLEARANCE_PX))
    if background == "mean":
        frame = np.full((height, width), face.mean().round(), np.uint8)
    else:
        frame = cv2.copyMakeBorder(face, top, height - top - side, left, width - left - side, cv2.BORDER_REPLICATE)
        frame = cv2.GaussianBlur(frame, (0, 0), side / 12)
    frame[top : top + side, left : left + side] = face
    return Pasted(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR), (left, top, left + side, top + side))


def measure(
    images: ImageU8,
    labels: NDArray[np.int64],
    classifier: Classifier,
    detector: Detector,
    background: str,
    margins: Sequence[float],
    shifts: Sequence[float],
    seed: int,
) -> Result:
    """Return the result of one detector and background for gray images (N, 48, 48)."""
    rng = np.random.default_rng(seed)
    crop, size_hw = classifier.contract.crop, classifier.contract.input.size_hw
    pasted, boxes, originals, kept_labels = [], [], [], []
    for image, label in zip(images, labels, strict=True):
        candidate = paste(image, background, rng)
        found = detector.detect(candidate.frame_bgr)
        if len(found):
            pasted.append(candidate)
            boxes.append(found.xyxy[0])
            originals.append(crop_image(image, crop, size_hw, resize))
            kept_labels.append(label)
    if not boxes:
        raise click.ClickException(f"{detector.name} detected none of {len(images)} faces")
    wanted = np.array(kept_labels)

    def accuracy(crops: list[ImageU8]) -> float:
        return float((classifier.logits(np.stack(crops)).argmax(axis=1) == wanted).mean())

    def cut(xyxy: Sequence[FloatArray] | Sequence[tuple[int, int, int, int]], spec: CropSpec) -> list[ImageU8]:
        return [crop_face(p.frame_bgr, box, spec, size_hw, resize) for p, box in zip(pasted, xyxy, strict=True)]

    original = accuracy(originals)
    exact = accuracy(cut([p.xyxy for p in pasted], replace(crop, margin=0.0)))
    points = {
        f"{shift:g}": {
            f"{margin:g}": round(
                100 * (accuracy(cut([shifted(b, shift) for b in boxes], replace(crop, margin=margin))) - original), 2
            )
            for margin in margins
        }
        for shift in shifts
    }
    lies = np.median([relative(box, p.xyxy) for box, p in zip(boxes, pasted, strict=True)], axis=0)
    return Result(
        detector=detector.name,
        background=background,
        faces=len(images),
        found=len(boxes),
        original_accuracy=original,
        exact_points=round(100 * (exact - original), 2),
        box=(float(lies[0]), float(lies[1]), float(lies[2]), float(lies[3])),
        points=points,
    )


def shifted(xyxy: FloatArray, shift: float) -> FloatArray:
    """Return a box moved down by a fraction of its mean side."""
    side = (xyxy[2] - xyxy[0] + xyxy[3] - xyxy[1]) / 2
    return xyxy + np.array([0, shift, 0, shift], np.float32) * side


def relative(xyxy: FloatArray, true_xyxy: tuple[int, int, int, int]) -> FloatArray:
    """Return a box relative to the true square, in units of its side: centre offset x and y, width, height."""
    side = true_xyxy[2] - true_xyxy[0]
    centre = (xyxy[:2] + xyxy[2:]) / 2 - (np.array(true_xyxy[:2]) + side / 2)
    return np.concatenate((centre, xyxy[2:] - xyxy[:2])).astype(np.float32) / np.float32(side)


def show(result: Result, console: Console) -> None:
    """Print one result."""
    x, y, width, height = result.box
    table = Table(
        title=f"{result.detector} on background '{result.background}': {result.found} of {result.faces} found, "
        f"originals {result.original_accuracy:.2%}, cut at the true square {result.exact_points:+.2f} points\n"
        f"median box: centre {x:+.3f} {y:+.3f}, width {width:.3f}, height {height:.3f}",
        title_justify="left",
    )
    table.add_column("shift down \\ margin")
    for margin in next(iter(result.points.values())):
        table.add_column(margin, justify="right")
    for shift, row in result.points.items():
        table.add_row(shift, *[f"{value:+.1f}" for value in row.values()])
    console.print(table)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="FER-2013 in any form edgekit reads.")
@click.option("--split", default="PublicTest", show_default=True)
@click.option("--model", default="fer2013", show_default=True, help="The classifier, an exported .onnx.")
@click.option("--detector", "names", type=click.Choice(DETECTOR_NAMES), multiple=True, default=("yunet", "haar"))
@click.option("--detector-model", type=click.Path(path_type=Path), help="YuNet's .onnx file.")
@click.option("--detector-size", type=int, default=DEFAULT_INPUT_SIZE_PX, show_default=True)
@click.option("--background", "backgrounds", type=click.Choice(BACKGROUNDS), multiple=True, default=BACKGROUNDS)
@click.option("--faces", type=click.IntRange(min=1), default=600, show_default=True)
@click.option("--margin", "margins", type=float, multiple=True, default=MARGINS, show_default=True)
@click.option("--shift", "shifts", type=float, multiple=True, default=SHIFTS, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    data: Path,
    split: str,
    model: str,
    names: tuple[str, ...],
    detector_model: Path | None,
    detector_size: int,
    backgrounds: tuple[str, ...],
    faces: int,
    margins: tuple[float, ...],
    shifts: tuple[float, ...],
    seed: int,
    as_json: bool,
) -> None:
    """Measure crop margins for FACES faces chosen by SEED."""
    try:
        part = load_dataset(data).split(split)
        classifier = Classifier(resolve_model(model, (".onnx",)))
        detectors = [
            create_detector(
                name,
                model_path=detector_model if name == "yunet" else None,
                input_size_px=detector_size,
                notify=lambda text: click.echo(text, err=True),
            )
            for name in names
        ]
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error
    chosen = np.random.default_rng(seed).permutation(len(part))[:faces]
    images, labels = part.images[chosen, :, :, 0], part.labels[chosen]
    console = Console(stderr=as_json)
    results = []
    for detector in detectors:
        for background in backgrounds:
            results.append(measure(images, labels, classifier, detector, background, margins, shifts, seed))
            show(results[-1], console)
    if as_json:
        click.echo(json.dumps([asdict(result) for result in results], indent=2))


if __name__ == "__main__":
    main()
