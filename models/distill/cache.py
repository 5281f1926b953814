"""A teacher's answers to fixed views of images, kept on disk: epochs cost the student only.

One folder for each key (teacher, labels, views, pixels), in it one safetensors file for each few thousand images. Each
file is written atomically and carries the key and a checksum, so an interrupted run goes on where it was, and files
that are damaged or belong to something else are noticed and made again.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from edgekit.errors import InputError
from edgekit.files import write_atomic
from edgekit.models.distill.teachers import Say, Teacher, TeacherOutputs, mean_of_probabilities
from edgekit.models.distill.views import Views, cut_views, view_count
from edgekit.preprocess import FloatArray, ImageU8

METADATA_KEY = "edgekit-answers"
FOLDER_NAME = "teacher"

_FORM = 1
_IMAGES_PER_FILE = 2048
_CROPS_PER_BATCH = 128

Progress = Callable[[int, int | None], None]
_Arrays = Mapping[str, NDArray[Any]]


def teach(
    teacher: Teacher,
    images: ImageU8,
    views: Views,
    folder: Path,
    progress: Progress | None = None,
    say: Say = lambda _: None,
) -> TeacherOutputs:
    """Return the teacher's answers to images, from the cache as far as it holds them.

    The target of an image is one for all its augmented forms: the mean of the views' logits (and of their embeddings,
    made a unit vector again), which is nearer to what the teacher thinks of the face than any single view. Of an
    ensemble each member is cached by itself.

    Args:
        teacher: Who answers.
        images: uint8 (N, H, W, C).
        views: What of each image it is shown.
        folder: The cache; created.
        progress: Called with (images done, images in all).
        say: Called with a line for each damaged file.

    Raises:
        InputError: The teacher's answers are no numbers.
        StorageError: The cache cannot be written.
    """
    images_sha256 = pixels_sha256(images)
    members = teacher.members or (teacher,)
    report = progress or (lambda _done, _total: None)
    found = []
    for index, member in enumerate(members):
        key = {
            "form": _FORM,
            "teacher_sha256": member.sha256,
            "labels": list(member.labels),
            "views": views,
            "images_sha256": images_sha256,
        }
        done = index * len(images)
        found.append(_Cache(folder, key, say).targets(member, images, views, done, len(images) * len(members), report))
    return found[0] if len(found) == 1 else TeacherOutputs(mean_of_probabilities([targets.logits for targets in found]))


def pixels_sha256(images: ImageU8) -> str:
    """Return a checksum over pixels, shape and order of images."""
    return _digest({"images": images})


def agreement(first: FloatArray, second: FloatArray) -> float:
    """Return the share of images, 0..1, on which two arrays of logits (N, classes) have the same class first."""
    return float((first.argmax(axis=1) == second.argmax(axis=1)).mean())


class _Cache:
    """The files of one key."""

    def __init__(self, folder: Path, key: Mapping[str, Any], say: Say) -> None:
        self._key = key
        self._say = say
        self._folder = folder / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]

    def targets(
        self, teacher: Teacher, images: ImageU8, views: Views, done: int, total: int, report: Progress
    ) -> TeacherOutputs:
        parts = []
        for start in range(0, len(images), _IMAGES_PER_FILE):
            part = images[start : start + _IMAGES_PER_FILE]
            path = self._folder / f"{start:08d}.safetensors"
            facts = {**self._key, "start": start, "images": len(part), "view_count": view_count(views)}
            arrays = self._read(path, facts)
            if arrays is None:
                arrays = _asked(teacher, part, views, functools.partial(_report, report, done + start, total))
                _write(path, arrays, facts)
            report(done + start + len(part), total)
            parts.append(_mean_of_views(arrays))
        embeddings = [part.embeddings for part in parts if part.embeddings is not None]
        return TeacherOutputs(
            np.concatenate([part.logits for part in parts]), np.concatenate(embeddings) if embeddings else None
        )

    def _read(self, path: Path, facts: Mapping[str, Any]) -> _Arrays | None:
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                document = json.loads((file.metadata() or {})[METADATA_KEY])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            whole = document == {**facts, "sha256": _digest(arrays)} and "logits" in arrays
        except (SafetensorError, OSError, ValueError, KeyError, RecursionError):
            whole = False
        if not whole:
            self._say(f"cache file '{path}' is damaged or belongs to something else: the teacher is asked again")
            return None
        return arrays


def _asked(teacher: Teacher, images: ImageU8, views: Views, report: Callable[[int], None]) -> _Arrays:
    count = view_count(views)
    step = max(1, _CROPS_PER_BATCH // count)
    logits, embeddings = [], []
    for start in range(0, len(images), step):
        crops = cut_views(images[start : start + step], views, teacher.share_hw)  # (n, views, h, w, C)
        answers = checked(teacher, crops.reshape(-1, *crops.shape[2:]))
        logits.append(answers.logits.reshape(len(crops), count, -1))
        if answers.embeddings is not None:
            embeddings.append(answers.embeddings.reshape(len(crops), count, -1))
        report(start + len(crops))
    # In C order: safetensors writes memory as it lies, and columns that were picked lie the other way.
    arrays = {"logits": np.ascontiguousarray(np.concatenate(logits), np.float32)}
    # Half precision is enough for directions; logits, which are scaled up, stay single.
    return arrays | ({"embeddings": np.concatenate(embeddings).astype(np.float16)} if embeddings else {})


def checked(teacher: Teacher, crops: ImageU8) -> TeacherOutputs:
    """Return the teacher's answers to crops.

    Raises:
        InputError: They are no numbers.
    """
    answers = teacher.answer(crops)
    if not np.isfinite(answers.logits).all():
        raise InputError(f"teacher '{teacher.name}' gives values that are no numbers: take another")
    return answers


def _report(report: Progress, before: int, total: int, count: int) -> None:
    report(before + count, total)


def _write(path: Path, arrays: _Arrays, facts: Mapping[str, Any]) -> None:
    document = {**facts, "sha256": _digest(arrays)}
    write_atomic(path, save(dict(arrays), metadata={METADATA_KEY: json.dumps(document, sort_keys=True)}))


def _mean_of_views(arrays: _Arrays) -> TeacherOutputs:
    logits: FloatArray = arrays["logits"].mean(axis=1)
    if "embeddings" not in arrays:
        return TeacherOutputs(logits)
    mean = arrays["embeddings"].astype(np.float32).mean(axis=1)
    return TeacherOutputs(logits, mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12))


def _digest(arrays: _Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
