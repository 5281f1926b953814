"""The public function `edgekit.teach`: one model file from a folder of pictures, without torch and in seconds.

taught = edgekit.teach("pictures", output="my.onnx")
print(taught.accuracy, taught.interval)
edgekit.load_model("my.onnx")
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import Contract
from edgekit.device.teach import Teaching
from edgekit.device.teach.embed import Embedder
from edgekit.device.teach.fit import Fit, check_counts, fit_classes
from edgekit.device.teach.linear import IntArray, direction, fit_linear
from edgekit.device.teach.pictures import PictureFile, find_pictures, read_pictures
from edgekit.device.teach.write import check_output, write_model
from edgekit.errors import InputError
from edgekit.options import takes
from edgekit.preprocess import FloatArray
from edgekit.report.statistics import wilson_interval
from edgekit.text import counted

# Above so many pictures, mirrored copies are left out: they bring little there, and take as much memory.
_MIRRORED_PICTURES = 2000
_FEW_PICTURES = 10
# Two pictures whose directions have a larger cosine are of one recording: 99 % of flowers have no other picture that
# is so near, 95 % of the frames of two videos, 0.2 s apart, have one.
_SAME_RECORDING = 0.92
_MOST_COMPARED = 1000


@dataclass(frozen=True, eq=False)
class Taught:
    """Result of `teach`.

    Attributes:
        path: The written file.
        contract: Its contract.
        fit: The fit, with the results on held-back pictures.
        counts: Number of pictures of each class.
        recordings: Number of recordings of each class.
        with_twice: Expected accuracy with twice the pictures, 0..1; None if there are too few to say.
    """

    path: Path
    contract: Contract
    fit: Fit
    counts: dict[str, int]
    recordings: dict[str, int]
    with_twice: float | None

    @property
    def accuracy(self) -> float:
        """Share of the held-back pictures whose class is right, 0..1."""
        return float(self.fit.held_back.correct.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `accuracy`."""
        correct = self.fit.held_back.correct
        return wilson_interval(int(correct.sum()), len(correct))


@dataclass(frozen=True, eq=False)
class _Pictures:
    """The features of all pictures: views (N, views, features), class numbers, files and recordings (N,).

    `without_recordings` are the classes of which no recording is known.
    """

    classes: tuple[str, ...]
    views: FloatArray
    labels: IntArray
    files: list[str]
    groups: list[str]
    without_recordings: set[str]


@takes(Teaching)
def teach(options: Teaching) -> Taught:
    """Fit a classifier of own things on the features of a pretrained net, and write it to one file.

    `Teaching` describes the arguments.

    Raises:
        InputError: The pictures cannot be used, or an option does not fit.
        GateError: The written file computes other values than the fit.
        StorageError: The file cannot be written.
    """
    if options.output is None:
        raise InputError("the name of the model file is missing: give -o FILE.onnx (output=)")
    output, folder = Path(options.output), Path(options.pictures)
    check_output(output)  # before the long work
    files = find_pictures(folder, options.notify)
    embedder = Embedder(options.image_size_px, options.subject, options.threads)
    pictures = _embedded(files, embedder, options)
    check_counts(pictures.labels, pictures.classes)
    fit = fit_classes(
        pictures.views,
        pictures.labels,
        pictures.classes,
        pictures.groups,
        progress=lambda done, total: options.progress("fitting", done, total),
    )
    numbers = np.bincount(pictures.labels, minlength=len(pictures.classes)).tolist()
    taught = Taught(
        path=output,
        contract=write_model(fit, output, embedder, dataset=folder.resolve().name),
        fit=fit,
        counts=dict(zip(pictures.classes, numbers, strict=True)),
        recordings=_recordings_per_class(pictures),
        with_twice=accuracy_with_twice(fit, pictures.views, pictures.labels, pictures.groups),
    )
    _warn(taught, pictures, options.notify)
    return taught


def _embedded(files: Sequence[PictureFile], embedder: Embedder, options: Teaching) -> _Pictures:
    """Read all pictures and return their features; only one picture is in memory at a time.

    A file that cannot be read is skipped with a warning. A picture without a known recording is one of its own.
    """
    classes = tuple(dict.fromkeys(file.label for file in files))  # each once, in order
    mirrored = len(files) <= _MIRRORED_PICTURES
    views: list[FloatArray] = []
    labels: list[int] = []
    files_of: list[str] = []
    groups: list[str] = []
    for done, file in enumerate(files):
        options.progress("reading pictures", done, len(files))
        try:
            for image in read_pictures(file, options.notify):
                # (2, features) of the picture and its mirror image, or (1, features).
                views.append(embedder.views(image) if mirrored else embedder.features([image]))
                labels.append(classes.index(file.label))
                files_of.append(str(file.path))
                groups.append(file.group or str(file.path))
        except InputError as error:
            options.notify(f"{error}: skipped")
    options.progress("reading pictures", len(files), len(files))
    if not views:
        raise InputError(f"none of the pictures of '{options.pictures}' can be read")
    without_recordings = set(classes) - {file.label for file in files if file.group}
    return _Pictures(classes, np.stack(views), np.array(labels, np.int64), files_of, groups, without_recordings)


def _recordings_per_class(pictures: _Pictures) -> dict[str, int]:
    """Return the number of recordings of each class."""
    groups: dict[str, set[str]] = {label: set() for label in pictures.classes}
    for number, group in zip(pictures.labels, pictures.groups, strict=True):
        groups[pictures.classes[number]].add(group)
    return {label: len(of_class) for label, of_class in groups.items()}


