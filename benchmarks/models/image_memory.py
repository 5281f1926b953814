"""Peak memory of `edgekit.evaluate` and `edgekit.distill` with decoded images in memory and on the disk.

\b
    python benchmarks/models/image_memory.py eval --cache disk

Makes pictures of 224 x 224 pixels of two classes. `eval` classifies them at that size, with a classifier that computes
nothing; `distill` trains mini-xception for one epoch at 48 pixels. Prints the largest size of anonymous memory: pages
of a mapped file, which the system can free when it needs memory, are not part of it.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np

import edgekit
from edgekit.contract import Contract
from edgekit.models.checkpoints.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.data import disk
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import create_model
from edgekit.preprocess import FloatArray, ImageU8

SIDE_PX = 224
_CLASSES = ("a", "b")


@dataclass(frozen=True)
class Constant:
    """Classifier that gives the same logits for all images."""

    contract: Contract

    def logits(self, crops: ImageU8) -> FloatArray:
        """Return logits (N, labels)."""
        return np.zeros((len(crops), len(self.contract.labels)), np.float32)


def make_pictures(folder: Path, count: int) -> None:
    """Write `count` pictures, all different."""
    generator = np.random.default_rng(0)
    background = cv2.resize(generator.integers(0, 255, (7, 7, 3), np.uint8), (SIDE_PX, SIDE_PX))
    for index in range(count):
        image = cv2.putText(background.copy(), str(index), (5, 120), 0, 1.5, (255, 255, 255), 2)
        file = folder / ("test" if index % 10 == 0 else "train") / _CLASSES[index // 10 % 2] / f"{index}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), image)


@contextmanager
def peak_anonymous_mb() -> Iterator[list[float]]:
    """Measure the anonymous memory of this process every 20 ms; the list's only element is the largest value, in MB."""
    peak, ended = [0.0], threading.Event()

    def sample() -> None:
        while not ended.wait(0.02):
            fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            peak[0] = max(peak[0], int(fields["RssAnon"].split()[0]) * 1.024e-3)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


@click.command(help=__doc__)
@click.argument("command", type=click.Choice(["eval", "distill"]))
@click.option("--cache", type=click.Choice(["memory", "disk"]), required=True)
@click.option("--images", type=int, default=20_000, show_default=True)
def main(command: str, cache: str, images: int) -> None:
    """Print one line."""
    disk.fits_in_memory = lambda _size_bytes: cache == "memory"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pictures(folder / "data", images)
        with peak_anonymous_mb() as peak:
            if command == "eval":
                contract = contract_for("mini-xception", _CLASSES, "made", gray=False, image_size_px=SIDE_PX)
                edgekit.evaluate(Constant(contract), folder / "data", split="train", threads=1, notify=click.echo)
            else:
                _distill(folder)
    click.echo(f"{command}, {images} images, {cache}: at most {peak[0]:.0f} MB of anonymous memory")


def _distill(folder: Path) -> None:
    contract = contract_for("mini-xception", _CLASSES, "made", gray=False)
    net = create_model("mini-xception", len(_CLASSES))
    save_checkpoint(folder / "teacher.safetensors", Checkpoint(contract, net.state_dict(), {}))
    edgekit.distill(
        teachers=[str(folder / "teacher.safetensors")],
        data=folder / "data",
        output=folder / "run",
        student="mini-xception",
        views="center",
        recipe="fer2013-start",
        epochs=1,
        threads=1,
        precision="fp32",
        notify=click.echo,
    )


if __name__ == "__main__":
    main()
