"""Images in a teacher's own size, where it takes larger ones than its student."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from edgekit.contract import Fit
from edgekit.models.callbacks import Notify, StageProgress, of_stage
from edgekit.models.data import ImageSet
from edgekit.models.data.disk import folder_on_disk, joined, new_array
from edgekit.models.data.originals import stored_files
from edgekit.models.data.pixels import single_channel_if_gray, to_size
from edgekit.models.data.unlabelled import UNKNOWN, load_unlabelled
from edgekit.models.distill.teachers import Teacher
from edgekit.preprocess import ImageU8


def teacher_side_px(teacher: Teacher) -> int:
    """Return the largest side of the images that a teacher, or a member of an ensemble, crops; 0: it takes any."""
    members = teacher.members or (teacher,)
    return max(each.crop.resize_hw[0] if each.crop else 0 for each in members)


def images_for_teacher(
    part: ImageSet,
    teacher: Teacher,
    data: Path,
    *,
    contempt: str,
    fit: Fit,
    unlabelled: Path | None = None,
    folder: Path,
    notify: Notify,
    progress: StageProgress | None,
) -> ImageU8:
    """Return the images of `part` for a teacher: read again from their files if it takes larger ones.

    Args:
        part: Images of the data set, the unlabelled ones at the end.
        teacher: The teacher.
        data: The data set.
        contempt: See `edgekit.models.data.readers.load_dataset`.
        fit: How images that are not square become square.
        unlabelled: Folder or archive of the unlabelled images; None: there are none.
        folder: Folder for a file of the images, if they need more than a quarter of the free memory.
        notify: Called with messages for the user.
        progress: Called with (stage, images read, images in total).

    Raises:
        InputError: A file has changed or is damaged.
    """
    side_px, channels = teacher_side_px(teacher), part.images.shape[-1]
    labelled = part.subset(part.labels != UNKNOWN)
    if side_px <= part.images.shape[1] or labelled.names is None:
        return part.images
    reading = of_stage(progress, "reading images for the teacher")
    shape = (len(labelled), side_px, side_px, channels)
    images = new_array(folder_on_disk(math.prod(shape), "auto", folder, notify), shape)
    for index, _, image in stored_files(data, labelled, contempt, reading):
        square = to_size(image, side_px, fit)
        images[index] = single_channel_if_gray(square) if channels == 1 else np.broadcast_to(square, shape[1:])
    if unlabelled is None:
        return images
    more = load_unlabelled(unlabelled, side_px, channels == 1, reading, fit=fit, folder=folder, notify=notify)
    return joined(images, more)
