"""FER+ votes for FER-2013: ten people per image chose its expression (Barsoum et al., arXiv 1608.01041).

Two formats are supported: Microsoft's `fer2013new.csv`, whose row i belongs to row i of Kaggle's `fer2013.csv`, and a
CSV with the column `kaggle_path`, the image file's path below the folder that contains `train/` and `test/`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.data import EXPRESSIONS, DataSet, ImageSet
from edgekit.models.data.layout import canonical_class
from edgekit.models.data.merging import merged

Mode = Literal["mixed", "majority"]

# The columns of votes, in the order of `Votes.counts`.
COLUMNS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
_NO_FACE = [COLUMNS.index("unknown"), COLUMNS.index("NF")]
# The column of each of `EXPRESSIONS`, in label order.
EXPRESSION_COLUMNS = [[canonical_class(column) for column in COLUMNS].index(name) for name in EXPRESSIONS]

_MAX_VOTES = 1000
# The correct CSV has votes for 99 % of the training images and agrees with 67 % of their labels. Votes of other images
# agree with about 20 % by chance.
_MIN_MATCH = 0.9
_MIN_AGREEMENT = 0.4
# Smoothing of the label in the targets of mode "mixed", as in recipe fer2013.
_LABEL_SMOOTHING = 0.1


@dataclass(frozen=True)
class Votes:
    """Votes of a CSV: `counts` float32 (rows, 10), `usages`, `paths`.

    `paths` is None if the rows have the order of fer2013.csv.
    """

    counts: NDArray[np.float32]
    usages: tuple[str, ...]
    paths: tuple[str, ...] | None


def read_votes(path: Path) -> Votes:
    """Read votes, as fer2013new.csv or with a path per row.

    Raises:
        InputError: The file is missing, is no CSV, has no rows, lacks a column or repeats a path, or a value is not a
            number of votes.
    """
    require_file(path, "FER+ file")
    counts: list[list[int]] = []
    usages: list[str] = []
    paths: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
            reader = csv.DictReader(stream)
            columns = {column.strip().lower(): column for column in reader.fieldnames or []}
            missing = [name for name in ("usage", *COLUMNS) if name.lower() not in columns]
            if missing:
                raise InputError(
                    f"FER+ file '{path}' lacks the column '{missing[0]}': expected the form of fer2013new.csv"
                )
            by_path = "kaggle_path" in columns
            for row in reader:
                where = f"FER+ file '{path}', line {reader.line_num}"
                counts.append([_count(row[columns[name.lower()]], where, name) for name in COLUMNS])
                usages.append((row[columns["usage"]] or "").strip())
                if by_path:
                    paths.append((row[columns["kaggle_path"]] or "").strip())
    except csv.Error as error:
        raise InputError(f"FER+ file '{path}' is a damaged CSV file: {error}") from error
    if not counts:
        raise InputError(f"FER+ file '{path}' has no rows")
    if len(set(paths)) != len(paths):
        raise InputError(f"FER+ file '{path}' has several rows with the same kaggle_path: each may occur once")
    return Votes(np.array(counts, np.float32), tuple(usages), tuple(paths) if by_path else None)


def with_ferplus(
    dataset: DataSet,
    path: Path,
    mode: Mode = "mixed",
    train: str | None = None,
    notify: Notify = ignore_message,
    label_weight: float = 0.5,
) -> DataSet:
    """Return FER-2013 with labels or training targets from the votes.

    In both modes, choices with a single vote are ignored, as in FER+.

    - "majority": in all splits, the label is the class with more than half of the votes. Images without such a class
      are removed, also those with a majority for contempt, unknown or "not a face".
    - "mixed": all labels are unchanged. The training target is `label_weight` times the smoothed label plus
      1 - `label_weight` times the distribution of the votes over the seven expressions; without such votes, it is the
      smoothed label. Training images with a majority for unknown and "not a face" are removed.

    Args:
        dataset: FER-2013, with names for votes by path.
        path: The CSV of votes.
        mode: See above.
        train: Name of the training split; None: one of the usual names.
        notify: Called with the number of images that have votes, and of those removed.
        label_weight: Weight of the label in mode "mixed", 0..1.

    Raises:
        InputError: The classes are not the seven expressions, or the votes belong to other images.
    """
    train = dataset.chosen_split(train, "train")
    counts = vote_counts(dataset, path, train)  # (N, 10) for each split
    voted = sum(int(votes.any(axis=1).sum()) for votes in counts.values())
    total = sum(map(len, counts.values()))
    if mode == "mixed":
        part = _mixed(dataset.splits[train], counts[train], label_weight)
        removed = len(dataset.splits[train]) - len(part)
        notify(
            f"FER+ votes for {voted} of {total} images; training target: {label_weight:g} label + "
            f"{1 - label_weight:g} votes; {removed} training images that show no face or no known expression "
            "according to the votes are removed"
        )
        return replace(dataset, splits={**dataset.splits, train: part})
    splits = {name: _relabelled(part, counts[name]) for name, part in dataset.splits.items()}
    removed = total - sum(map(len, splits.values()))
    notify(f"FER+ votes for {voted} of {total} images; {removed} without a majority for an expression are removed")
    return DataSet(f"{dataset.name} with FER+ {mode} labels", dataset.classes, splits)


def vote_counts(dataset: DataSet, path: Path, train: str) -> dict[str, NDArray[np.float32]]:
    """Return the number of votes for each of `COLUMNS` of the images of every split, (N, 10).

    `train` is the name of the split with whose labels the votes are compared.

    Raises:
        InputError: As for `with_ferplus`.
    """
    if dataset.classes != EXPRESSIONS:
        raise InputError(
            f"FER+ votes belong to FER-2013, but data set '{dataset.name}' has other classes: leave ferplus out"
        )
    votes = read_votes(path)
    # Without paths, the votes are in the order of the images in fer2013.csv.
    counts = _by_order(dataset, votes, path) if votes.paths is None else _by_path(dataset, votes, votes.paths, path)
    _check(train, dataset.split(train), counts[train], path)
    return counts


def contempt_majority(dataset: DataSet, path: Path, split: str, train: str) -> NDArray[np.bool_]:
    """Return a mask of the images of a split whose votes have a majority for contempt, bool (N,).

    Single votes are ignored, as in `with_ferplus`; `train` is as for `vote_counts`.

    Raises:
        InputError: As for `with_ferplus`.
    """
    cleaned = without_single_votes(vote_counts(dataset, path, train)[split])
    return np.asarray(cleaned[:, COLUMNS.index("contempt")] > cleaned.sum(axis=1) / 2)


def majority_part(dataset: DataSet, path: Path, split: str, merges: Sequence[str] = ()) -> ImageSet:
    """Return a split with the majority of its votes as labels, without the images that have no such majority.

    The rules are those of "majority" in `with_ferplus`. The labels are merged afterwards, see `merged`.

    Raises:
        InputError: As for `with_ferplus` and `merged`.
    """
    part = dataset.splits[split]
    # Without the other splits, which then need no votes.
    counts = vote_counts(replace(dataset, splits={split: part}), path, split)[split]
    part = _relabelled(part, counts)
    return merged(replace(dataset, splits={split: part}), merges, ignore_message).splits[split]


def _count(text: str | None, where: str, column: str) -> int:
    """Return a number of votes; `where` and `column` name it in the error."""
    try:
        value = int(text or "")
    except ValueError:
        value = -1
    if not 0 <= value <= _MAX_VOTES:
        raise InputError(f"{where}: {column} is {(text or '')[:20]!r}: expected a number of votes")
    return value


def _by_path(dataset: DataSet, votes: Votes, paths: tuple[str, ...], path: Path) -> dict[str, NDArray[np.float32]]:
    """Return the votes of each split's images (N, 10), found by the images' names; zeros for images without votes."""
    row_of = {name: row for row, name in enumerate(paths)}
    no_votes = np.zeros((1, len(COLUMNS)), np.float32)
    table = np.concatenate([votes.counts, no_votes])  # row -1 is for images that the file does not list
    result = {}
    for name, part in dataset.splits.items():
        if part.names is None:
            raise InputError(
                f"FER+ file '{path}' refers to file names, but data set '{dataset.name}' has none: "
                "use fer2013new.csv, or the images as files"
            )
        result[name] = table[[row_of.get(str(file), -1) for file in part.names]]
    return result


def _by_order(dataset: DataSet, votes: Votes, path: Path) -> dict[str, NDArray[np.float32]]:
    """Return the votes of each split's images (N, 10), in the order of the rows of fer2013.csv."""
    if any(part.names is not None for part in dataset.splits.values()):
        raise InputError(
            f"FER+ file '{path}' refers to the rows of fer2013.csv, but the images are files: "
            "use fer2013.csv, or a CSV of votes with the column kaggle_path"
        )
    usages = np.array(votes.usages)  # such as "PublicTest": in fer2013.csv these are the names of the splits
    result = {name: votes.counts[usages == name] for name in dataset.splits}
    for name, part in dataset.splits.items():
        if len(result[name]) != len(part):
            raise InputError(
                f"FER+ file '{path}' has {len(result[name])} rows of {name}, but the data {len(part)} images: "
                "use the votes of this data set"
            )
    return result


