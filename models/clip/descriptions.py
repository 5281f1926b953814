"""Sentences that describe classes: shipped ones for the seven expressions, or those of a JSON file.

The file contains one object: `{"happy": ["A smiling face with raised cheeks.", ...], ...}`. A folder has such a file
per data set: classes of two data sets may share a name, but not the sentences.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from edgekit.errors import InputError
from edgekit.files import require_file

Descriptions = dict[str, tuple[str, ...]]
# Returns the sentences of the classes of a data set, which is given as `dataset`, such as `descriptions_for`.
Describe = Callable[..., Descriptions]

TEMPLATE = "a photo of a {}."
SHIPPED = Path(__file__).with_name("descriptions.json")


def descriptions_for(
    classes: Sequence[str],
    path: Path | None = None,
    notify: Callable[[str], None] | None = None,
    *,
    dataset: str = "",
) -> Descriptions:
    """Return the sentences of each class, in the order of `classes`.

    If the file lacks the name of a class, a name that differs only in case, or in `_` for a space, is used. A class
    that has no sentences in the file gets one made from `TEMPLATE`.

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
    not_described = [name for name, texts in found.items() if not texts]
    if not_described and notify:
        notify(f"no description of {', '.join(not_described)}: the template '{TEMPLATE}' is used instead")
    return {name: sentences_or_template(name, texts) for name, texts in found.items()}


def read_descriptions(path: Path) -> Descriptions:
    """Return the descriptions in a file.

    Raises:
        InputError: The file is missing, is not a JSON object of lists of sentences, or contains a class twice.
    """
    require_file(path, "descriptions file")
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
    name_of_key: dict[str, str] = {}
    for name in names:
        if not name.strip():
            raise InputError("a label has an empty name: give each label a name")
        earlier = name_of_key.get(_key(name))
        if earlier == name:
            raise InputError(f"class '{name}' is given twice: give each label once")
        if earlier is not None:
            raise InputError(f"labels '{earlier}' and '{name}' differ only in case or spaces: give each label once")
        name_of_key[_key(name)] = name
    if len(name_of_key) == 1:
        raise InputError(f"label '{next(iter(names))}' alone: a classifier needs at least two")


def sentences_or_template(name: str, sentences: Sequence[str]) -> tuple[str, ...]:
    """Return the sentences; if there are none, one sentence made from the template and the class's name."""
    return tuple(sentences) or (TEMPLATE.format(as_words(name)),)


def as_words(name: str) -> str:
    """Return a class's name with spaces instead of underscores, as it is written in a sentence."""
    return name.replace("_", " ").strip()


def _file_of(path: Path, dataset: str) -> Path:
    """Return `path`, or the file `NAME.json` of a data set in the folder `path`."""
    if not path.is_dir():
        return path
    if not (path / f"{dataset}.json").is_file():
        raise InputError(f"descriptions folder '{path}' has no file for data set '{dataset}': add {dataset}.json")
    return path / f"{dataset}.json"


def _key(name: str) -> str:
    """Return the form of a class's name in which names are compared."""
    return as_words(name).casefold()


def _is_text(value: object) -> bool:
    """Return whether a value is a text that is not blank and has no lone surrogates, which UTF-8 cannot encode."""
    return isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= char <= "\udfff" for char in value)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the pairs of a JSON object as a dict; raise if a key occurs twice, of which json would keep the last."""
    names = [name for name, _ in pairs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"class '{twice[0]}' occurs twice")
    return dict(pairs)
