"""`edgekit.train`: train a net of the registry on a data set.

    result = edgekit.train(data="fer2013.tar.gz", output="runs/mine", epochs=2, precision="bf16")
    print(result.best_epoch, result.validation_accuracy, result.checkpoint)

Prompts for a CLIP and small CLIPs are trained by `edgekit.models.clip`, students by `edgekit.distill`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgekit.models.data import ImageSet
from edgekit.models.model_loading import contract_for, require_net
from edgekit.models.nets.registry import require_no_space
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.init_weights import initial_weights
from edgekit.models.training.linear_layer import with_fitted_layer
from edgekit.models.training.loop import check_output
from edgekit.models.training.options import TrainOptions
from edgekit.models.training.recipes import get_recipe
from edgekit.models.training.run import (
    TrainingResult,
    check_training_images,
    net_recipe_of,
    read_training_data,
    train_net,
)
from edgekit.models.training.start import choose_start
from edgekit.models.training.task import ClassificationTask
from edgekit.options import takes


@takes(TrainOptions)
def train(options: TrainOptions) -> TrainingResult:
    """Train a net and save the weights of the epoch with the highest validation accuracy.

    The output folder receives `best.safetensors`, `last.pt` (to resume), `metrics.jsonl` and `curves.png`.

    Raises:
        InputError: An option or the data is invalid, or the output folder contains another training.
        StorageError: The disk is full or read-only.
    """
    notify = options.notify
    set_torch_threads(options.threads)
    check_output(options.output, options.resume)
    if options.model is not None:
        require_no_space(options.model)
        require_net(options.model)  # reports an unknown net before the data is read
    if options.recipe != "auto":
        get_recipe(options.recipe)  # reports an unknown name before the pictures are looked at
    start = choose_start(options)
    options = replace(options, init=start.init, recipe=start.recipe)
    net_recipe_of(options)  # reports a recipe that cannot be used, before the data is read
    model, image_size_px, fit = start.model, start.image_size_px, start.fit
    require_net(model, image_size_px)  # reports an image size that the net does not take
    data = read_training_data(options, options.merges, image_size_px, fit)
    dataset = data.dataset
    check_training_images(data, notify)
    contract = contract_for(model, dataset.classes, dataset.name, dataset.is_gray, fit, image_size_px, start.values)
    contract = replace(contract, subject=start.subject, label_map=dataset.label_map)
    initial = initial_weights(options, contract)
    if initial and options.recipe == "fine-tune":
        initial = with_fitted_layer(initial, contract, data.training)
        notify("the last layer starts from one that is fitted on the frozen features of the training images")
    recipe = net_recipe_of(options, initial, notify)
    task = ClassificationTask(
        contract,
        recipe,
        data.training,
        data.validation,
        initial=initial,
        balance="sampler" if options.balance else None,  # None: as in the recipe
        calibration=data.calibration if options.calibrate else None,
    )
    result = train_net(options, data, task, recipe, merged=tuple(options.merges))
    _report_chance(result, data.validation, options)
    return result


def _report_chance(result: TrainingResult, validation: ImageSet, options: TrainOptions) -> None:
    """Report a model that is no better than one that predicts the most frequent class for every image."""
    share = np.bincount(validation.labels).max() / len(validation)
    if result.validation_accuracy <= share:
        advice = "more pictures"
        if options.recipe != "adapt":  # else it has followed the advice
            advice += ", --init default --recipe adapt, or more --epochs"
        options.notify(
            f"predicting the most frequent class for every image would be right on {share:.2%} of the validation "
            f"images: use {advice}"
        )