def _check(split: str, images: ImageSet, counts: NDArray[np.float32], path: Path) -> None:
    """Check that the votes belong to the images of a split: enough have votes, and enough votes agree with labels."""
    voted = counts.any(axis=1)
    if voted.sum() < _MIN_MATCH * len(images):
        raise InputError(
            f"FER+ file '{path}' has votes for {voted.sum()} of {len(images)} images of split '{split}': "
            "use the votes of this data set"
        )
    best = counts[:, EXPRESSION_COLUMNS].argmax(axis=1)
    agreement = float((best == images.labels)[voted].mean()) if voted.any() else 0.0
    if agreement < _MIN_AGREEMENT:
        raise InputError(
            f"FER+ file '{path}' agrees with {agreement:.0%} of the labels of split '{split}': use the votes of this "
            "data set"
        )


def without_single_votes(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the votes (N, 10) with 0 in place of 1, as the authors of FER+ do."""
    return np.where(counts > 1, counts, np.float32(0))


def _mixed(part: ImageSet, counts: NDArray[np.float32], label_weight: float) -> ImageSet:
    """Return the images with training targets of label and votes: mode "mixed" of `with_ferplus`."""
    cleaned = without_single_votes(counts)
    # Without the images whose majority is "unknown" or "not a face", together.
    is_kept = cleaned[:, _NO_FACE].sum(axis=1) <= cleaned.sum(axis=1) / 2
    kept = part.subset(is_kept)
    votes = cleaned[is_kept][:, EXPRESSION_COLUMNS]  # (N, 7)
    total = votes.sum(axis=1, keepdims=True)  # (N, 1)
    classes = len(EXPRESSIONS)
    smoothed_labels = np.eye(classes)[kept.labels] * (1 - _LABEL_SMOOTHING) + _LABEL_SMOOTHING / classes  # (N, 7)
    mixed = label_weight * smoothed_labels + (1 - label_weight) * votes / np.maximum(total, 1)
    return replace(kept, targets=np.where(total > 0, mixed, smoothed_labels).astype(np.float32))


def _relabelled(part: ImageSet, counts: NDArray[np.float32]) -> ImageSet:
    """Return the images with a majority of the votes as label, without the others: mode "majority"."""
    cleaned = without_single_votes(counts)
    expressions = cleaned[:, EXPRESSION_COLUMNS]
    kept = expressions.max(axis=1) > cleaned.sum(axis=1) / 2
    return replace(part.subset(kept), labels=expressions[kept].argmax(axis=1).astype(np.int64), targets=None)
