"""`edgekit.train`: train a net of the registry on a data set.

    result = edgekit.train(data="fer2013.tar.gz", output="runs/mine", epochs=2, precision="bf16")
    print(result.best_epoch, result.validation_accuracy, result.checkpoint)

Prompts for a CLIP and small CLIPs are trained by `edgekit.models.clip`, students by `edgekit.distill`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from edgekit.contract import Subject
from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, StageProgress, ignore_message
from edgekit.models.data import ImageSet
from edgekit.models.data.disk import ImageCache
from edgekit.models.data.folds import Fold, fold_numbers
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import require_no_space
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.classification import ClassificationTask
from edgekit.models.training.finish import finish_net
from edgekit.models.training.linear_layer import with_fitted_layer
from edgekit.models.training.loop import EpochCallback, StepCallback, check_output
from edgekit.models.training.options import TrainingOptions, options_from, require_choice
from edgekit.models.training.prior import class_bias
from edgekit.models.training.recipes import Balance
from edgekit.models.training.run import (
    TrainingData,
    TrainingResult,
    check_prior_strength,
    check_training_images,
    initial_weights,
    make_job,
    net_recipe_of,
    read_training_data,
    run_training,
    with_precision,
)
from edgekit.models.training.start import choose_start


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainingOptions):
    """Options of `train`; see `TrainingOptions` for the options that all trainings share.

    - `model`: name of a net, such as "edgecnn" or "timm/NAME" (see `edgekit.models.nets.registry`); None: edgecnn for
      faces, efficientnet-lite0 for whole images.
    - `balance`: gives rare and common classes equal influence: "loss" weights the loss of each class by the inverse of
      its size, "sampler" draws each class equally often; None: the recipe's.
    - `merges`: texts NEW=OLD,OLD that merge classes; classes that none of the texts names are removed.
    - `subject`: what the model classifies: each detected "face", or the whole "image"; "auto": see
      `edgekit.models.training.start`.
    - `image_size`: side of the kept images in pixels, for nets that accept any size; the net's input has 11/12 of this
      side. None: 176 for pretrained nets, else 48.
    - `cache_images`: place of the decoded images; "auto": on disk if they need more than a quarter of the free memory.
    - `folds`, `fold`: train without fold number `fold` (from 0) of `folds`; see `edgekit.models.data.folds`.
    - `calibrate`: whether a temperature is fitted on the validation images and folded into the last layer.

    Raises:
        InputError: A value is not allowed.
    """

    model: str | None = None
    balance: Balance | None = None
    merges: tuple[str, ...] = ()
    subject: Subject | Literal["auto"] = "auto"
    image_size: int | None = None
    cache_images: ImageCache = "auto"
    calibrate: bool = True
    folds: int | None = None
    fold: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.balance is not None:
            require_choice("balance", self.balance, Balance)
        require_choice("cache_images", self.cache_images, ImageCache)
        if self.subject != "auto":
            require_choice("subject", self.subject, Subject)
        if (self.folds is None) != (self.fold is None):
            raise InputError("folds and fold go together: give both")
        self.left_out()

    def left_out(self) -> Fold | None:
        """Return the fold that the training leaves out; None: it uses all images."""
        return None if self.folds is None or self.fold is None else Fold(self.folds, self.fold)


def train(
    options: TrainOptions | None = None,
    *,
    notify: Notify = ignore_message,
    progress: StageProgress | None = None,
    on_step: StepCallback | None = None,
    on_epoch: EpochCallback | None = None,
    **values: Any,
) -> TrainingResult:
    """Train a net and save the weights of the epoch with the highest validation accuracy.

    At the end, up to 64 validation images are read again in the same way as on a device. Their pixels are compared with
    those of the training.

    The output folder receives `best.safetensors`, `last.pt` (to resume), `metrics.jsonl`, TensorBoard events and
    `curves.png`.

    Args:
        options: The options. None: the options are made from `values`, the fields of `TrainOptions`.
        notify: Called with messages for the user.
        progress: Called with (stage, items done, items in total or None) while the data is read.
        on_step: Called after every optimiser step.
        on_epoch: Called after every epoch.

    Raises:
        InputError: An option or the data is invalid, or the output folder contains another training.
        StorageError: The disk is full or read-only.
        GateError: A device would compute other pixels than the training; the checkpoint is kept.
    """
    options = options_from(TrainOptions, options, values)
    set_torch_threads(options.threads)
    check_output(options.output, options.resume)
    if options.model is not None:
        require_no_space(options.model)
        contract_for(options.model, ("any",), "any", gray=True)  # reports an unknown net before the data is read
    start = choose_start(options, options.model, options.subject, options.image_size, notify)
    options = replace(options, init=start.init, recipe=start.recipe)
    recipe = net_recipe_of(options)
    check_prior_strength(options.prior_strength, options.balance or recipe.balance)
    new_contract = partial(
        contract_for, start.model, fit=start.fit, image_size_px=start.image_size_px, values=start.values
    )
    new_contract(("any",), "any", gray=True)  # reports an image size that the net does not take
    data = read_training_data(
        options, options.merges, notify, progress, start.image_size_px, options.cache_images, start.fit
    )
    dataset, fold = data.dataset, options.left_out()
    if fold:
        data = _without(data, fold, notify)
    check_training_images(data, notify)
    contract = new_contract(dataset.classes, dataset.name, dataset.is_gray)
    contract = replace(contract, subject=start.subject, label_map=dataset.label_map)
    if options.prior_strength:
        class_bias(start.model)  # reports a net without one before the training
    initial = initial_weights(options, contract, notify)
    if initial and options.recipe == "fine-tune":
        initial = with_fitted_layer(initial, contract, data.training)
        notify("the last layer starts from one that is fitted on the frozen features of the training images")
    recipe = net_recipe_of(options, initial, notify)
    task = ClassificationTask(contract, recipe, data.training, data.validation, initial, options.balance)
    record: dict[str, Any] = {"merged": list(options.merges)} if options.merges else {}
    if fold:
        record["fold"] = asdict(fold)
    precision = with_precision(options, contract, min(recipe.batch_size, len(data.training)), notify)
    job = make_job(options, data, task, recipe, record, precision)
    result = run_training(job, options, data, notify, on_step, on_epoch)
    result = finish_net(result, options, data, options.calibrate, notify)
    _report_chance(result, data.validation, options.recipe == "adapt", notify)
    return result


def _without(data: TrainingData, fold: Fold, notify: Notify) -> TrainingData:
    """Return the data without the training images of a fold."""
    kept = fold_numbers(data.training, fold.folds) != fold.fold
    notify(f"fold {fold.fold} of {fold.folds} is left out: {(~kept).sum()} of {len(kept)} training images")
    return replace(data, training=data.training.subset(kept))


def _report_chance(result: TrainingResult, validation: ImageSet, is_adapted: bool, notify: Notify) -> None:
    """Print a line about a model that is right no more often than the most frequent class alone would be."""
    share = np.bincount(validation.labels).max() / len(validation)
    if result.validation_accuracy <= share:
        advice = "more pictures" if is_adapted else "more pictures, --init default --recipe adapt, or more --epochs"
        notify(
            f"predicting the most frequent class for every image would be right on {share:.2%} of the validation "
            f"images: use {advice}"
        )
