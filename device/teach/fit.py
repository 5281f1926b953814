"""Fit of a classifier on the features of pictures, with the accuracy on pictures that were held back, and advice.

    embedder = Embedder(size_px=160)
    views = np.stack([embedder.views(image_bgr) for image_bgr in images])   # (N, 2, features)
    fit = fit_classes(views, labels, ("cat", "dog"), groups)
    fit.probabilities(embedder.features([image_bgr]))                       # (1, classes)
    fit.is_unlike(embedder.features([image_bgr]))                           # (1,): shows none of the classes

The pictures are split into folds by groups (a video, a sub-folder, a time of recording), so that pictures of one
recording are either all fitted or all held back. Strength, temperature and threshold come from the held-back pictures.
A few hundred pictures take less than a second, so that an interactive program can fit again after each recording.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import UNCERTAIN
from edgekit.device.teach.linear import IntArray, LinearFit, Novelty, fit_linear, fit_novelty
from edgekit.device.teach.recordings import Picture
from edgekit.errors import InputError
from edgekit.preprocess import FloatArray
from edgekit.report.statistics import wilson_interval

STRENGTHS = (0.3, 0.1, 0.03)
_FOLDS = 5
# Share of held-back pictures of the taught classes that are not "uncertain" because of their distance.
_KEPT_SHARE = 0.98
_TEMPERATURES = np.geomspace(0.2, 8, 60)
_LEAST_PICTURES = 2


@dataclass(frozen=True, eq=False)
class HeldBack:
    """Results on pictures while they were held back, in the order of the pictures.

    Attributes:
        labels: Their classes (N,).
        probabilities: float32 (N, classes).
        distances: float32 (N,).
    """

    labels: IntArray
    probabilities: FloatArray
    distances: FloatArray

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the most probable class is the true one (N,)."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.labels)

    def confusions(self, classes: Sequence[str]) -> list[tuple[str, str, int]]:
        """Return (class, predicted class, number of pictures) for each kind of error, the most frequent one first."""
        predicted = self.probabilities.argmax(axis=1)
        pairs = zip(self.labels.tolist(), predicted.tolist(), strict=True)
        errors = Counter(sorted((label, other) for label, other in pairs if label != other))
        return [(classes[label], classes[other], count) for (label, other), count in errors.most_common()]


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted classifier.

    Attributes:
        linear: The classifier; its logits are divided by the temperature.
        novelty: The distance from the taught classes.
        threshold: A picture with a larger distance shows none of the classes.
        strength: The chosen strength of the regularisation.
        temperature: The factor of temperature scaling.
        held_back: Results on held-back pictures.
    """

    linear: LinearFit
    novelty: Novelty
    threshold: float
    strength: float
    temperature: float
    held_back: HeldBack

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, in the order of the columns of `probabilities`."""
        return self.linear.classes

    def probabilities(self, features: FloatArray) -> FloatArray:
        """Return the class probabilities (N, classes) of features (N, features)."""
        return self.linear.probabilities(features)

    def distances(self, features: FloatArray) -> FloatArray:
        """Return the distances (N,) of features (N, features) from the taught classes."""
        return self.novelty.distances(features)

    def is_unlike(self, features: FloatArray) -> NDArray[np.bool_]:
        """Return for features (N, features) whether a picture shows none of the taught classes (N,)."""
        return np.asarray(self.distances(features) > self.threshold)


def fit_classes(
    views: FloatArray,
    labels: IntArray,
    classes: Sequence[str],
    groups: Sequence[str] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Fit:
    """Fit a classifier on the features of pictures, and measure it on pictures that were held back (cross-validation).

    Strength and temperature are those with the smallest cross-entropy on the held-back pictures.

    Args:
        views: float32 (N, views, features): `Embedder.views` of each picture.
        labels: Numbers of the pictures' classes (N,).
        classes: Names of the classes.
        groups: The recording of each picture (N,); pictures of one recording are held back together. None: each
            picture is a recording.
        strengths: Strengths of the regularisation to choose from.
        progress: Called with (fits done, fits in total).

    Raises:
        InputError: There are fewer than two classes, or a class has fewer than two pictures.
    """
    check_counts(labels, classes)
    fold_of = folds(labels, groups)
    fold_numbers = np.unique(fold_of)
    total, done = len(strengths) * len(fold_numbers) + 1, 0  # one fit more: that of all pictures
    # (strengths, N, classes): the logits of each picture while it was held back.
    logits = np.zeros((len(strengths), len(labels), len(classes)), np.float32)
    for fold in fold_numbers:
        kept, held = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        features, targets = _flat(views[kept], labels[kept])
        part: LinearFit | None = None  # the fit with the strength before, from which the next one is found faster
        for index, strength in enumerate(strengths):
            part = fit_linear(features, targets, classes, strength, start=part)
            logits[index, held] = part.logits(views[held, 0])  # without the mirror images
            done += 1
            progress(done, total)

    choices = [_best_temperature(logits_of_strength, labels) for logits_of_strength in logits]
    losses = [loss for _temperature, loss in choices]
    best = losses.index(min(losses))
    strength, temperature = strengths[best], choices[best][0]

    features, targets = _flat(views, labels)
    linear = fit_linear(features, targets, classes, strength).with_temperature(temperature)
    progress(total, total)
    novelty, threshold, distances = fit_distance(views, labels, groups)
    probabilities = np.exp(_log_probabilities(logits[best] / np.float32(temperature)))
    return Fit(
        linear=linear,
        novelty=novelty,
        threshold=threshold,
        strength=strength,
        temperature=temperature,
        held_back=HeldBack(labels, probabilities, distances),
    )


def fit_distance(
    views: FloatArray, labels: IntArray, groups: Sequence[str] | None = None
) -> tuple[Novelty, float, FloatArray]:
    """Fit the distance from the taught classes; pictures of anything else have a larger distance.

    The arguments are those of `fit_classes`.

    Returns:
        The distance fitted on all pictures; its threshold, below which 98 % of the held-back pictures are; and the
        distances of the held-back pictures (N,).
    """
    fold_of = folds(labels, groups)
    distances = np.zeros(len(labels), np.float32)
    for fold in np.unique(fold_of):
        kept, held = fold_of != fold, fold_of == fold
        part = fit_novelty(*_flat(views[kept], labels[kept]))
        distances[held] = part.distances(views[held, 0])  # without the mirror images
    novelty = fit_novelty(*_flat(views, labels))
    return novelty, float(np.quantile(distances, _KEPT_SHARE)), distances


def check_counts(labels: IntArray, classes: Sequence[str]) -> None:
    """Check that there are two classes with at least two pictures each.

    Raises:
        InputError: There are fewer.
    """
    if len(classes) < 2:
        raise InputError(f"a classifier needs at least 2 classes, not {len(classes)}: add the pictures of another one")
    counts = np.bincount(labels, minlength=len(classes))
    few = [f"'{name}' ({count})" for name, count in zip(classes, counts, strict=True) if count < _LEAST_PICTURES]
    if few:
        raise InputError(f"a class needs at least {_LEAST_PICTURES} pictures: add some of {', '.join(few)}")


def folds(labels: IntArray, groups: Sequence[str] | None = None) -> IntArray:
    """Return the number of the fold of each picture (N,), for a cross-validation with at most 5 folds.

    Each fold has about the same share of each class. The pictures of one class and one group are in one fold; a group
    with pictures of two classes may be in two folds. Only a class with a single group is cut into consecutive parts,
    which makes its measured accuracy too high. Without `groups`, each picture is a group.
    """
    if groups is None:
        groups = [str(index) for index in range(len(labels))]
    fold_of_picture = np.zeros(len(labels), np.int64)
    for number in np.unique(labels):
        members = np.flatnonzero(labels == number)
        group_of_member = [groups[index] for index in members.tolist()]
        sizes = Counter(group_of_member)
        if len(sizes) == 1:
            # Parts of equal size: 0, 0, …, 1, 1, …
            fold_of_picture[members] = np.arange(len(members)) * min(_FOLDS, len(members)) // len(members)
        else:
            fold_of = _folds_of_groups(sizes)
            fold_of_picture[members] = [fold_of[group] for group in group_of_member]
    return fold_of_picture


def _folds_of_groups(sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the fold of each group of a class; `sizes` are the numbers of pictures.

    The largest groups come first, each into the fold with the fewest pictures. Groups of one size come in a fixed
    random order. Recordings made one after another look alike: in the order of time, they would always be in different
    folds, and the measured accuracy would be too high.
    """
    order = np.random.default_rng(0).permutation(list(sizes))
    pictures_in_fold = [0] * min(_FOLDS, len(sizes))
    fold_of: dict[str, int] = {}
    for group in sorted(order, key=lambda name: -sizes[name]):
        fold_of[group] = pictures_in_fold.index(min(pictures_in_fold))
        pictures_in_fold[fold_of[group]] += sizes[group]
    return fold_of


