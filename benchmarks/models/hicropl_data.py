"""The data sets of HiCroPL's tables: where CoOp's instructions put them, and their sizes.

CoOp: github.com/KaiyangZhou/CoOp, DATASETS.md. The sizes, used for the estimate only, are those of CoOp's splits
(arXiv 2109.01134, appendix A).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from coop_lists import write_split_file

from edgekit.errors import InputError
from edgekit.files import write_atomic
from edgekit.models.clip.classifier import zero_shot_classifier
from edgekit.models.clip.descriptions import TEMPLATE, as_words
from edgekit.models.clip.load import FrozenClip
from edgekit.models.clip.protocols import base_count, load_target, of_classes
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import evaluate

TABLES = ("base-to-novel", "few-shot", "cross-dataset", "domain")
FEW_SHOTS = (1, 2, 4, 8, 16)
SHOTS = 16


@dataclass(frozen=True)
class Source:
    """A data set below the folder of all: its path, and its numbers of classes and of test images."""

    path: str
    classes: int
    test_images: int


IMAGENET, AIRCRAFT = "ImageNet", "FGVCAircraft"
DATA_SETS: Mapping[str, Source] = {
    IMAGENET: Source("imagenet/split_zhou_ImageNet.json", 1000, 50_000),
    "Caltech101": Source("caltech-101/split_zhou_Caltech101.json", 100, 2_465),
    "OxfordPets": Source("oxford_pets/split_zhou_OxfordPets.json", 37, 3_669),
    "StanfordCars": Source("stanford_cars/split_zhou_StanfordCars.json", 196, 8_041),
    "OxfordFlowers": Source("oxford_flowers/split_zhou_OxfordFlowers.json", 102, 2_463),
    "Food101": Source("food-101/split_zhou_Food101.json", 101, 30_300),
    AIRCRAFT: Source("fgvc_aircraft/split_zhou_FGVCAircraft.json", 100, 3_333),
    "SUN397": Source("sun397/split_zhou_SUN397.json", 397, 19_850),
    "DescribableTextures": Source("dtd/split_zhou_DescribableTextures.json", 47, 1_692),
    "EuroSAT": Source("eurosat/split_zhou_EuroSAT.json", 10, 8_100),
    "UCF101": Source("ucf101/split_zhou_UCF101.json", 101, 3_783),
}
SHIFTED: Mapping[str, Source] = {
    "ImageNetV2": Source("imagenetv2/split_zhou_ImageNetV2.json", 1000, 10_000),
    "ImageNetSketch": Source("imagenet-sketch/split_zhou_ImageNetSketch.json", 1000, 50_889),
    "ImageNetA": Source("imagenet-adversarial/split_zhou_ImageNetA.json", 200, 7_500),
    "ImageNetR": Source("imagenet-rendition/split_zhou_ImageNetR.json", 200, 30_000),
}


# Start of the name of the authors' file of descriptions: "caltech" for caltech_prompt.json.
_AUTHORS_FILES = {
    "Caltech101": "caltech",
    "DescribableTextures": "dtd",
    "EuroSAT": "eurosat",
    AIRCRAFT: "fgvc",
    "Food101": "food101",
    IMAGENET: "imagenet",
    "ImageNetA": "imagenet_a",
    "ImageNetR": "imagenet_r",
    "ImageNetSketch": "imagenet_sketch",
    "ImageNetV2": "imagenetv2",
    "OxfordFlowers": "oxford_flowers",
    "OxfordPets": "oxford_pets",
    "StanfordCars": "stanford_cars",
    "SUN397": "sun397",
    "UCF101": "ucf101",
}


def named_descriptions(given: Path, output: Path) -> Path:
    """Return the file `given`; of a folder, a copy in `output` whose files have the names that edgekit reads."""
    if given.is_file():
        return given
    for name, authors in _AUTHORS_FILES.items():
        found = next(
            (path for path in (given / f"{authors}_prompt.json", given / f"{name}.json") if path.exists()), None
        )
        if found is not None:
            write_atomic(output / f"{name}.json", found.read_bytes())
    return output


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
    """Check that all data sets of the trainings are there, and write the split files of those that have lists.

    Raises:
        InputError: Some are missing.
    """
    wanted = dict.fromkeys(name for run in runs for name in (run.dataset, *run.targets))
    for name in wanted:
        if name in (AIRCRAFT, IMAGENET) or name in SHIFTED:
            write_split_file(data / source_of(name).path)
    missing = [source_of(name).path for name in wanted if not (data / source_of(name).path).exists()]
    if missing:
        raise InputError(f"'{data}' lacks {', '.join(missing)}: add them, or choose data sets by --only")


# The sentences by which CoOp's authors classify with a plain CLIP (arXiv 2109.01134, zsclip.py), where they are not
# `TEMPLATE`. The row "CLIP" of the tables of prompt learning, those of HiCroPL included, is measured with them.
COOP_TEMPLATES: Mapping[str, str] = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "Food101": "a photo of {}, a type of food.",
    "UCF101": "a photo of a person doing {}.",
}


def template_accuracies(run: Run, clip: FrozenClip, data: Path, cache_folder: Path) -> list[float]:
    """Return CLIP's accuracies with CoOp's sentences, on the images of each score of a training."""
    read = partial(load_dataset, fit="clip", cache_folder=cache_folder)
    accuracies = []
    for name in (run.dataset, *run.targets):
        target = load_target(data / source_of(name).path, clip.image_size_px, read)
        count = len(target.classes)
        half = base_count(count) if run.table == "base-to-novel" else count
        for labels in (range(half), range(half, count)):
            if labels:
                template = COOP_TEMPLATES.get(name, TEMPLATE)
                chosen = [target.classes[label] for label in labels]
                texts = {each: (template.format(as_words(each)),) for each in chosen}
                images = of_classes(target.images, labels)
                classifier = zero_shot_classifier(clip, texts, name, gray=images.images.shape[-1] == 1)
                accuracies.append(evaluate(classifier, images, "center-crop").accuracy)
    return accuracies


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
