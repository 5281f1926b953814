"""A linear classifier on features: multinomial logistic regression, fitted in numpy.

    fit = fit_linear(features, labels, ("cat", "dog"), strength=0.1)
    probabilities = fit.probabilities(features)

The square roots of the features are scaled to one length (`direction`) and standardised. The weights are regularised
(L2). Every class counts equally, however many pictures it has. `fit.py` chooses the strength of the regularisation.

The distance of a picture from everything taught is 1 - the largest over the classes of z·(p_class - p_all / 2), where z
is the direction of the picture's features, p_class the direction of the mean of a class and p_all that of all pictures:
a relative cosine distance, like the relative Mahalanobis distance (Ren et al. 2021, arXiv 2106.09022). The term of
p_all separates a class that was not taught from the taught ones better (AUROC 0.73 instead of 0.67 for flowers), and
other things as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgekit.preprocess import FloatArray, softmax

IntArray: TypeAlias = NDArray[np.int64]
_Function: TypeAlias = Callable[[FloatArray], tuple[float, FloatArray]]
# A step of L-BFGS: change of the point s, change of the gradient y, and 1 / (s·y).
_Steps: TypeAlias = deque[tuple[FloatArray, FloatArray, Any]]

# L-BFGS: number of kept steps, and limits of the search.
_MEMORY, _MOST_STEPS, _TOLERANCE = 8, 200, 1e-4
_SUFFICIENT_DECREASE, _MOST_HALVINGS = 1e-4, 20
# The search ends when a step decreases the value by less than this share.
_LEAST_DECREASE = 1e-7
# Shares of the largest standard deviation below which a feature is not stretched further.
_LEAST_SHARE = 0.05
LEAST_LENGTH = 1e-6


@dataclass(frozen=True, eq=False)
class LinearFit:
    """Logits are `direction(features) @ weight.T + bias`; the standardisation and the temperature are part of both.

    Attributes:
        classes: The labels.
        weight: float32 (classes, features).
        bias: float32 (classes,).
        std: The standard deviations by which the directions were divided, float32 (features,).
    """

    classes: tuple[str, ...]
    weight: FloatArray
    bias: FloatArray
    std: FloatArray

    def logits(self, features: FloatArray) -> FloatArray:
        """Return the logits (N, classes) of features (N, features)."""
        return direction(features) @ self.weight.T + self.bias

    def probabilities(self, features: FloatArray) -> FloatArray:
        """Return the class probabilities (N, classes) of features (N, features)."""
        return softmax(self.logits(features))

    def with_temperature(self, temperature: float) -> LinearFit:
        """Return the fit whose logits are divided by `temperature`."""
        scale = np.float32(1 / temperature)
        return replace(self, weight=self.weight * scale, bias=self.bias * scale)


def direction(features: FloatArray) -> FloatArray:
    """Return the square roots of features (N, features), each row scaled to the length 1; negative ones count as 0."""
    roots = np.sqrt(np.maximum(features, 0))
    scaled: FloatArray = roots / np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), np.float32(LEAST_LENGTH))
    return scaled


def fit_linear(
    features: FloatArray, labels: IntArray, classes: Sequence[str], strength: float, start: LinearFit | None = None
) -> LinearFit:
    """Return the classifier that minimises the mean cross-entropy + strength / 2 * the sum of squared weights.

    Every class has the same share in the mean, however many pictures it has.

    Args:
        features: float32 (N, features).
        labels: Numbers of the classes (N,).
        classes: The names of the classes. The pictures of the other classes lower the bias of a class without a
            picture, so that its logit is the smallest one.
        strength: Strength of the L2 regularisation of the weights on standardised features.
        start: A fit of similar pictures or strength, which shortens the search.
    """
    inputs = direction(features)  # (N, features), rows of length 1
    mean, std = inputs.mean(axis=0), inputs.std(axis=0)
    # A feature that hardly varies is not stretched to the variance of the others.
    std = np.maximum(std, np.float32(_LEAST_SHARE) * max(float(std.max()), LEAST_LENGTH))
    inputs = (inputs - mean) / std
    count = len(classes)
    targets = np.eye(count, dtype=np.float32)[labels]  # (N, classes), one-hot
    pictures_of_class = np.maximum(targets.sum(axis=0), 1)  # (classes,)
    # (N, 1): the weight of a picture in the loss. Every class has the same sum, and all together have 1.
    picture_weight = (targets @ (1 / pictures_of_class))[:, None] / np.float32(np.unique(labels).size)
    # Weights (classes * features,) and then biases (classes,).
    first = np.zeros(count * (inputs.shape[1] + 1), np.float32)  # where the search begins
    if start is not None and start.weight.shape == (count, inputs.shape[1]):
        # `start` classifies directions; the same classifier for standardised ones.
        first = np.concatenate([(start.weight * std).ravel(), start.bias + start.weight @ mean]).astype(np.float32)
    found = _minimise(lambda flat: _loss_and_gradient(flat, inputs, targets, picture_weight, strength), first)
    # Back to the classifier of directions that are not standardised.
    weight = found[:-count].reshape(count, -1) / std  # (classes, features)
    return LinearFit(tuple(classes), weight, bias=found[-count:] - weight @ mean, std=std)


def _loss_and_gradient(
    flat: FloatArray, inputs: FloatArray, targets: FloatArray, picture_weight: FloatArray, strength: float
) -> tuple[float, FloatArray]:
    """Return the loss of a linear classifier, and the loss's gradient in the layout of `flat`.

    Args:
        flat: The weights (classes * features,) and then the biases (classes,).
        inputs: (N, features).
        targets: One-hot (N, classes).
        picture_weight: Weight of each picture in the loss (N, 1).
        strength: Strength of the L2 regularisation.
    """
    count = targets.shape[1]
    weight, bias = flat[:-count].reshape(count, -1), flat[-count:]
    logits = inputs @ weight.T + bias
    logits -= logits.max(axis=1, keepdims=True)  # so that no exponential overflows
    exponentials = np.exp(logits)
    total = exponentials.sum(axis=1, keepdims=True)
    cross_entropy = np.log(total) - (logits * targets).sum(axis=1, keepdims=True)  # (N, 1)
    loss = float((picture_weight * cross_entropy).sum(dtype=np.float64))
    loss += strength / 2 * float((weight * weight).sum(dtype=np.float64))
    logit_gradient = (exponentials / total - targets) * picture_weight
    weight_gradient = logit_gradient.T @ inputs + strength * weight
    gradient = np.concatenate([weight_gradient.ravel(), logit_gradient.sum(axis=0)])
    return loss, gradient.astype(np.float32)


def _minimise(function: _Function, start: FloatArray) -> FloatArray:
    """Return the minimum by L-BFGS (Nocedal and Wright, algorithm 7.5) with a backtracking line search.

    `function` returns the value and the gradient at a point.
    """
    point = start
    value, gradient = function(point)
    steps: _Steps = deque(maxlen=_MEMORY)  # the latest ones
    for _ in range(_MOST_STEPS):
        if np.abs(gradient).max() < _TOLERANCE:
            break
        descent = -_inverse_hessian_times(gradient, steps)
        slope = float(descent @ gradient)
        # Without steps the descent is the negative gradient, whose length is arbitrary.
        length = 1.0 if steps else min(1.0, 1.0 / float(np.abs(gradient).sum()))
        for _ in range(_MOST_HALVINGS):
            candidate = point + np.float32(length) * descent
            new_value, new_gradient = function(candidate)
            if new_value <= value + _SUFFICIENT_DECREASE * length * slope:
                break
            length /= 2
        else:
            break  # no length decreases the value
        point_change, gradient_change = candidate - point, new_gradient - gradient
        curvature = point_change @ gradient_change
        if curvature > 0:
            steps.append((point_change, gradient_change, 1 / curvature))
        has_converged = value - new_value < _LEAST_DECREASE * max(abs(value), 1.0)
        point, value, gradient = candidate, new_value, new_gradient
        if has_converged:
            break
    return point


def _inverse_hessian_times(gradient: FloatArray, steps: _Steps) -> FloatArray:
    """Return the product of the estimated inverse Hessian and the gradient.

    This is the two-loop recursion of L-BFGS: Nocedal and Wright, algorithm 7.4, with its names s, y and alpha.
    """
    result = gradient.copy()
    alphas = []
    for s, y, inverse in reversed(steps):
        alphas.append(inverse * (s @ result))
        result -= alphas[-1] * y
    if steps:
        # The first estimate of the inverse Hessian: a multiple of the identity, from the latest step.
        s, y, _ = steps[-1]
        result *= (s @ y) / (y @ y)
    for (s, y, inverse), alpha in zip(steps, reversed(alphas), strict=True):
        result += (alpha - inverse * (y @ result)) * s
    return result


_SHARE_OF_ALL = np.float32(0.5)


@dataclass(frozen=True, eq=False)
class Novelty:
    """The distance of pictures from everything taught, see the module; `vectors` are p_class - p_all / 2.

    Attributes:
        vectors: float32 (classes, features).
    """

    vectors: FloatArray

    def distances(self, features: FloatArray) -> FloatArray:
        """Return the distances (N,) of features (N, features)."""
        nearest: FloatArray = 1 - (direction(features) @ self.vectors.T).max(axis=1)
        return nearest


def fit_novelty(features: FloatArray, labels: IntArray) -> Novelty:
    """Return the distance from pictures with features (N, features) and numbers of their classes (N,)."""
    directions = direction(features)
    p_class = np.stack([_unit(directions[labels == number].mean(axis=0)) for number in np.unique(labels)])
    p_all = _unit(p_class.mean(axis=0))
    return Novelty(p_class - _SHARE_OF_ALL * p_all)


def _unit(vector: FloatArray) -> FloatArray:
    """Return a vector scaled to the length 1."""
    return vector / max(float(np.linalg.norm(vector)), LEAST_LENGTH)
