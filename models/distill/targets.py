"""Distillation targets: what the teachers output for each image, computed once and kept in one file.

A teacher classifies the centre crop and its mirror image. All augmented crops of an image share the mean of both as
their target, which has less noise than one output and is the same in every epoch.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit.contract import Fit
from edgekit.errors import InputError
from edgekit.models.callbacks import Progress, of_stage
from edgekit.models.data import ImageSet
from edgekit.models.data.disk import folder_on_disk, new_array
from edgekit.models.data.readers import single_channel_if_gray, stored_files, to_size
from edgekit.models.distill.teachers import Teacher, TeacherOutputs, mean_of_probabilities
from edgekit.models.tensor_files import read_tensors, write_tensors
from edgekit.models.training.options import TrainingOptions
from edgekit.preprocess import FloatArray, ImageU8, center_crop

_KEY = "edgekit-targets"
_CROPS_PER_BATCH = 128


def kept_targets(teacher: Teacher, images: ImageU8, path: Path, progress: Progress) -> TeacherOutputs:
    """Return the targets of images uint8 (N, H, W, C) from the file at `path`, or compute them and write the file.

    A resumed distillation reads the file. A damaged one, and one of other teachers or images, is replaced.

    Raises:
        InputError: The teacher's outputs contain NaN or infinity.
        StorageError: The file cannot be written.
    """
    key = _key(teacher, images)
    try:
        tensors, header = read_tensors(path)
        if json.loads(header.get(_KEY, "{}")) == key:
            embeddings = tensors.get("embeddings")
            return TeacherOutputs(tensors["logits"].numpy(), None if embeddings is None else embeddings.numpy())
    except (InputError, ValueError, KeyError):
        pass  # no file, or a damaged one
    targets = targets_of(teacher, images, progress)
    write_targets(path, targets, teacher, images)
    return targets


def write_targets(path: Path, targets: TeacherOutputs, teacher: Teacher, images: ImageU8) -> None:
    """Write targets to the file that `kept_targets` reads for this teacher and these images.

    Raises:
        StorageError: The file cannot be written.
    """
    arrays = {"logits": targets.logits, "embeddings": targets.embeddings}
    tensors = {name: torch.from_numpy(each) for name, each in arrays.items() if each is not None}
    write_tensors(path, tensors, _KEY, _key(teacher, images))


def _key(teacher: Teacher, images: ImageU8) -> dict[str, Any]:
    """Return what identifies the targets in a file: the teachers, the labels and the images."""
    members = [member.sha256 for member in teacher.members or (teacher,)]
    return {"teachers": members, "labels": list(teacher.labels), "images_sha256": pixels_sha256(images)}


def targets_of(teacher: Teacher, images: ImageU8, progress: Progress, *, mirrored: bool = True) -> TeacherOutputs:
    """Return the teacher's mean outputs for the centre crops of images uint8 (N, H, W, C) and their mirror images.

    The logits are averaged over the two crops, then the probabilities over the members of an ensemble. Embeddings are
    unit vectors.

    Raises:
        InputError: The outputs contain NaN or infinity.
    """
    members = teacher.members or (teacher,)  # only an ensemble has members
    # A member that is given twice runs once, but counts twice in the mean.
    different = {member.sha256: member for member in members}
    outputs: dict[str, TeacherOutputs] = {}
    step = _CROPS_PER_BATCH // (2 if mirrored else 1)  # images per batch
    done, total = 0, len(images) * len(different)
    for sha256, member in different.items():
        batches = []
        for start in range(0, len(images), step):
            batches.append(_mean_outputs(member, images[start : start + step], mirrored))
            done += len(batches[-1].logits)
            progress(done, total)
        embeddings = [batch.embeddings for batch in batches if batch.embeddings is not None]
        logits = np.concatenate([batch.logits for batch in batches])
        outputs[sha256] = TeacherOutputs(logits, np.concatenate(embeddings) if embeddings else None)
    if len(members) == 1:
        return outputs[members[0].sha256]
    # The members have no common embedding space, so an ensemble has no embeddings.
    return TeacherOutputs(logits=mean_of_probabilities([outputs[member.sha256].logits for member in members]))


def _mean_outputs(teacher: Teacher, images: ImageU8, mirrored: bool) -> TeacherOutputs:
    """Return the mean of a teacher's outputs for each centre crop and, if `mirrored`, its mirror image."""
    center, crop = images, teacher.crop
    if crop is not None:  # None for a CLIP, which gets the whole images
        # Images of another size than the teacher's are cropped in proportion: to the same part as on a device.
        height = max(1, round(images.shape[1] * (crop.center_crop_hw[0] / crop.resize_hw[0])))
        width = max(1, round(images.shape[2] * (crop.center_crop_hw[1] / crop.resize_hw[1])))
        center = center_crop(images, (height, width))
    views = np.stack([center, center[:, :, ::-1]] if mirrored else [center], axis=1)  # (n, views, h, w, C)
    outputs = teacher.predict(views.reshape(-1, *views.shape[2:]))
    if not np.isfinite(outputs.logits).all():
        raise InputError(f"outputs of teacher '{teacher.name}' contain NaN or infinity: choose another teacher")
    logits: FloatArray = outputs.logits.reshape(*views.shape[:2], -1).mean(axis=1)  # (n, views, classes) → (n, classes)
    if outputs.embeddings is None:
        return TeacherOutputs(logits)
    mean = outputs.embeddings.reshape(*views.shape[:2], -1).mean(axis=1)  # (n, embed_dim)
    unit_vectors = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return TeacherOutputs(logits, unit_vectors)


def pixels_sha256(images: ImageU8) -> str:
    """Return a checksum over pixels, shape and order of the images."""
    digest = hashlib.sha256(f"{images.shape}".encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def teacher_side_px(teacher: Teacher) -> int:
    """Return the largest side of the images that a teacher, or a member of an ensemble, crops; 0: it takes any."""
    members = teacher.members or (teacher,)
    return max(each.crop.resize_hw[0] if each.crop else 0 for each in members)


def images_for_teacher(part: ImageSet, teacher: Teacher, options: TrainingOptions, fit: Fit) -> ImageU8:
    """Return the images for a teacher, uint8 (N, side, side, C): those of `part`, or larger ones of the same files.

    If the teacher takes larger images, and the images are files, the files in `options.data` are read again. They are
    made square with `fit`.

    Raises:
        InputError: A file has changed or is damaged.
    """
    side_px, channels = teacher_side_px(teacher), part.images.shape[-1]
    if side_px <= part.images.shape[1] or part.names is None:
        return part.images
    reading = of_stage(options.progress, "reading images for the teacher")
    shape = (len(part), side_px, side_px, channels)
    images = new_array(folder_on_disk(math.prod(shape), options.output, options.notify), shape)
    for index, _, image in stored_files(options.data, part, options.contempt, reading):
        square = to_size(image, side_px, fit)
        # With one channel, all images are gray, but a file can have three equal channels.
        images[index] = single_channel_if_gray(square) if channels == 1 else np.broadcast_to(square, shape[1:])
    return images
