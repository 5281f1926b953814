"""Distillation targets: a teacher's outputs for fixed views of images, cached on disk.

The cache has one folder per key (teacher, labels, views, pixels) with one safetensors file per 2048 images. Each file
is written atomically and contains the key and a checksum: an interrupted run continues where it stopped, and damaged
files or files of another key are computed again.
"""

from __future__ import annotations

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
from edgekit.models.callbacks import Notify, Progress, ignore_message
from edgekit.models.distill.teachers import Teacher, TeacherOutputs, mean_of_probabilities
from edgekit.models.distill.views import Views, cut_views, view_count
from edgekit.preprocess import FloatArray, ImageU8

METADATA_KEY = "edgekit-answers"
FOLDER_NAME = "teacher"

_FORMAT = 1
_IMAGES_PER_FILE = 2048
_CROPS_PER_BATCH = 128

_Arrays = Mapping[str, NDArray[Any]]


def distillation_targets(
    teacher: Teacher,
    images: ImageU8,
    views: Views,
    folder: Path,
    progress: Progress | None = None,
    notify: Notify = ignore_message,
) -> TeacherOutputs:
    """Return the teacher's outputs for images: cached outputs are read, all others are computed and cached.

    All augmented crops of an image share one target: the mean of the logits over the views, and the renormalised mean
    of the embeddings. With "all-crops" each view has its own logits, (N, views, classes). The members of an ensemble
    are cached separately.

    Args:
        teacher: The teacher.
        images: uint8 (N, H, W, C).
        views: The views of each image that the teacher classifies.
        folder: The cache; created if it does not exist.
        progress: Called with (images done, images in total).
        notify: Called with one message per damaged file.

    Raises:
        InputError: The teacher's outputs contain NaN or infinity.
        StorageError: The cache cannot be written.
    """
    images_sha256 = pixels_sha256(images)
    members = teacher.members or (teacher,)
    total = len(images) * len(members)
    found = []
    for index, member in enumerate(members):
        key = {
            "form": _FORMAT,
            "teacher_sha256": member.sha256,
            "labels": list(member.labels),
            "views": views,
            "images_sha256": images_sha256,
        }

        def report(done: int, before: int = index * len(images)) -> None:
            if progress:
                progress(before + done, total)

        found.append(_Cache(folder, key, notify).targets(member, images, views, report))
    return found[0] if len(found) == 1 else TeacherOutputs(mean_of_probabilities([targets.logits for targets in found]))


def pixels_sha256(images: ImageU8) -> str:
    """Return a checksum over pixels, shape and order of the images."""
    return _digest({"images": images})


def agreement(first: FloatArray, second: FloatArray) -> float:
    """Return the share of images, 0..1, for which two arrays of logits (N, classes) have the same top-1 class."""
    return float((first.argmax(axis=1) == second.argmax(axis=1)).mean())


class _Cache:
    """The cached files of one key (teacher, labels, views, pixels)."""

    def __init__(self, folder: Path, key: Mapping[str, Any], notify: Notify) -> None:
        self._key = key
        self._notify = notify
        self._folder = folder / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]

    def targets(self, teacher: Teacher, images: ImageU8, views: Views, report: Callable[[int], None]) -> TeacherOutputs:
        """Return the targets of all images; `report` is called with the number of images done."""
        parts = []
        for start in range(0, len(images), _IMAGES_PER_FILE):
            part = images[start : start + _IMAGES_PER_FILE]
            path = self._folder / f"{start:08d}.safetensors"
            facts = {
                **self._key,
                "start": start,
                "images": len(part),
                "view_count": view_count(views, images.shape[1:3]),
            }
            arrays = self._read(path, facts)
            if arrays is None:
                arrays = _computed(teacher, part, views, start, report)
                _write(path, arrays, facts)
            report(start + len(part))
            parts.append(TeacherOutputs(arrays["logits"]) if views == "all-crops" else _mean_of_views(arrays))
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
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            is_valid = document == {**facts, "sha256": _digest(arrays)} and "logits" in arrays
        except (SafetensorError, OSError, ValueError, KeyError, RecursionError):
            is_valid = False
        if not is_valid:
            self._notify(f"cache file '{path}' is damaged or belongs to other data: its targets are computed again")
            return None
        return arrays


def _computed(teacher: Teacher, images: ImageU8, views: Views, done: int, report: Callable[[int], None]) -> _Arrays:
    """Return the teacher's outputs; `report` is called with the number of images done, `done` before these images."""
    count = view_count(views, images.shape[1:3])
    step = max(1, _CROPS_PER_BATCH // count)
    logits, embeddings = [], []
    for start in range(0, len(images), step):
        crops = cut_views(images[start : start + step], views, teacher.share_hw)  # (n, views, h, w, C)
        outputs = finite_outputs(teacher, crops.reshape(-1, *crops.shape[2:]))  # (n · views, h, w, C)
        logits.append(outputs.logits.reshape(len(crops), count, -1))
        if outputs.embeddings is not None:
            embeddings.append(outputs.embeddings.reshape(len(crops), count, -1))
        report(done + start + len(crops))
    # safetensors writes the memory as it is, but an array of selected columns has Fortran order.
    arrays = {"logits": np.ascontiguousarray(np.concatenate(logits), np.float32)}
    # Half precision is enough for unit vectors, but not for logits.
    return arrays | ({"embeddings": np.concatenate(embeddings).astype(np.float16)} if embeddings else {})


def finite_outputs(teacher: Teacher, crops: ImageU8) -> TeacherOutputs:
    """Return the teacher's outputs for crops.

    Raises:
        InputError: The outputs contain NaN or infinity.
    """
    outputs = teacher.predict(crops)
    if not np.isfinite(outputs.logits).all():
        raise InputError(f"outputs of teacher '{teacher.name}' contain NaN or infinity: choose another teacher")
    return outputs


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
