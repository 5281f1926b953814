"""Average the weights of nets whose trainings started from the same weights (model soup, arXiv 2203.05482, uniform).

    python benchmarks/models/average.py runs/a runs/b --data fer2013.tar.gz --ferplus votes.csv -o out.safetensors

The shipped model `default` is such an average. Calibrations and logit adjustments of the nets are undone. The BatchNorm
statistics are computed again on the training images (cropped and mirrored at random), and a temperature is fitted on
the validation images: with --ferplus, on the majorities of the votes instead of the labels.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prior import adjusted, adjustment, adjustment_of, class_bias
from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.checkpoint import (
    Checkpoint,
    check_checkpoint_output,
    load_checkpoint,
    save_checkpoint,
)
from edgekit.models.data import ImageSet, train_and_validation
from edgekit.models.data.augment import Augmentation, augment, draw
from edgekit.models.data.ferplus import majority_part
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import aligned
from edgekit.models.model_loading import build_net, check_weights
from edgekit.models.nets.registry import class_dimensions
from edgekit.models.training.task import calibrated

BATCH = 256


def average(
    models: Sequence[str],
    output: Path,
    data: Path,
    ferplus: Path | None = None,
    prior_strength: float = 0.0,
    seed: int = 0,
    notify: Notify = ignore_message,
) -> Checkpoint:
    """Write the average of checkpoints to `output`, and return it.

    `prior_strength` below 0 raises the recall of common classes; their shares are the mean of those that the nets'
    adjusted trainings recorded.
    """
    paths = [resolve_model(name, (CHECKPOINT_SUFFIX,)) for name in models]
    check_checkpoint_output(output, paths)
    checkpoints = [load_checkpoint(path) for path in paths]
    first = checkpoints[0].contract
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        check_weights(checkpoint)
        for name in ("architecture", "labels", "subject", "input", "crop"):
            if getattr(checkpoint.contract, name) != getattr(first, name):
                raise InputError(f"'{path}' and '{paths[0]}' differ in {name}: leave one of them out")
    records = [adjustment_of(checkpoint.training) for checkpoint in checkpoints]
    states = []
    for checkpoint, record in zip(checkpoints, records, strict=True):
        state = uncalibrated(checkpoint)
        if record is not None:
            bias = class_bias(first.architecture)
            state[bias] = state[bias] + adjustment(np.array(record.prior, np.float32), record.strength)
        states.append(state)
    named = [
        {"name": name, "sha256": sha256_of(path), "training": _without_inner(each.training)}
        for name, path, each in zip(models, paths, checkpoints, strict=True)
    ]
    dataset = load_dataset(data, first.crop.resize_hw[0], fit=first.crop.fit, cache_folder=output.parent)
    training, validation, name = train_and_validation(dataset, None, None)
    facts: dict[str, Any] = {
        "average_of": named,
        "data_sha256": dataset.checksum(),
        "data_name": dataset.name,
        "validation": name,
    }
    if ferplus is not None:
        validation = majority_part(dataset, ferplus, name, ())
        facts["ferplus_sha256"] = sha256_of(ferplus)
    training, validation = (aligned(dataset, part, first) for part in (training, validation))
    provenance = replace(first.provenance, accuracy=())
    contract = replace(first, temperature=1.0, uncertain_below=0.0, provenance=provenance)
    result = Checkpoint(contract, {name: _mean([state[name] for state in states]) for name in states[0]}, facts)
    net = build_net(result)
    _compute_statistics(net, training, first.crop.center_crop_hw[0], seed)
    result = replace(result, state=net.state_dict())
    if prior_strength:
        prior = np.mean([record.prior for record in records if record is not None], axis=0, dtype=np.float32)
        result = adjusted(result, prior, prior_strength, notify)
    result = calibrated(result, validation)
    save_checkpoint(output, result)
    return result


def uncalibrated(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the weights of a checkpoint as they were before its calibration."""
    contract = checkpoint.contract
    names = class_dimensions(contract.architecture) if contract.temperature != 1 else ()
    return {name: value * contract.temperature if name in names else value for name, value in checkpoint.state.items()}


def _without_inner(training: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a net's record; of the nets of an average, only names and checksums, so that records do not nest."""
    nets = [{key: net[key] for key in ("name", "sha256")} for net in training.get("average_of", [])]
    return {**training, "average_of": nets} if nets else training


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """Return the mean of tensors; of integers, such as counters, the first."""
    if not tensors[0].is_floating_point():
        return tensors[0]
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(tensors[0].dtype)


@torch.no_grad()
def _compute_statistics(net: nn.Module, training: ImageSet, crop_px: int, seed: int) -> None:
    """Replace the BatchNorm statistics of `net` by the means over batches of the training images."""
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
    augmentation = Augmentation(crop_px)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(training), generator=generator)
    # Of about equal size, because every batch has the same weight in the mean.
    for batch in torch.tensor_split(order, math.ceil(len(order) / BATCH)):
        images = torch.from_numpy(training.images[batch.numpy()]).permute(0, 3, 1, 2)
        numbers = draw(len(batch), generator, augmentation)
        net(augment(images, numbers, augmentation).expand(-1, 3, -1, -1))
    net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ferplus", type=Path)
    parser.add_argument("--prior-strength", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    average(**vars(parser.parse_args()), notify=print)


if __name__ == "__main__":
    main()
