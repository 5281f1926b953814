"""Sentences that describe classes: shipped ones for the seven expressions, or those of a JSON file.

The file contains one object: `{"happy": ["A smiling face with raised cheeks.", ...], ...}`. A folder has such a file
per data set, as HiCroPL's authors publish them: classes of two data sets may share a name, but not the sentences.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edgekit.errors import InputError
from edgekit.files import require_file

Descriptions = dict[str, tuple[str, ...]]

TEMPLATE = "a photo of a {}."
SHIPPED = Path(__file__).with_name("descriptions.json")
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

_MAX_BYTES = 10_000_000
# Start of the name of the authors' file, by CoOp's name of the data set: "caltech" for caltech_prompt.json.
_AUTHORS_FILES = {
    "Caltech101": "caltech",
    "DescribableTextures": "dtd",
    "EuroSAT": "eurosat",
    "FGVCAircraft": "fgvc",
    "Food101": "food101",
    "ImageNet": "imagenet",
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


class Describe(Protocol):
    """Protocol of functions that return the sentences of a data set's classes, such as `descriptions_for`."""

    def __call__(self, classes: Sequence[str], *, dataset: str) -> Descriptions:
        """Return the sentences of each class, in the order of `classes`."""


def descriptions_for(
    classes: Sequence[str],
    path: Path | None = None,
    notify: Callable[[str], None] | None = None,
    *,
    dataset: str = "",
) -> Descriptions:
    """Return the sentences of each class, in the order of `classes`.

    Class names are compared without regard to case, and `_` matches a space; an equal name comes first. A class that
    has no sentences in the file gets one made from `TEMPLATE`.

    Args:
        classes: Names of the classes.
        path: File of descriptions, or a folder with one file per data set; default: the shipped file.
        notify: Called with one message that names the classes that get the template, if any class does.
        dataset: Name of the data set, which selects the file of a folder.

    Raises:
        InputError: The file is invalid, or the folder has no file of the data set.
    """
    table = read_descriptions(_file_of(path or SHIPPED, dataset))
    by_key = {_key(name): texts for name, texts in table.items()}
    found = {name: table.get(name) or by_key.get(_key(name), ()) for name in classes}
    without = [name for name, texts in found.items() if not texts]
    if without and notify:
        notify(f"no description of {', '.join(without)}: the template '{TEMPLATE}' is used instead")
    return {name: sentences_or_template(name, texts) for name, texts in found.items()}


def read_descriptions(path: Path) -> Descriptions:
    """Return the descriptions in a file.

    Raises:
        InputError: The file is missing, is not a JSON object of lists of sentences, or contains a class twice.
    """
    require_file(path, "descriptions file")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"descriptions file '{path}' is larger than {_MAX_BYTES} bytes")
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_distinct)
        return parse_descriptions(document)
    except (ValueError, RecursionError) as error:
        raise InputError(f"descriptions file '{path}' is not valid JSON: {error}") from error
    except InputError as error:
        raise InputError(f"descriptions file '{path}': {error}") from error


def parse_descriptions(document: object) -> Descriptions:
    """Return the descriptions in a JSON value.

    Raises:
        InputError: The value is not an object of lists of sentences.
    """
    if not isinstance(document, Mapping) or not document:
        raise InputError('expected {"class": ["sentence", ...], ...}')
    for name, sentences in document.items():
        if not _is_text(name):
            raise InputError(f"the class name {name!r} is not a text")
        if not isinstance(sentences, list) or not sentences or not all(map(_is_text, sentences)):
            raise InputError(f"class '{name}' needs a list of at least one sentence, each a text")
    return {name: tuple(sentences) for name, sentences in document.items()}


def require_labels(names: Collection[str]) -> None:
    """Check the names of a classifier's new labels.

    Raises:
        InputError: There is one label only, a name is empty, a label is given twice, or two differ only in case, spaces
            or `_`.
    """
    first: dict[str, str] = {}
    for name in names:
        if not name.strip():
            raise InputError("a label has an empty name: give each label a name")
        if (key := _key(name)) in first:
            same = f"class '{name}' is given twice"
            other = f"labels '{first[key]}' and '{name}' differ only in case or spaces"
            raise InputError(f"{same if first[key] == name else other}: give each label once")
        first[key] = name
    if len(first) == 1:
        raise InputError(f"label '{next(iter(names))}' alone: a classifier needs at least two")


def sentences_or_template(name: str, sentences: Sequence[str]) -> tuple[str, ...]:
    """Return the sentences; if there are none, one sentence made from the template and the class's name."""
    return tuple(sentences) or (TEMPLATE.format(as_words(name)),)


def template_descriptions(classes: Sequence[str], dataset: str) -> Descriptions:
    """Return one sentence per class: CoOp's for this data set, `a photo of a {}.` for others."""
    template = COOP_TEMPLATES.get(dataset, TEMPLATE)
    return {name: (template.format(as_words(name)),) for name in classes}


def as_words(name: str) -> str:
    """Return a class's name with spaces instead of underscores, as it is written in a sentence."""
    return name.replace("_", " ").strip()


def _file_of(path: Path, dataset: str) -> Path:
    """Return `path`, or the file of a data set in the folder `path`: `NAME.json`, or as HiCroPL's authors call it."""
    if not path.is_dir():
        return path
    names = [f"{dataset}.json"]
    if authors := _AUTHORS_FILES.get(dataset):
        names.append(f"{authors}_prompt.json")
    existing = [path / name for name in names if (path / name).is_file()]
    if not existing:
        raise InputError(f"descriptions folder '{path}' has no file for data set '{dataset}': add {' or '.join(names)}")
    return existing[0]


def _key(name: str) -> str:
    return as_words(name).casefold()


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= char <= "\udfff" for char in value)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"class '{twice[0]}' occurs twice")
    return dict(pairs)