def _warn(taught: Taught, pictures: _Pictures, notify: Callable[[str], None]) -> None:
    """Warn of what makes the accuracy low or unreliable: few pictures or recordings, and pictures in two classes."""
    for label, count in taught.counts.items():
        if count < _FEW_PICTURES:
            notify(f"class '{label}' has {count} pictures only: add more of them")
        if taught.recordings[label] == 1:
            notify(
                f"class '{label}' has one recording only: its accuracy in another place or light is not known; "
                "add a second recording"
            )
    # Faces are always alike, so likeness shows hidden recordings of whole images only.
    is_image = taught.contract.subject == "image"
    alike = [label for label in pictures.classes if is_image and _has_hidden_recordings(pictures, label)]
    if alike:
        notify(
            f"many pictures of {', '.join(map(repr, alike))} are almost equal, as those of one recording: elsewhere "
            "the accuracy is lower; put the pictures of each recording into a folder of its own "
            "(CLASS/RECORDING/picture)"
        )
    if twice := _in_two_classes(pictures):
        found = counted(len(twice), "picture is", "pictures are")
        first, second = twice[0]
        notify(f"{found} in two classes, such as '{first}' and '{second}': delete the wrong one")


def _has_hidden_recordings(pictures: _Pictures, label: str) -> bool:
    """Return whether a class seems to have recordings that are not stated.

    This is so if most of its pictures are almost equal to another one. At most `_MOST_COMPARED` pictures are compared.
    """
    if label not in pictures.without_recordings:
        return False
    members = np.flatnonzero(pictures.labels == pictures.classes.index(label))
    compared = np.random.default_rng(0).permutation(members)[:_MOST_COMPARED]
    directions = direction(pictures.views[compared, 0])  # of the pictures, not of their mirror images
    cosines = directions @ directions.T  # (compared, compared)
    np.fill_diagonal(cosines, 0)  # of a picture with itself
    return bool((cosines.max(axis=1) > _SAME_RECORDING).mean() > 0.5)


def _in_two_classes(pictures: _Pictures) -> list[tuple[str, str]]:
    """Return pairs of files with the same picture in different classes; equal pictures have equal features."""
    found: list[tuple[str, str]] = []
    first_with: dict[bytes, int] = {}  # by the digest of the features, the index of the first picture that has them
    for index, features in enumerate(pictures.views[:, 0]):  # (N, features), without mirror images
        first = first_with.setdefault(hashlib.sha256(features.tobytes()).digest(), index)
        if pictures.labels[first] != pictures.labels[index]:
            found.append((pictures.files[first], pictures.files[index]))
    return found


_SHARES = (0.25, 0.5)
_DRAWS = 3
# Share of the pictures with which the held-back ones of `fit_classes` were classified.
_FITTED_SHARE = 0.8
_LEAST_PER_CLASS = 8


def accuracy_with_twice(fit: Fit, views: FloatArray, labels: IntArray, groups: Sequence[str]) -> float | None:
    """Return the expected accuracy (0..1) with twice the pictures; None with few pictures or recordings of a class.

    The learning curve is taken as error = constant * pictures ** power. The power comes from fits of a part of the
    recordings.

    Args:
        fit: The fit of all pictures.
        views, labels, groups: The pictures, as for `fit_classes`.
    """
    if np.bincount(labels, minlength=len(fit.classes)).min() < _LEAST_PER_CLASS:
        return None
    _names, recordings = np.unique(np.asarray(groups), return_inverse=True)  # number of each picture's recording
    error_now = 1 - float(fit.held_back.correct.mean())
    # Points of the learning curve: the first one is the cross-validation, which fits four of five parts.
    shares, errors = [_FITTED_SHARE], [error_now]
    for share in _SHARES:
        errors_of_draws = []
        for draw in range(_DRAWS):
            chosen = _drawn(labels, recordings, share, np.random.default_rng(draw))
            if chosen.all() or len(np.unique(labels[~chosen])) < len(fit.classes):
                return None  # too few recordings to hold some of each class back
            features = views[chosen].reshape(-1, views.shape[-1])  # each view is a picture
            part = fit_linear(features, np.repeat(labels[chosen], views.shape[1]), fit.classes, fit.strength)
            predicted = part.logits(views[~chosen, 0]).argmax(axis=1)  # view 0: the picture, not its mirror image
            errors_of_draws.append(float((predicted != labels[~chosen]).mean()))
        shares.append(share)
        errors.append(float(np.mean(errors_of_draws)))
    # Zero errors count as one wrong picture, because the logarithm of 0 is infinite.
    log_errors = np.log(np.maximum(errors, 1 / len(labels)))
    slope, _offset = np.polyfit(np.log(shares), log_errors, 1)
    power = min(float(slope), 0.0)  # more pictures make nothing worse
    return float(1 - error_now * 2.0**power)


def _drawn(labels: IntArray, recordings: IntArray, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask (N,) of randomly chosen recordings, with about `share` of the pictures of each class.

    `labels` and `recordings` are the numbers of each picture's class and recording (N,).
    """
    chosen = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        of_class = labels == label
        wanted = max(round(share * of_class.sum()), 1)
        for recording in random.permutation(np.unique(recordings[of_class])):
            if chosen[of_class].sum() >= wanted:
                break
            chosen |= of_class & (recordings == recording)
    return chosen
