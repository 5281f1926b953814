"""Average of the weights of several trained nets (model soup, arXiv 2203.05482, uniform).

    average_checkpoints(["runs/a", "runs/b", "runs/c"], Path("soup.safetensors"), data=Path("fer2013.tar.gz"))

The average of nets that were fine-tuned from the same weights is often more accurate than each of them, and an
inference takes the time of one net.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.callbacks import Notify, StageProgress, ignore_message, of_stage
from edgekit.models.checkpoints.checkpoint import (
    Checkpoint,
    check_checkpoint_output,
    load_checkpoint,
    save_checkpoint,
)
from edgekit.models.data import DataSet, ImageSet, train_and_validation, training_split
from edgekit.models.data.augment import Augmentation, augment, draw
from edgekit.models.data.ferplus import DEFAULT_LABEL_WEIGHT, majority_part, vote_counts
from edgekit.models.data.merging import merged, split_merge
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import aligned
from edgekit.models.model_loading import build_net, check_weights
from edgekit.models.nets.embedding_net import CLASS_VECTORS
from edgekit.models.training.calibrate import calibrated, uncalibrated
from edgekit.models.training.options import MAX_PRIOR_STRENGTH
from edgekit.models.training.prior import adjusted, recorded_prior, without_adjustment
from edgekit.preprocess import FloatArray
from edgekit.typed_json import convert

_BATCH = 256
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Average:
    """An averaged checkpoint: its path, its architecture, and the temperature of its calibration (1: none)."""

    checkpoint: Path
    architecture: str
    temperature: float = 1.0


def average_checkpoints(
    models: Sequence[str],
    output: Path,
    data: Path | None = None,
    *,
    ferplus: Path | None = None,
    prior_strength: float = 0.0,
    train_split: str | None = None,
    val_split: str | None = None,
    seed: int = 0,
    notify: Notify = ignore_message,
    progress: StageProgress | None = None,
) -> Average:
    """Write the mean of the weights of checkpoints, as they were before calibration and logit adjustment.

    The adjustment of a net is not undone after `embed`, which does not separate it from the other weights.

    With data, the BatchNorm statistics are computed again on the training images (cropped and mirrored at random), and
    a temperature is fitted on the validation images; without, the statistics are averaged, too.

    Args:
        models: At least two checkpoints or folders of trainings, of one architecture and the same labels. Students of
            a CLIP have the same teacher.
        output: The .safetensors file to write.
        data: The data set that the nets were trained on; its classes are merged as in the training of the first net.
        ferplus: CSV of FER+ votes, for nets that were trained towards the votes ("soft", "majority", or "mixed" with a
            label weight below 0.5): the temperature is fitted to the majorities of the votes instead of the labels of
            the validation split.
        prior_strength: Logit adjustment of the average, see `TrainingOptions`; less than 0 raises the recall of common
            classes. The shares of the classes are the mean of those that the nets' adjusted trainings recorded.
        train_split: Name of the training split; None: one of the usual names.
        val_split: Name of the validation split; None: one of the usual names, or a part of the training images.
        seed: Seed of the crops.
        notify: Called with messages for the user.
        progress: Called with (stage, items done, items in total or None).

    Raises:
        InputError: A model or the data cannot be used, the models differ, or the output is one of them.
        StorageError: The output cannot be written.
    """
    if not abs(prior_strength) <= MAX_PRIOR_STRENGTH:
        limits = f"{-MAX_PRIOR_STRENGTH} to {MAX_PRIOR_STRENGTH}"
        raise InputError(f"prior-strength is {prior_strength}: expected {limits}")
    paths = [resolve_model(name, (CHECKPOINT_SUFFIX,)) for name in models]
    if len(paths) < 2:
        raise InputError("an average needs at least two models: name more")
    check_checkpoint_output(output, paths)
    checkpoints = [load_checkpoint(path) for path in paths]
    _require_alike(paths, checkpoints)
    contract = replace(
        checkpoints[0].contract,
        temperature=1.0,
        uncertain_below=0.0,  # a threshold holds for the probabilities of one net
        provenance=replace(checkpoints[0].contract.provenance, accuracy=()),
    )
    states = [
        without_adjustment(path, checkpoint, uncalibrated(checkpoint))
        for path, checkpoint in zip(paths, checkpoints, strict=True)
    ]
    record: dict[str, Any] = {
        "average_of": [
            {"name": name, "sha256": sha256_of(path), "training": _without_inner_trainings(checkpoint.training)}
            for name, path, checkpoint in zip(models, paths, checkpoints, strict=True)
        ]
    }
    if merges := _merges(paths[0], checkpoints[0]):
        record["merged"] = list(merges)
    averaged = Checkpoint(contract, {name: _mean([state[name] for state in states]) for name in states[0]}, record)
    prior = _mean_prior(paths, checkpoints) if prior_strength else None
    if data is None:
        save_checkpoint(output, averaged if prior is None else adjusted(averaged, prior, prior_strength, notify))
        return Average(output, contract.architecture)
    crop = contract.crop
    reading = of_stage(progress, "reading images")
    dataset = load_dataset(
        data, crop.resize_hw[0], reading, notify=notify, fit=crop.fit, cache="auto", cache_folder=output.parent
    )
    unmerged, merges = dataset, () if set(dataset.classes) <= set(contract.labels) else merges
    dataset = merged(dataset, merges, notify)
    training, validation, name = train_and_validation(dataset, train_split, val_split)
    record |= {"data_sha256": dataset.checksum(), "data_name": dataset.name, "validation": name}
    if ferplus is None:
        _report_missing_votes(checkpoints, notify)
    elif name in dataset.splits:
        validation = _voted(unmerged, ferplus, name, merges)
        record["ferplus_sha256"] = sha256_of(ferplus)
    else:
        vote_counts(unmerged, ferplus, training_split(unmerged, train_split))  # a wrong file is an error here, too
        notify("the data has no validation split: the calibration uses the labels of a part of the training split")
    if len(training) < 2:
        raise InputError(f"'{data}' has one training image: BatchNorm statistics need at least two")
    training, validation = (aligned(dataset, part, contract) for part in (training, validation))
    net = build_net(averaged)
    _compute_statistics(net, training, crop.center_crop_hw[0], seed, progress)
    result = replace(averaged, state=net.state_dict(), training=record)
    if prior is not None:
        result = adjusted(result, prior, prior_strength, notify)
    result = calibrated(result, validation, notify)
    save_checkpoint(output, result)
    return Average(output, contract.architecture, result.contract.temperature)


def _voted(unmerged: DataSet, ferplus: Path, split: str, merges: Sequence[str]) -> ImageSet:
    part = majority_part(unmerged, ferplus, split, merges)
    if len(part) == 0:
        raise InputError(f"FER+ file '{ferplus}' has no majority for any image of split '{split}'")
    return part


def _report_missing_votes(checkpoints: Sequence[Checkpoint], notify: Notify) -> None:
    for checkpoint in checkpoints:
        weight = checkpoint.training.get("label_weight")
        is_mostly_votes = isinstance(weight, int | float) and weight < DEFAULT_LABEL_WEIGHT
        if is_mostly_votes or checkpoint.training.get("ferplus") in ("soft", "majority"):
            notify("the nets were trained towards FER+ votes, but the calibration uses the data's labels: give ferplus")
            return


def _mean_prior(paths: Sequence[Path], checkpoints: Sequence[Checkpoint]) -> FloatArray:
    """Return the mean of the class shares that the checkpoints record, float32 (classes,)."""
    recorded = [recorded_prior(path, checkpoint) for path, checkpoint in zip(paths, checkpoints, strict=True)]
    priors = [prior for prior in recorded if prior is not None]
    if not priors:
        raise InputError("prior-strength needs a net that was trained with --prior-strength: none is among the models")
    mean: FloatArray = np.mean(priors, axis=0, dtype=np.float32)
    return mean


def _require_alike(paths: Sequence[Path], checkpoints: Sequence[Checkpoint]) -> None:
    """Check the weights, and that all nets have the architecture, labels, input and class vectors of the first one."""
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        try:
            check_weights(checkpoint)
        except InputError as error:
            raise InputError(f"checkpoint '{path}': {error}") from error
    first = checkpoints[0].contract
    for path, checkpoint in zip(paths[1:], checkpoints[1:], strict=True):
        contract = checkpoint.contract
        for name in ("architecture", "labels", "subject", "input", "crop"):
            if getattr(contract, name) != getattr(first, name):
                raise InputError(f"'{path}' and '{paths[0]}' differ in {name}: leave one of them out")
        vectors = [net.state.get(CLASS_VECTORS, torch.empty(0)) for net in (checkpoint, checkpoints[0])]
        if not torch.equal(*vectors):
            raise InputError(f"'{path}' and '{paths[0]}' differ in class vectors: average students of one teacher")
        merged_classes = [_meaning(_merges(*each)) for each in ((path, checkpoint), (paths[0], checkpoints[0]))]
        if all(merged_classes) and merged_classes[0] != merged_classes[1]:
            raise InputError(f"'{path}' and '{paths[0]}' differ in merged classes (--merge): leave one of them out")
        groups = (_learned_groups(net.state) for net in (checkpoint, checkpoints[0]))
        if not all(torch.equal(*pair) for pair in zip(*groups, strict=True)):
            raise InputError(f"'{path}' and '{paths[0]}' differ in learned groups, which have no mean: leave one out")


@dataclass(frozen=True)
class _MergeRecord:
    """Part of a checkpoint's record: texts NEW=OLD,OLD of merged classes."""

    merged: tuple[str, ...] = ()