def _flat(views: FloatArray, labels: IntArray) -> tuple[FloatArray, IntArray]:
    """Return features (N * views, features) and labels (N * views,) in which each view is a picture of its own."""
    return views.reshape(-1, views.shape[-1]), np.repeat(labels, views.shape[1])


def _best_temperature(logits: FloatArray, labels: IntArray) -> tuple[float, float]:
    """Return the temperature with the smallest mean cross-entropy of logits (N, classes), and this cross-entropy."""
    losses = []
    for temperature in _TEMPERATURES:
        log_probabilities = _log_probabilities(logits / np.float32(temperature))
        losses.append(-float(log_probabilities[np.arange(len(labels)), labels].mean()))  # of the true classes
    best = int(np.argmin(losses))
    return float(_TEMPERATURES[best]), losses[best]


def _log_probabilities(logits: FloatArray) -> FloatArray:
    """Return the logarithms of the softmax of logits (N, classes)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


# Share of the pictures of two classes that are taken for each other, from which the page names them.
_ALIKE_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class RecordedFit:
    """A fit, its accuracy in words, and what to record next."""

    fit: Fit
    accuracy: str
    advice: str

    def judgement(self, features: FloatArray) -> dict[str, Any]:
        """Return what the fit sees in a picture with features (features,), ready for JSON.

        `label` is "uncertain" if the picture shows none of the classes: if `unlike` is above 1.
        """
        probabilities = self.fit.probabilities(features[None])[0].tolist()
        unlike = self._unlikeness(features)
        best = self.fit.classes[int(np.argmax(probabilities))]
        return {
            "probabilities": dict(zip(self.fit.classes, probabilities, strict=True)),
            "label": best if unlike <= 1 else UNCERTAIN,
            "unlike": unlike,
        }

    def _unlikeness(self, features: FloatArray) -> float:
        """Return the distance of a picture from the classes, scaled for the page.

        It is 0 for a typical held-back picture, and 1 at the threshold; above, a picture shows none of the classes.
        """
        typical = float(np.median(self.fit.held_back.distances))
        distance = float(self.fit.distances(features[None])[0])
        scale = max(self.fit.threshold - typical, 1e-6)  # not 0, if all distances are equal
        return max(0.0, (distance - typical) / scale)


def fit_recorded(classes: Mapping[str, Sequence[Picture]]) -> RecordedFit | None:
    """Return the fit of the recorded pictures of each class; None if fewer than two classes have enough pictures.

    Pictures whose features are not computed yet, and classes with too few pictures, are left out.
    """
    usable: dict[str, list[Picture]] = {}
    for name, recorded in classes.items():
        embedded = [picture for picture in recorded if picture.views is not None]
        if len(embedded) >= _LEAST_PICTURES:
            usable[name] = embedded
    if len(usable) < 2:
        return None
    pictures = [picture for embedded in usable.values() for picture in embedded]
    # (N, views, features). The condition is for the type: all pictures have views.
    views = np.stack([picture.views for picture in pictures if picture.views is not None])
    groups = [picture.group for picture in pictures]
    labels = np.repeat(np.arange(len(usable)), [len(embedded) for embedded in usable.values()])
    fit = fit_classes(views, labels, tuple(usable), groups)
    recorded_once = [name for name, embedded in usable.items() if len({picture.group for picture in embedded}) == 1]
    return RecordedFit(fit, _accuracy_text(fit.held_back), _advice(fit, recorded_once))


def _accuracy_text(held_back: HeldBack) -> str:
    """Return the accuracy on held-back pictures with its 95 % interval, for the page."""
    correct, total = int(held_back.correct.sum()), len(held_back.labels)
    low, high = wilson_interval(correct, total)
    return f"{correct} of {total} held-back pictures right ({low:.0%} to {high:.0%})"


def _advice(fit: Fit, recorded_once: Sequence[str]) -> str:
    """Return a sentence on what to record next; empty if nothing is needed.

    - If two classes are often taken for each other: more pictures of the class that has fewer.
    - Otherwise, if classes have one recording only (`recorded_once`): a second recording of them.
    """
    pictures = Counter(fit.classes[label] for label in fit.held_back.labels)  # by class
    wrong: Counter[tuple[str, str]] = Counter()  # errors by pair of classes, in either direction
    for label, predicted, count in fit.held_back.confusions(fit.classes):
        wrong[min(label, predicted), max(label, predicted)] += count
    if wrong:
        (first, second), count = wrong.most_common(1)[0]
        if count / (pictures[first] + pictures[second]) >= _ALIKE_SHARE:
            fewer = min(first, second, key=lambda name: pictures[name])
            return f"{first} and {second} look alike: record more of {fewer}."
    if recorded_once:
        names = " and ".join(recorded_once[:2])
        return f"Record {names} once more, in another place or light: only then the figure is reliable."
    return ""
