"""The data of `prompt_tasks.py`: training pools, targets and descriptions of each task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import click
import cv2
import numpy as np
from data_identity import data_identity
from numpy.typing import NDArray

from edgekit.errors import InputError
from edgekit.models.clip.descriptions import Descriptions, descriptions_for
from edgekit.models.clip.load import load_clip
from edgekit.models.clip.weights import read_clip_file
from edgekit.models.data import EXPRESSIONS, DataSet, ImageSet, training_split
from edgekit.models.data.ferplus import with_ferplus
from edgekit.models.data.merging import merge_classes, renumbered
from edgekit.models.data.readers import load_dataset
from edgekit.preprocess import ImageU8, to_gray

TASKS = ("labels", "photographs", "classes", "cross")
GROUPINGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "mood": {
        "positive": ("happy",),
        "negative": ("angry", "disgust", "fear", "sad"),
        "neutral": ("neutral",),
        "surprised": ("surprise",),
    },
    "smile": {"smiling": ("happy",), "not smiling": ("angry", "disgust", "fear", "sad", "surprise", "neutral")},
    "alarm": {
        "alarmed": ("fear", "surprise"),
        "upset": ("angry", "disgust", "sad"),
        "at ease": ("happy", "neutral"),
    },
    "tension": {
        "tense": ("angry", "disgust", "fear"),
        "low": ("sad",),
        "lively": ("happy", "surprise"),
        "even": ("neutral",),
    },
}
_JPEG_QUALITY = 12


@dataclass(frozen=True)
class Content:
    """One source with one seed: `pool` gives the shots, `targets` are the test images by name."""

    name: str
    descriptions: Descriptions
    pool: ImageSet
    targets: Mapping[str, ImageSet]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return tuple(self.descriptions)


@dataclass(frozen=True)
class Source:
    """A training source of a task: `content` returns its images for a seed; `clip` is the file of the CLIP.

    `data` are the names of the fields of `Sources` whose images `content` contains.
    """

    task: str
    name: str
    clip: Path
    data: tuple[str, ...]
    content: Callable[[int], Content]


@dataclass(frozen=True)
class Sources:
    """Files of CLIPs and data; None: not given."""

    clip: Path
    data: Path
    base_clip: Path | None = None
    ferplus: Path | None = None
    faces: Path | None = None
    ck: Path | None = None

    def identity(self, name: str) -> str | None:
        """Return the identity of the data in a field; None if it is not given."""
        path: Path | None = getattr(self, name)
        return None if path is None else data_identity(path)

    @cached_property
    def size_px(self) -> int:
        """Side of the CLIP's images in pixels."""
        return load_clip(self.clip).image_size_px

    @cached_property
    def fer(self) -> DataSet:
        """FER-2013 with its own labels."""
        return _gray(load_dataset(self.data, self.size_px, fit="clip"))

    @cached_property
    def majority(self) -> DataSet:
        """FER-2013 with the majority of the votes as label."""
        assert self.ferplus is not None
        return with_ferplus(self.fer, self.ferplus, "majority")

    @cached_property
    def photographs(self) -> ImageSet:
        """Face crops of photographs with their persons."""
        assert self.faces is not None
        return _expressions(self.faces, self.size_px)


def make_tasks(sources: Sources, tasks: Sequence[str], split: str) -> Iterator[Source]:
    """Yield the sources of the tasks for which there is data."""
    makers: dict[str, Callable[[Sources, str], Iterator[Source]]] = {
        "labels": _labels,
        "photographs": _photographs,
        "classes": _classes,
        "cross": _cross,
    }
    for task in tasks:
        yield from makers[task](sources, split)


