"""The data sets of HiCroPL's tables: where CoOp's instructions put them, and their sizes.

CoOp: github.com/KaiyangZhou/CoOp, DATASETS.md. The sizes, used for the estimate only, are those of CoOp's splits
(arXiv 2109.01134, appendix A).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import InputError

TABLES = ("base-to-novel", "few-shot", "cross-dataset", "domain")
FEW_SHOTS = (1, 2, 4, 8, 16)
SHOTS = 16


@dataclass(frozen=True)
class Source:
    """A data set below the folder of all: its path, and its numbers of classes and of test images."""

    path: str
    classes: int
    test_images: int


IMAGENET = "ImageNet"
DATA_SETS: Mapping[str, Source] = {
    IMAGENET: Source("imagenet", 1000, 50_000),
    "Caltech101": Source("caltech-101/split_zhou_Caltech101.json", 100, 2_465),
    "OxfordPets": Source("oxford_pets/split_zhou_OxfordPets.json", 37, 3_669),
    "StanfordCars": Source("stanford_cars/split_zhou_StanfordCars.json", 196, 8_041),
    "OxfordFlowers": Source("oxford_flowers/split_zhou_OxfordFlowers.json", 102, 2_463),
    "Food101": Source("food-101/split_zhou_Food101.json", 101, 30_300),
    "FGVCAircraft": Source("fgvc_aircraft", 100, 3_333),
    "SUN397": Source("sun397/split_zhou_SUN397.json", 397, 19_850),
    "DescribableTextures": Source("dtd/split_zhou_DescribableTextures.json", 47, 1_692),
    "EuroSAT": Source("eurosat/split_zhou_EuroSAT.json", 10, 8_100),
    "UCF101": Source("ucf101/split_zhou_UCF101.json", 101, 3_783),
}
SHIFTED: Mapping[str, Source] = {
    "ImageNetV2": Source("imagenetv2", 1000, 10_000),
    "ImageNetSketch": Source("imagenet-sketch", 1000, 50_889),
    "ImageNetA": Source("imagenet-adversarial", 200, 7_500),
    "ImageNetR": Source("imagenet-rendition", 200, 30_000),
}


@dataclass(frozen=True)
class Run:
    """One training of a table: data set, images per class, seed, and the data sets it is evaluated on besides."""

    table: str
    dataset: str
    shots: int
    seed: int
    targets: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the file of results, without suffix."""
        return f"{self.dataset}-{self.shots}-shots-seed-{self.seed}"

    def folder(self, output: Path) -> Path:
        """Folder of the training; "cross-dataset" and "domain" share theirs, because they train the same prompts."""
        return output / "trainings" / ("transfer" if self.targets else self.table) / self.name


def planned(table: str, seeds: int, shots: Sequence[int] = (), only: Sequence[str] = ()) -> Iterator[Run]:
    """Yield the trainings of a table.

    Args:
        table: One of `TABLES`.
        seeds: Number of seeds, from 1 as the authors'.
        shots: Images per class; default: 1, 2, 4, 8 and 16 for "few-shot", else 16.
        only: Data sets to train on, or for "cross-dataset" and "domain" to evaluate on; default: all.

    Raises:
        InputError: The table has no such data set.
    """
    is_transfer = table in ("cross-dataset", "domain")
    rows = [name for name in (SHIFTED if table == "domain" else DATA_SETS) if not (is_transfer and name == IMAGENET)]
    for name in only:
        if name not in rows:
            raise InputError(f"table {table} has no data set '{name}': it has {', '.join(rows)}")
    chosen = tuple(name for name in rows if not only or name in only)
    for count in shots or (FEW_SHOTS if table == "few-shot" else (SHOTS,)):
        for name, targets in [(IMAGENET, chosen)] if is_transfer else [(name, ()) for name in chosen]:
            yield from (Run(table, name, count, seed, targets) for seed in range(1, seeds + 1))


def source_of(name: str) -> Source:
    """Return a data set of the tables."""
    return (DATA_SETS | SHIFTED)[name]


def require_data(runs: Sequence[Run], data: Path) -> None:
    """Check that all data sets of the trainings are there.

    Raises:
        InputError: Some are missing.
    """
    wanted = dict.fromkeys(name for run in runs for name in (run.dataset, *run.targets))
    missing = [source_of(name).path for name in wanted if not (data / source_of(name).path).exists()]
    if missing:
        raise InputError(f"'{data}' lacks {', '.join(missing)}: add them, or choose data sets by --only")


# Multiply-accumulates of ViT-B/16 (10^9): an image through the image tower without and with 16 prompt tokens, a class
# through the text tower. The backward pass through frozen weights computes gradients of activations only, and so costs
# as much as the forward pass.
_IMAGE, _PROMPTED_IMAGE, _CLASS = 17.6, 19.1, 2.98


def peta_operations(run: Run, epochs: int, batch: int) -> float:
    """Return the estimated floating-point operations of a training and its evaluation with ViT-B/16, in 10^15."""
    source = source_of(run.dataset)
    classes = (source.classes + 1) // 2 if run.table == "base-to-novel" else source.classes
    evaluated = _IMAGE + _PROMPTED_IMAGE
    step = batch * (_IMAGE + 2 * _PROMPTED_IMAGE) + classes * 2 * _CLASS
    steps = epochs * max(classes * run.shots // batch, 1)
    validation = epochs * (classes * min(run.shots, 4) * evaluated + classes * _CLASS)
    test = sum(source_of(name).test_images for name in (run.dataset, *run.targets)) * evaluated
    return 2 * (steps * step + validation + test) * 1e-6