def _merges(path: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the texts NEW=OLD,OLD by which the classes were merged for the training of the checkpoint at `path`."""
    return convert(checkpoint.training, _MergeRecord, f"training record of '{path}': field").merged


def _meaning(merges: Sequence[str]) -> dict[str, set[str]]:
    return {new: set(old) for new, old in map(split_merge, merges)}


def _learned_groups(state: Mapping[str, Tensor]) -> list[Tensor]:
    """Return which inputs the groups of learned group convolutions read; masks of older checkpoints are floats."""
    return [
        tensor.bool() if name.endswith(".mask") else tensor
        for name, tensor in state.items()
        if name.endswith((".mask", ".index"))
    ]


def _without_inner_trainings(training: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a net's record; of the nets of an average, only names and checksums, so that records do not nest."""
    inner = training.get("average_of")
    if not isinstance(inner, list):
        return training
    nets = [{key: net[key] for key in ("name", "sha256") if key in net} for net in inner if isinstance(net, dict)]
    return {**training, "average_of": nets}


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """Return the mean of tensors; of integers, such as counters, the first."""
    if not tensors[0].is_floating_point():
        return tensors[0]
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(tensors[0].dtype)


@torch.no_grad()
def _compute_statistics(
    net: nn.Module, training: ImageSet, crop_px: int, seed: int, progress: StageProgress | None
) -> None:
    """Replace the BatchNorm statistics of `net` by the means over batches of the training images."""
    norms = [module for module in net.modules() if isinstance(module, _NORMS)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    report = of_stage(progress, "computing BatchNorm statistics")
    augmentation = Augmentation(crop_px)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(training), generator=generator)
    done = 0
    # Of about equal size, because every batch has the same weight in the mean.
    for batch in torch.tensor_split(order, math.ceil(len(order) / _BATCH)):
        images = torch.from_numpy(training.images[batch.numpy()]).permute(0, 3, 1, 2)
        numbers = draw(len(batch), generator, augmentation)
        net(augment(images, numbers, augmentation).expand(-1, 3, -1, -1))
        done += len(batch)
        report(done, len(training))
    net.eval()