def persons_apart(photos: ImageSet, seed: int, name: str) -> tuple[ImageSet, ImageSet]:
    """Return the photographs of one half of the persons, drawn with `seed`, and those of the other half.

    Raises:
        InputError: The persons are not known.
    """
    if photos.groups is None:
        raise InputError(f"the persons on the images of '{name}' are not known: add a table with a column person")
    persons = np.random.default_rng(seed).permutation(np.unique(photos.groups))
    is_trained = np.isin(photos.groups, persons[: len(persons) // 2])
    return photos.subset(is_trained), photos.subset(~is_trained)


def up_to_shots(
    labels: NDArray[np.int64], classes: Sequence[str], shots: int, seed: int
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Return the indices of `shots` images per class, and the number of images of each class that has fewer.

    Such a class gives all its images. With the same seed, the images of fewer shots are a subset of those of more.
    """
    generator = np.random.default_rng(seed)
    members = [generator.permutation(np.flatnonzero(labels == number)) for number in range(len(classes))]
    short = {name: len(own) for name, own in zip(classes, members, strict=True) if len(own) < shots}
    return np.sort(np.concatenate([own[:shots] for own in members])), short


def darkened(image: ImageU8) -> ImageU8:
    """Return the image at a quarter of its brightness, with gamma 1.3."""
    return np.round(255 * 0.25 * (image / 255) ** 1.3).astype(np.uint8)


def blurred(image: ImageU8) -> ImageU8:
    """Return the image blurred with a Gaussian of 1.5 pixels."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 1.5), np.uint8).reshape(image.shape)


def compressed(image: ImageU8) -> ImageU8:
    """Return the image after JPEG compression of low quality."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8).reshape(image.shape)


COPIES: Mapping[str, Callable[[ImageU8], ImageU8]] = {
    "photographs": lambda image: image,
    "darkened": darkened,
    "blurred": blurred,
    "compressed": compressed,
}


def _labels(sources: Sources, split: str) -> Iterator[Source]:
    if sources.ferplus is None:
        _left_out("labels", "--ferplus")
        return

    def content(_seed: int) -> Content:
        data = sources.majority
        targets = {"FER+ majority": data.split(split)}
        return Content("FER+ majority", descriptions_for(EXPRESSIONS), data.split("Training"), targets)

    yield Source("labels", "FER+ majority", sources.clip, ("data", "ferplus"), content)


def _photographs(sources: Sources, split: str) -> Iterator[Source]:
    del split
    if sources.faces is None:
        _left_out("photographs", "--faces")
        return

    def content(name: str, seed: int) -> Content:
        training, test = persons_apart(sources.photographs, seed, str(sources.faces))
        pool, target = (_copied(part, COPIES[name]) for part in (training, test))
        return Content(name, descriptions_for(EXPRESSIONS), pool, {name: target})

    for name in COPIES:
        yield Source("photographs", name, sources.clip, ("faces",), partial(content, name))


def _classes(sources: Sources, split: str) -> Iterator[Source]:
    if sources.base_clip is not None:
        _require_left_out(sources.base_clip)

    def content(name: str, groups: Mapping[str, tuple[str, ...]], _seed: int) -> Content:
        data = merge_classes(sources.fer, groups)
        own = descriptions_for(EXPRESSIONS)
        described = {new: tuple(text for old in olds for text in own[old]) for new, olds in groups.items()}
        return Content(name, described, data.split("Training"), {name: data.split(split)})

    for name, groups in GROUPINGS.items():
        yield Source("classes", name, sources.clip, ("data",), partial(content, name, groups))
    if sources.base_clip is not None:
        alone = {name: (name,) for name in EXPRESSIONS}
        name = "classes never seen"
        yield Source("classes", name, sources.base_clip, ("data",), partial(content, name, alone))


def _cross(sources: Sources, split: str) -> Iterator[Source]:
    def parts(seed: int) -> dict[str, tuple[ImageSet, ImageSet]]:
        """Return training pool and test images of each data set."""
        found = {"FER-2013": (sources.fer.split("Training"), sources.fer.split(split))}
        if sources.ferplus is not None:
            found["FER+ majority"] = sources.majority.split("Training"), sources.majority.split(split)
        if sources.faces is not None:
            found["photographs"] = persons_apart(sources.photographs, seed, str(sources.faces))
        if sources.ck is not None:
            found["CK+"] = persons_apart(_expressions(sources.ck, sources.size_px), seed, str(sources.ck))
        return found

    def content(name: str, seed: int) -> Content:
        found = parts(seed)
        targets = {other: test for other, (_, test) in found.items()}
        return Content(name, descriptions_for(EXPRESSIONS), found[name][0], targets)

    given = {
        "FER-2013": sources.data,
        "FER+ majority": sources.ferplus,
        "photographs": sources.faces,
        "CK+": sources.ck,
    }
    for name, path in given.items():
        if path is not None:
            yield Source("cross", name, sources.clip, ("data", "ferplus", "faces", "ck"), partial(content, name))


def _require_left_out(clip: Path) -> None:
    """Check that a CLIP was trained without some classes.

    Raises:
        InputError: Its file records no class that was left out.
    """
    if not read_clip_file(clip).left_out:
        raise InputError(f"base-clip '{clip}' was not trained without some classes: train it with --leave-out")


def _left_out(task: str, option: str) -> None:
    click.echo(f"task {task} is left out: it needs {option}", err=True)


def _expressions(path: Path, size_px: int) -> ImageSet:
    """Return the training split of a data set with its labels as indices into `EXPRESSIONS`.

    The data may lack some expressions, as CK+ lacks neutral.

    Raises:
        InputError: The data has another class.
    """
    dataset = _gray(load_dataset(path, size_px, fit="clip"))
    if not set(dataset.classes) <= set(EXPRESSIONS):
        raise InputError(f"data '{path}' has the classes {', '.join(dataset.classes)}: expected the seven expressions")
    numbers = np.array([EXPRESSIONS.index(name) for name in dataset.classes])
    return renumbered(dataset.split(training_split(dataset)), numbers)


def _gray(dataset: DataSet) -> DataSet:
    """Return the data set with gray images, as those that the CLIP is pretrained on."""
    splits = {
        name: part
        if part.images.shape[-1] == 1
        else replace(part, images=to_gray(part.images[..., ::-1])[..., np.newaxis])
        for name, part in dataset.splits.items()
    }
    return replace(dataset, splits=splits)


def _copied(part: ImageSet, change: Callable[[ImageU8], ImageU8]) -> ImageSet:
    return replace(part, images=np.stack([change(image) for image in part.images]))
