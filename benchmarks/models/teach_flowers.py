"""Measure `edgekit teach` on the five flowers; docs/reference/results-teach.md has the tables.

    python benchmarks/models/teach_flowers.py --flowers DIR --photos DIR --float runs/backbone_float.onnx --cache DIR

DIR of the flowers has train/CLASS and test/CLASS (a part of TensorFlow's flower_photos), that of the photos holds
photographs of people. `backbone.py` writes the float file. Features are kept in the cache. All choices of `teach` are
made on the train pictures; the test pictures are only measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import teach_baseline
import torch
from numpy.typing import NDArray

from edgekit.device.imaging import read_image
from edgekit.device.teach.embed import Embedder
from edgekit.device.teach.fit import fit_classes, fit_distance
from edgekit.preprocess import FloatArray

SIZES_PX = (96, 160, 224)
PER_CLASS = (5, 10, 20, 50, 200)
DRAWS = 5
BASELINE_PX = 160
PHOTOS = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("flowers", "photos", "float", "cache"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    classes = sorted(each.name for each in (given.flowers / "train").iterdir())
    files = {split: sorted((given.flowers / split).glob("*/*.jpg")) for split in ("train", "test")}
    labels = {split: np.array([classes.index(file.parent.name) for file in each]) for split, each in files.items()}
    photos = sorted(given.photos.glob("*/*.jpg"))
    files["photos"] = [photos[index] for index in np.random.default_rng(0).permutation(len(photos))[:PHOTOS]]
    print("| form | size | " + " | ".join(f"{count} per class" for count in PER_CLASS) + " |")
    print("| --- | ---: |" + " ---: |" * len(PER_CLASS))
    for form, model in (("int8", None), ("float", given.float)):
        for size_px in SIZES_PX:
            views = {
                split: _cached(given.cache / f"{form}-{size_px}-{split}.npy", each, size_px, model)
                for split, each in files.items()
                if split != "photos" or (form, size_px) == ("int8", 160)
            }
            cells = [_accuracies(views, labels, classes, count) for count in PER_CLASS]
            print(f"| `teach`, {form} | {size_px} px | " + " | ".join(map(_cell, cells)) + " |", flush=True)
            if "photos" in views:
                unlike = _novelty(views, labels)
    cells = [_baseline(files, labels, count, given.cache) for count in PER_CLASS]
    print(f"| plain, float | {BASELINE_PX} px | " + " | ".join(map(_cell, cells)) + " |")
    print(unlike)


def _cached(path: Path, files: Sequence[Path], size_px: int, model: Path | None) -> FloatArray:
    """Return `Embedder.views` of all files: float32 (N, 2, features)."""
    if not path.exists():
        embedder = Embedder(size_px, model=model)
        started_s = time.perf_counter()
        np.save(path, np.stack([embedder.views(read_image(file)) for file in files]))
        print(f"{path.name}: {(time.perf_counter() - started_s) / len(files) * 1e3:.1f} ms per picture", flush=True)
    loaded: FloatArray = np.load(path)
    return loaded


def _draws(labels: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """Return the indices of `count` pictures per class, drawn five times; once if these are all."""
    chosen = []
    for seed in range(DRAWS if count < np.bincount(labels).min() else 1):
        random = np.random.default_rng(seed)
        parts = [random.permutation(np.flatnonzero(labels == number))[:count] for number in np.unique(labels)]
        chosen.append(np.concatenate(parts))
    return chosen


def _accuracies(
    views: dict[str, FloatArray], labels: dict[str, NDArray[np.int64]], classes: Sequence[str], count: int
) -> list[float]:
    found = []
    for chosen in _draws(labels["train"], count):
        fit = fit_classes(views["train"][chosen], labels["train"][chosen], classes)
        found.append(float((fit.probabilities(views["test"][:, 0]).argmax(axis=1) == labels["test"]).mean()))
    return found


def _baseline(
    files: dict[str, list[Path]], labels: dict[str, NDArray[np.int64]], count: int, cache: Path
) -> list[float]:
    parts = {}
    for split in ("train", "test"):
        path = cache / f"plain-{split}.pt"
        if not path.exists():
            torch.save(teach_baseline.features(files[split], BASELINE_PX), path)
        parts[split] = torch.load(path)
    truths = {split: torch.from_numpy(labels[split]) for split in parts}
    return [
        teach_baseline.accuracy(parts["train"][chosen], truths["train"][chosen], parts["test"], truths["test"])
        for chosen in map(torch.from_numpy, _draws(labels["train"], count))
    ]


def _novelty(views: dict[str, FloatArray], labels: dict[str, NDArray[np.int64]]) -> str:
    """Return the table of pictures that show none of the taught classes."""
    rows = [
        "",
        "| per class | people: AUROC | uncertain | left-out flower: AUROC | uncertain | own flowers: uncertain |",
    ]
    rows.append("| ---: |" + " ---: |" * 5)
    for count in PER_CLASS:
        cells = []
        for chosen in _draws(labels["train"], count):
            novelty, threshold, _ = fit_distance(views["train"][chosen], labels["train"][chosen])
            own, people = (novelty.distances(views[split][:, 0]) for split in ("test", "photos"))
            left_out = []
            for number in np.unique(labels["train"]):
                kept = chosen[labels["train"][chosen] != number]
                part, limit, _ = fit_distance(views["train"][kept], labels["train"][kept])
                distances, is_left = part.distances(views["test"][:, 0]), labels["test"] == number
                left_out.append((_auroc(distances[~is_left], distances[is_left]), (distances[is_left] > limit).mean()))
            auroc, share = np.mean(left_out, axis=0)
            cells.append((_auroc(own, people), (people > threshold).mean(), auroc, share, (own > threshold).mean()))
        means = [
            f"{value:.3f}" if index in (0, 2) else f"{value:.0%}" for index, value in enumerate(np.mean(cells, axis=0))
        ]
        rows.append(f"| {count} | {' | '.join(means)} |")
    return "\n".join(rows)


def _auroc(known: FloatArray, unknown: FloatArray) -> float:
    ranks = np.concatenate([known, unknown]).argsort().argsort() + 1
    above = ranks[len(known) :].sum() - len(unknown) * (len(unknown) + 1) / 2
    return float(above / (len(known) * len(unknown)))


def _cell(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1) * 100:.1f}" if len(values) > 1 else ""
    return f"{np.mean(values) * 100:.1f}{spread}"


if __name__ == "__main__":
    main()
