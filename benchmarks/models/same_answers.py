"""Whether `edgekit eval` and `edgekit run --detector none --uncertain-below 0` give every picture the same label.

    python benchmarks/models/same_answers.py --fer2013 fer2013.tar.gz --photos photos.tar

Compared are the pictures of FER-2013's PublicTest, the photographs as whole images, and 200 made pictures of odd sizes
and formats. Prints the number of pictures and of different labels for each; the exit code is 1 if a label differs.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

import edgekit
from edgekit.contract import Contract
from edgekit.errors import EdgekitError
from edgekit.models.evaluation.run import evaluate, read_evaluation_data

_FORMATS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("jpg", "RGB", {"quality": 90}),
    ("jpg", "L", {"quality": 90}),
    ("jpg", "CMYK", {"quality": 90}),
    ("png", "RGB", {}),
    ("png", "RGBA", {}),
    ("png", "LA", {}),
    ("png", "P", {}),
    ("png", "1", {}),
    ("webp", "RGBA", {"lossless": True}),
    ("gif", "P", {}),
    ("tiff", "RGBA", {}),
    ("bmp", "RGB", {}),
)
_ORIENTATION_TAG = 0x0112


@click.command()
@click.option("--fer2013", type=click.Path(path_type=Path), required=True, help="FER-2013 as image files.")
@click.option("--photos", type=click.Path(path_type=Path), help="Folder or archive of class folders.")
@click.option("--model", default="default", show_default=True)
@click.option("--made", default=200, show_default=True, help="Number of made pictures.")
def main(fer2013: Path, photos: Path | None, model: str, made: int) -> None:
    """Compare the labels of eval and run on every picture."""
    different = 0
    try:
        with tempfile.TemporaryDirectory() as name:
            draw_pictures(Path(name), made)
            parts = [("FER-2013", fer2013, "PublicTest"), ("photographs", photos, "all"), ("made", Path(name), "all")]
            for title, data, split in reversed(parts):
                if data is not None:
                    different += compare(title, data, split, model)
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(1 if different else 0)


def compare(title: str, data: Path, split: str, model: str) -> int:
    """Print how many pictures of a split have different labels in eval and run, and return the number."""
    with unpacked(data) as folder:
        contract: Contract = edgekit.load_model(model).contract
        read = read_evaluation_data(folder, contract.crop.resize_hw[0], contract.crop.fit)
        names = read.split(split).names
        assert names is not None
        result = evaluate(model, read, split=split)
        labels = np.array(contract.labels)[result.logits.argmax(axis=1)].tolist()
        evaluated = dict(zip(names.tolist(), labels, strict=True))
        ran = dict(labels_of_run(folder, model, evaluated))
    missing = sorted(set(evaluated) - set(ran))
    differ = [name for name in evaluated if name in ran and ran[name] != evaluated[name]]
    print(
        f"{title}: {len(evaluated)} pictures, {len(differ)} labels differ, {len(missing)} not read by run", flush=True
    )
    for name in (differ + missing)[:5]:
        print(f"  {name}: eval {evaluated[name]}, run {ran.get(name)}")
    return len(differ) + len(missing)


def labels_of_run(folder: Path, model: str, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield name and label of each picture in `names`, as `edgekit run` without detector and threshold returns them."""
    with tempfile.TemporaryDirectory() as links:
        linked: dict[str, str] = {}
        for path in folder.rglob("*.*"):
            parts = path.relative_to(folder).parts  # names start below the data's common folder
            ends = ("/".join(parts[start:]) for start in range(len(parts)))
            if (name := next((end for end in ends if end in names), None)) is not None:
                link = Path(links) / f"{len(linked)}{path.suffix}"
                link.symlink_to(path)
                linked[link.name] = name
        with edgekit.stream(source=links, model=model, detector="none", uncertain_below=0) as results:
            for result in results:
                yield linked[Path(result.file or "").name], result.faces.labels[0]


@contextmanager
def unpacked(data: Path) -> Iterator[Path]:
    """Yield a folder with the files of a folder or an archive."""
    if data.is_dir():
        yield data
        return
    folder = Path(tempfile.mkdtemp(prefix="same-answers-"))
    try:
        with tarfile.open(data) as archive:
            archive.extractall(folder, filter="data")
        yield folder
    finally:
        shutil.rmtree(folder)


def draw_pictures(folder: Path, count: int) -> None:
    """Write `count` pictures of odd sizes, formats, colour modes and orientations as one class of a data set."""
    generator = np.random.default_rng(0)
    (folder / "happy").mkdir()
    for index in range(count):
        suffix, mode, options = _FORMATS[index % len(_FORMATS)]
        width, height = (int(2 ** generator.uniform(0, 9.5)) for _ in range(2))
        coarse = generator.integers(0, 256, (5, 5, 4), dtype=np.uint8)
        image = Image.fromarray(coarse, "RGBA").resize((width, height), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[_ORIENTATION_TAG] = int(generator.integers(1, 9))
        more = {"exif": exif} if suffix in ("jpg", "png", "webp") else {}
        opaque = image.convert("RGB")
        converted = image if mode == "RGBA" else image.convert("LA") if mode == "LA" else opaque.convert(mode)
        converted.save(folder / "happy" / f"{index}.{suffix}", **options, **more)


if __name__ == "__main__":
    main()
