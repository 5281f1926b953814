"""The fit of the pictures that a session has recorded: its accuracy in words, advice, and what it finds in a frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.contract import UNCERTAIN
from edgekit.device.teach.fit import Fit, fit_classes
from edgekit.device.teach.recordings import Picture
from edgekit.preprocess import FloatArray
from edgekit.report.statistics import wilson_interval

# A class with fewer pictures is not fitted.
_LEAST_PICTURES = 2
# Share of the pictures of two classes that are taken for each other, from which the page names them.
_ALIKE_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class RecordedFit:
    """A fit, its accuracy in words, and what to record next."""

    fit: Fit
    accuracy: str
    advice: str

    def judgement(self, features: FloatArray) -> dict[str, Any]:
        """Return probabilities, label and unlikeness of a picture with features (features,), ready for JSON."""
        probabilities = self.fit.probabilities(features[None])[0].tolist()
        unlike = self._unlikeness(features)
        best = self.fit.classes[int(np.argmax(probabilities))]
        return {
            "probabilities": dict(zip(self.fit.classes, probabilities, strict=True)),
            "label": best if unlike <= 1 else UNCERTAIN,
            "unlike": unlike,
        }

    def _unlikeness(self, features: FloatArray) -> float:
        """Return how unlike the classes a picture is: 0 as a typical held-back picture, above 1 none of them."""
        typical = float(np.median(self.fit.held_back.distances))
        distance = float(self.fit.distances(features[None])[0])
        return max(0.0, (distance - typical) / max(self.fit.threshold - typical, 1e-6))


def fit_recorded(classes: Mapping[str, Sequence[Picture]]) -> RecordedFit | None:
    """Return the fit of the classes that have enough pictures with features; None if there are fewer than two."""
    usable = {
        label: embedded
        for label, pictures in classes.items()
        if len(embedded := [each for each in pictures if each.views is not None]) >= _LEAST_PICTURES
    }
    if len(usable) < 2:
        return None
    pictures = [each for of_class in usable.values() for each in of_class]
    labels = np.repeat(np.arange(len(usable)), [len(of_class) for of_class in usable.values()])
    views = np.stack([each.views for each in pictures if each.views is not None])
    fit = fit_classes(views, labels, tuple(usable), [each.group for each in pictures])
    once = [label for label, of_class in usable.items() if len({each.group for each in of_class}) == 1]
    return RecordedFit(fit, *_judged(fit, once))


def _judged(fit: Fit, once: Sequence[str]) -> tuple[str, str]:
    """Return the accuracy on held-back pictures, and what to record next; `once`: classes of one recording only."""
    held = fit.held_back
    correct, total = int(held.correct.sum()), len(held.labels)
    low, high = wilson_interval(correct, total)
    accuracy = f"{correct} of {total} held-back pictures right ({low:.0%} to {high:.0%})"
    counts = Counter(fit.classes[label] for label in held.labels)
    wrong: Counter[tuple[str, str]] = Counter()
    for label, predicted, count in held.confusions(fit.classes):
        wrong[min(label, predicted), max(label, predicted)] += count
    for (first, second), count in wrong.most_common(1):
        if count / (counts[first] + counts[second]) >= _ALIKE_SHARE:
            fewer = min(first, second, key=lambda name: counts[name])
            return accuracy, f"{first} and {second} look alike: record more of {fewer}."
    if once:
        names = " and ".join(once[:2])
        return accuracy, f"Record {names} once more, in another place or light: only then the figure is reliable."
    return accuracy, ""
