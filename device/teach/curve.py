"""The accuracy that twice the pictures would bring, extrapolated from fits of half and a quarter of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.device.teach.fit import Fit
from edgekit.device.teach.linear import IntArray, fit_linear
from edgekit.preprocess import FloatArray

_SHARES = (0.25, 0.5)
_DRAWS = 3
# Share of the pictures with which the held-back ones of `fit_classes` were classified.
_FITTED_SHARE = 0.8
_LEAST_PER_CLASS = 8


def accuracy_with_twice(fit: Fit, views: FloatArray, labels: IntArray, groups: Sequence[str]) -> float | None:
    """Return the expected accuracy (0..1) with twice the pictures; None with few pictures or recordings of a class.

    The error falls by a power of the number of pictures; the power comes from fits of a part of the recordings.

    Args:
        fit: The fit of all pictures.
        views, labels, groups: The pictures, as for `fit_classes`.
    """
    if np.bincount(labels, minlength=len(fit.classes)).min() < _LEAST_PER_CLASS:
        return None
    recordings = np.unique(np.asarray(groups), return_inverse=True)[1]
    points = [(_FITTED_SHARE, 1 - float(fit.held_back.correct.mean()))]
    for share in _SHARES:
        errors = []
        for draw in range(_DRAWS):
            chosen = _drawn(labels, recordings, share, np.random.default_rng(draw))
            if chosen.all() or len(np.unique(labels[~chosen])) < len(fit.classes):
                return None
            features = views[chosen].reshape(-1, views.shape[-1])
            part = fit_linear(features, np.repeat(labels[chosen], views.shape[1]), fit.classes, fit.strength)
            errors.append(float((part.logits(views[~chosen, 0]).argmax(axis=1) != labels[~chosen]).mean()))
        points.append((share, float(np.mean(errors))))
    least = 1 / len(labels)
    sizes, errors_seen = np.log([point[0] for point in points]), np.log([max(point[1], least) for point in points])
    power = min(float(np.polyfit(sizes, errors_seen, 1)[0]), 0.0)
    return float(1 - points[0][1] * 2.0**power)


def _drawn(labels: IntArray, recordings: IntArray, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask (N,) of whole recordings with about `share` of the pictures of each class."""
    chosen = np.zeros(len(labels), np.bool_)
    for number in np.unique(labels):
        members = np.flatnonzero(labels == number)
        wanted = max(round(share * len(members)), 1)
        for recording in random.permutation(np.unique(recordings[members])):
            if chosen[members].sum() >= wanted:
                break
            chosen[members[recordings[members] == recording]] = True
    return chosen
