"""What classes look like, in sentences: shipped for the seven expressions, or read from a JSON file.

The file is one object: `{"happy": ["A smiling face with raised cheeks.", ...], ...}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgekit.errors import InputError
from edgekit.files import require_file

Descriptions = dict[str, tuple[str, ...]]

TEMPLATE = "a photo of a {}."
SHIPPED = Path(__file__).with_name("descriptions.json")

_MAX_BYTES = 10_000_000


def descriptions_for(
    classes: Sequence[str], path: Path | None = None, notify: Callable[[str], None] | None = None
) -> Descriptions:
    """Return the sentences of each class, in that order.

    Names are compared without regard to case, `_` counting as a space. Classes the file does not describe get the
    template.

    Args:
        classes: Names of the classes.
        path: A file of descriptions; default: the shipped one, of the seven expressions.
        notify: Called with one line that names the classes described by the template, if there are any.

    Raises:
        InputError: The file cannot be used.
    """
    table = {_key(name): texts for name, texts in read_descriptions(path or SHIPPED).items()}
    found = {name: table.get(_key(name), ()) for name in classes}
    without = [name for name, texts in found.items() if not texts]
    if without and notify:
        notify(f"no description of {', '.join(without)}: the template '{TEMPLATE}' takes its place")
    return {name: sentences_or_template(name, texts) for name, texts in found.items()}


def read_descriptions(path: Path) -> Descriptions:
    """Read a file of descriptions.

    Raises:
        InputError: It is no JSON object of lists of sentences, or names a class twice.
    """
    require_file(path, "descriptions file")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"descriptions file '{path}' is larger than {_MAX_BYTES} bytes")
    try:
        document = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_distinct)
        return parse_descriptions(document)
    except (ValueError, RecursionError, InputError) as error:
        raise InputError(f"descriptions file '{path}': {error}") from error


def parse_descriptions(document: object) -> Descriptions:
    """Return checked descriptions of what JSON gave.

    Raises:
        InputError: It is no object of lists of sentences.
    """
    if not isinstance(document, Mapping) or not document:
        raise InputError('expected {"class": ["sentence", ...], ...}')
    for name, sentences in document.items():
        if not _is_text(name):
            raise InputError(f"class {name!r} has no proper name")
        if not isinstance(sentences, list) or not sentences or not all(map(_is_text, sentences)):
            raise InputError(f"class '{name}' needs a list of at least one sentence, each a text")
    return {name: tuple(sentences) for name, sentences in document.items()}


def sentences_or_template(name: str, sentences: Sequence[str]) -> tuple[str, ...]:
    """Return the sentences, or the template with the class's name if there are none."""
    return tuple(sentences) or (TEMPLATE.format(as_words(name)),)


def as_words(name: str) -> str:
    """Return a class's name as it stands in a sentence."""
    return name.replace("_", " ").strip()


def _key(name: str) -> str:
    return as_words(name).casefold()


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= char <= "\udfff" for char in value)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"class '{twice[0]}' is there twice")
    return dict(pairs)
