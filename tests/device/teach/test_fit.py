"""A fit: recordings are held back as a whole, and classes, confidence and distance come from the held-back pictures."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.device.teach.fit import fit_classes, folds
from edgekit.device.teach.linear import IntArray, direction, fit_linear, fit_novelty
from edgekit.device.teach.teach import accuracy_with_twice
from edgekit.errors import InputError
from edgekit.preprocess import FloatArray

CLASSES = ("a", "b", "c")


def clouds(
    per_class: tuple[int, ...], spread: float, width: int = 40, noise: float = 0.0
) -> tuple[FloatArray, IntArray]:
    """Return views (N, 1, width) around one centre per class, and labels, of which a share `noise` is wrong."""
    random = np.random.default_rng(0)
    centres = random.uniform(0, 2, (len(per_class), width))
    labels = np.repeat(np.arange(len(per_class)), per_class)
    features = np.maximum(centres[labels] + random.normal(0, spread, (len(labels), width)), 0)
    wrong = random.random(len(labels)) < noise
    labels[wrong] = (labels[wrong] + 1) % len(per_class)
    return features[:, None].astype(np.float32), labels.astype(np.int64)


def test_a_recording_is_never_on_both_sides() -> None:
    labels = np.repeat([0, 1], 20)
    groups = [f"{label}/{index // 4}" for index, label in enumerate(labels)]
    found = folds(labels, groups)
    assert len(np.unique(found)) == 5
    for group in set(groups):
        assert len({fold for fold, name in zip(found, groups, strict=True) if name == group}) == 1
    for label in (0, 1):
        assert np.bincount(found[labels == label]).tolist() == [4] * 5


def test_a_class_with_one_recording_is_cut_into_parts_in_order() -> None:
    found = folds(np.zeros(10, np.int64), ["video"] * 10)
    assert found.tolist() == sorted(found)
    assert len(np.unique(found)) == 5


def test_leaked_recordings_do_not_count_as_accuracy() -> None:
    # Each recording has its own centre, which has nothing to do with the class of another recording.
    random = np.random.default_rng(1)
    recordings = np.repeat(np.arange(10), 6)
    features = random.uniform(0, 2, (10, 40))[recordings] + random.normal(0, 0.02, (60, 40))
    views, labels = np.maximum(features, 0)[:, None].astype(np.float32), recordings % 2
    together = fit_classes(views, labels, CLASSES[:2], [str(each) for each in recordings])
    apart = fit_classes(views, labels, CLASSES[:2])
    assert apart.held_back.correct.mean() == 1
    assert together.held_back.correct.mean() < 0.8


def test_classes_are_separated_and_every_class_counts_equally() -> None:
    views, labels = clouds((60, 60, 6), 0.5)
    fit = fit_classes(views, labels, CLASSES)
    fresh, truths = clouds((60, 60, 60), 0.5)
    right = fit.probabilities(fresh[:, 0]).argmax(axis=1) == truths
    assert right[truths == 2].mean() > 0.9
    np.testing.assert_allclose(fit.probabilities(fresh[:, 0]).sum(axis=1), 1, rtol=1e-5)


def test_wrong_labels_lower_the_confidence() -> None:
    clean, noisy = (fit_classes(*clouds((40, 40, 40), 0.3, noise=noise), CLASSES) for noise in (0.0, 0.4))
    confidence = [each.held_back.probabilities.max(axis=1).mean() for each in (clean, noisy)]
    assert confidence[0] > 0.9
    # A calibrated confidence is near the accuracy.
    assert confidence[1] == pytest.approx(noisy.held_back.correct.mean(), abs=0.12)


def test_other_things_are_unlike_and_own_things_are_not() -> None:
    views, labels = clouds((40, 40), 0.2)
    fit = fit_classes(views, labels, CLASSES[:2])
    others = np.random.default_rng(7).uniform(0, 2, (50, 40)).astype(np.float32)
    assert fit.is_unlike(others).mean() > 0.9
    assert fit.is_unlike(views[:, 0]).mean() < 0.1


def loss(parameters: np.ndarray, features: FloatArray, labels: IntArray, strength: float) -> float:
    """Return the loss of a classifier (classes, features + 1) of standardised features, its last column the biases."""
    inputs = direction(features).astype(np.float64)
    std = np.maximum(inputs.std(axis=0), 0.05 * inputs.std(axis=0).max())
    logits = (inputs - inputs.mean(axis=0)) / std @ parameters[:, :-1].T + parameters[:, -1]
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    mean_of_classes = np.mean([losses[labels == label].mean() for label in np.unique(labels)])
    return float(mean_of_classes + strength / 2 * (parameters[:, :-1] ** 2).sum())


@pytest.mark.parametrize("begins", ["at zero", "at another fit", "at a fit of other classes"])
def test_the_loss_has_its_minimum_where_every_class_counts_equally(begins: str) -> None:
    views, labels = clouds((30, 20, 5), 0.8, width=6)
    features = views[:, 0]
    features[:, 5] = 1 + 0.001 * np.arange(len(features))  # hardly varies
    start = {
        "at zero": None,
        "at another fit": fit_linear(features, labels, CLASSES, 3.0),
        "at a fit of other classes": fit_linear(features, labels % 2, CLASSES[:2], 0.1),
    }[begins]
    fit = fit_linear(features, labels, CLASSES, 0.1, start)
    bias = fit.bias + fit.weight @ direction(features).mean(axis=0)
    found = np.concatenate([fit.weight * fit.std, bias[:, None]], axis=1).astype(np.float64)
    steps = 1e-4 * np.eye(found.size).reshape(-1, *found.shape)
    slopes = [loss(found + step, features, labels, 0.1) - loss(found - step, features, labels, 0.1) for step in steps]
    assert np.abs(slopes).max() / 2e-4 < 2e-3


def test_a_class_without_a_picture_has_the_smallest_logit_and_a_temperature_divides_all() -> None:
    views, labels = clouds((20, 20), 0.2)
    fit = fit_linear(views[:, 0], labels, CLASSES, 0.1)
    assert (fit.logits(views[:, 0]).argmin(axis=1) == 2).all()
    np.testing.assert_allclose(fit.with_temperature(4.0).logits(views[:, 0]), fit.logits(views[:, 0]) / 4, atol=1e-5)


def test_the_distance_is_relative_to_the_mean_of_all_classes() -> None:
    features = np.array([[4, 0, 0], [1, 0, 0], [0, 9, 0], [0, 0, 0], [1, 1, 1]], np.float32)
    novelty = fit_novelty(features[:3], np.array([0, 0, 1]))
    # The directions of the classes are (1, 0, 0) and (0, 1, 0), and that of their mean is (0.5, 0.5, 0) ** 0.5.
    distances = [0.5**1.5, 0.5**1.5, 0.5**1.5, 1, 1 - (1 - 0.5**0.5) / 3**0.5]
    np.testing.assert_allclose(novelty.distances(features), distances, atol=1e-6)


def test_few_classes_or_pictures_are_an_error() -> None:
    views, labels = clouds((5, 1), 0.1)
    with pytest.raises(InputError):
        fit_classes(views, labels, CLASSES[:2])
    with pytest.raises(InputError):
        fit_classes(views[:5], labels[:5], CLASSES[:1])


def test_confusions_are_counted() -> None:
    views, labels = clouds((30, 30, 30), 0.3, noise=0.2)
    held_back = fit_classes(views, labels, CLASSES).held_back
    confusions = held_back.confusions(CLASSES)
    assert sum(count for _, _, count in confusions) == (~held_back.correct).sum()
    assert [count for _, _, count in confusions] == sorted((count for _, _, count in confusions), reverse=True)


def test_more_pictures_promise_more_where_the_error_falls() -> None:
    views, labels = clouds((40, 40, 40), 1.6)
    groups = [str(index) for index in range(len(labels))]
    fit = fit_classes(views, labels, CLASSES)
    promised = accuracy_with_twice(fit, views, labels, groups)
    assert promised is not None
    assert fit.held_back.correct.mean() <= promised <= 1
    assert accuracy_with_twice(fit, views, labels, ["one"] * 40 + groups[40:]) is None
