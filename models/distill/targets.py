"""Distillation targets: what the teachers output for each image, computed once and kept in one file.

A teacher classifies the centre crop and its mirror image. All augmented crops of an image share the mean of both as
their target, which has less noise than one output and is the same in every epoch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from edgekit.errors import InputError
from edgekit.models.callbacks import Progress
from edgekit.models.checkpoints.tensorfile import read_tensors, write_tensors
from edgekit.models.distill.teachers import Teacher, TeacherOutputs, mean_of_probabilities
from edgekit.preprocess import FloatArray, ImageU8, center_crop

_KEY = "edgekit-targets"
_CROPS_PER_BATCH = 128
# Exponents of teacher and FER+ votes with the lowest cross-entropy on PublicTest. Both are below 1, because information
# that both share would count twice.
_TEACHER_POWER, _VOTES_POWER = 0.7, 0.5


def kept_targets(teacher: Teacher, images: ImageU8, path: Path, progress: Progress) -> TeacherOutputs:
    """Return the targets of images uint8 (N, H, W, C) from the file at `path`, or compute them and write the file.

    A resumed distillation reads the file. A damaged one, and one of other teachers or images, is replaced.

    Raises:
        InputError: The teacher's outputs contain NaN or infinity.
        StorageError: The file cannot be written.
    """
    members = [member.sha256 for member in teacher.members or (teacher,)]
    key = {"teachers": members, "labels": list(teacher.labels), "images_sha256": pixels_sha256(images)}
    try:
        tensors, header = read_tensors(path)
        if json.loads(header.get(_KEY, "{}")) == key:
            embeddings = tensors.get("embeddings")
            return TeacherOutputs(tensors["logits"].numpy(), None if embeddings is None else embeddings.numpy())
    except (InputError, ValueError, KeyError):
        pass
    targets = targets_of(teacher, images, progress)
    arrays = {"logits": targets.logits, "embeddings": targets.embeddings}
    write_tensors(path, {name: torch.from_numpy(each) for name, each in arrays.items() if each is not None}, _KEY, key)
    return targets


def targets_of(teacher: Teacher, images: ImageU8, progress: Progress, *, mirrored: bool = True) -> TeacherOutputs:
    """Return the teacher's mean outputs for the centre crops of images uint8 (N, H, W, C) and their mirror images.

    The logits are averaged over the two crops, then the probabilities over the members of an ensemble. Embeddings are
    unit vectors.

    Raises:
        InputError: The outputs contain NaN or infinity.
    """
    members = teacher.members or (teacher,)
    found = []
    for index, member in enumerate(members):
        step = _CROPS_PER_BATCH // (1 + mirrored)
        parts = []
        for start in range(0, len(images), step):
            parts.append(_mean_outputs(member, images[start : start + step], mirrored))
            progress(index * len(images) + start + len(parts[-1].logits), len(images) * len(members))
        found.append(parts)
    if len(members) > 1:
        return TeacherOutputs(mean_of_probabilities([np.concatenate([p.logits for p in parts]) for parts in found]))
    embeddings = [part.embeddings for part in found[0] if part.embeddings is not None]
    logits = np.concatenate([part.logits for part in found[0]])
    return TeacherOutputs(logits, np.concatenate(embeddings) if embeddings else None)


def _mean_outputs(teacher: Teacher, images: ImageU8, mirrored: bool) -> TeacherOutputs:
    size_hw = [max(1, round(side * share)) for side, share in zip(images.shape[1:3], teacher.share_hw, strict=True)]
    center = center_crop(images, (size_hw[0], size_hw[1]))
    views = np.stack([center, center[:, :, ::-1]] if mirrored else [center], axis=1)  # (n, views, h, w, C)
    outputs = teacher.predict(views.reshape(-1, *views.shape[2:]))
    if not np.isfinite(outputs.logits).all():
        raise InputError(f"outputs of teacher '{teacher.name}' contain NaN or infinity: choose another teacher")
    logits: FloatArray = outputs.logits.reshape(*views.shape[:2], -1).mean(axis=1)
    if outputs.embeddings is None:
        return TeacherOutputs(logits)
    mean = outputs.embeddings.reshape(*views.shape[:2], -1).mean(axis=1)
    return TeacherOutputs(logits, mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12))


def with_votes(outputs: TeacherOutputs, posteriors: FloatArray, prior: FloatArray) -> TeacherOutputs:
    """Return the teacher's outputs combined with FER+ votes (ten people's votes per image).

    Votes and teacher are not independent, so their probabilities are combined as a product of powers:
    softmax(a log p_teacher + b (log P(label | votes) - log P(label))), with a, b < 1.

    Args:
        outputs: The teacher's outputs, `logits` (N, classes).
        posteriors: P(label | votes), float (N, classes); a row of zeros for an image without votes.
        prior: P(label), float (classes,).
    """
    logits = outputs.logits.astype(np.float64)
    logits -= np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    evidence = np.log(np.maximum(posteriors, 1e-12)) - np.log(np.maximum(prior, 1e-12))
    combined = np.where(
        posteriors.any(axis=-1, keepdims=True), _TEACHER_POWER * logits + _VOTES_POWER * evidence, logits
    )
    return replace(outputs, logits=combined.astype(np.float32))


def agreement(first: FloatArray, second: FloatArray) -> float:
    """Return the share of images, 0..1, for which two arrays of logits (N, classes) have the same top-1 class."""
    return float((first.argmax(axis=1) == second.argmax(axis=1)).mean())


def pixels_sha256(images: ImageU8) -> str:
    """Return a checksum over pixels, shape and order of the images."""
    digest = hashlib.sha256(f"{images.shape}".encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()
