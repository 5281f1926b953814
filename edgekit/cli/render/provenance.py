"""How a checkpoint came about, in lines for people: recipe, where it started, who taught it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_LESSONS = {"ce": "the labels", "kl": "the teacher's answers", "cosine": "its embeddings"}


# What trainings write down has some thousand characters; indented, deep nesting grows by as much as it is deep.
_MAX_CHARS = 200_000
_MAX_DEPTH = 20


def tame(training: Mapping[str, Any], warn: Callable[[str], None]) -> Mapping[str, Any]:
    """Return what a checkpoint says of its training if it can be shown, else nothing, with a warning."""
    try:
        chars = len(json.dumps(training, allow_nan=False))
    except (ValueError, RecursionError):
        warn("what the file says of its training is not shown: it is no JSON")
        return {}
    if chars > _MAX_CHARS or _is_deep(training, _MAX_DEPTH):
        warn(
            f"what the file says of its training is not shown: it has {chars:,} characters (at most {_MAX_CHARS:,}) or "
            f"is nested more than {_MAX_DEPTH} deep"
        )
        return {}
    return training


def _is_deep(value: object, left: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return left < 0 or any(_is_deep(each, left - 1) for each in inner)


def training_lines(training: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a checkpoint says of its training, as label and text; any part may be missing or of another form."""
    recipe, lesson, best = (_inner(training, name) for name in ("recipe", "distillation", "best"))
    if "recipe_name" in training:
        epoch = f"epoch {best.get('epoch', '?')} of {recipe.get('epochs', '?')}"
        yield "recipe", f"{training['recipe_name']}, {epoch}, seed {training.get('seed', '?')}"
    if "initial_sha256" in training:
        yield "started from", f"the checkpoint with sha256 {training['initial_sha256']}"
    for teacher in _teachers(_inner(training, "teacher")):
        clip = _inner(teacher, "clip")
        of = f", of the CLIP '{clip.get('source', '?')}' (sha256 {clip.get('sha256', '?')})" if clip else ""
        yield "teacher", f"{teacher.get('kind', '?')} '{teacher['name']}' (sha256 {teacher.get('sha256', '?')}){of}"
    weights = _inner(lesson, "weights")
    if learned := [f"{weights[name]} x {words}" for name, words in _LESSONS.items() if weights.get(name)]:
        yield "learned", ", ".join(learned)


def _inner(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _teachers(teacher: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    members = teacher.get("members")
    listed = members if isinstance(members, list) else [teacher]
    return [each for each in listed if isinstance(each, dict) and "name" in each]
