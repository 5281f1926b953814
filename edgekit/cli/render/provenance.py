"""Lines about the training recorded in a checkpoint: recipe, initial weights, teachers, loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_TARGETS = {"ce": "labels", "kl": "teacher's probabilities", "cosine": "teacher's embeddings"}


def training_lines(training: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (label, text) lines of a checkpoint's training record, any part of which may be missing or malformed."""
    recipe, distillation, best = (_inner(training, name) for name in ("recipe", "distillation", "best"))
    if "recipe_name" in training:
        epoch = f"epoch {best.get('epoch', '?')} of {recipe.get('epochs', '?')}"
        yield "recipe", f"{training['recipe_name']}, {epoch}, seed {training.get('seed', '?')}"
    if "initial_sha256" in training:
        yield "started from", f"checkpoint with sha256 {training['initial_sha256']}"
    for net in _named(training.get("average_of")):
        yield "average of", f"'{net['name']}' (sha256 {net.get('sha256', '?')})"
    for teacher in _teachers(_inner(training, "teacher")):
        clip = _inner(teacher, "clip")
        of = f", for the CLIP '{clip.get('source', '?')}' (sha256 {clip.get('sha256', '?')})" if clip else ""
        yield "teacher", f"{teacher.get('kind', '?')} '{teacher['name']}' (sha256 {teacher.get('sha256', '?')}){of}"
    weights = _inner(distillation, "weights")
    if terms := [f"{weights[name]} x {target}" for name, target in _TARGETS.items() if weights.get(name)]:
        yield "loss", ", ".join(terms)


def _inner(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _teachers(teacher: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    members = teacher.get("members")
    return _named(members if isinstance(members, list) else [teacher])


def _named(records: object) -> list[Mapping[str, Any]]:
    listed = records if isinstance(records, list) else []
    return [each for each in listed if isinstance(each, dict) and "name" in each]
