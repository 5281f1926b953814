"""`edgekit.train`: train a net of the registry on a data set.

    result = edgekit.train(data="fer2013.tar.gz", output="runs/mine", epochs=2, precision="bf16")
    print(result.best_epoch, result.validation_accuracy, result.checkpoint)

Prompts for a CLIP and small CLIPs are trained by `edgekit.models.clip`, students by `edgekit.distill`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.models.callbacks import Notify, StageProgress, ignore_message
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import require_no_space
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.classification import Balance, ClassificationTask
from edgekit.models.training.loop import EpochCallback, StepCallback, check_output
from edgekit.models.training.options import TrainingOptions, require_choice
from edgekit.models.training.run import (
    TrainingResult,
    initial_weights,
    make_job,
    read_training_data,
    recipe_of,
    run_training,
)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainingOptions):
    """Options of `train`; see `TrainingOptions` for those that all trainings share.

    - `model`: name of a net, such as "edgecnn" or "timm/NAME" (see `edgekit.models.nets.registry`).
    - `balance`: gives rare and common classes equal influence: "loss" weights the loss of each class by the inverse of
      its size, "sampler" draws each class equally often.
    - `merges`: texts NEW=OLD,OLD that merge classes; classes that none of the texts names are removed.

    Raises:
        InputError: A value is not allowed.
    """

    model: str = "edgecnn"
    balance: Balance = "none"
    merges: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("balance", self.balance, Balance)


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

    The output folder receives `best.safetensors`, `last.pt` (to resume), `metrics.jsonl`, TensorBoard events and
    `curves.png`.

    Args:
        options: The options; None: made from `values`, which are the fields of `TrainOptions`.
        notify: Called with messages for the user.
        progress: Called with (stage, items done, items in total or None) while the data is read.
        on_step: Called after every optimiser step.
        on_epoch: Called after every epoch.

    Raises:
        InputError: An option or the data is invalid, or the output folder contains another training.
        StorageError: The disk is full or read-only.
    """
    options = options or TrainOptions(**values)
    if options.threads:
        set_torch_threads(options.threads)
    recipe = recipe_of(options)
    check_output(options.output, options.resume)
    require_no_space(options.model)
    contract_for(options.model, ("any",), "any", gray=True)  # reports an unknown net before the data is read
    data = read_training_data(options, options.merges, notify, progress)
    dataset = data.dataset
    contract = contract_for(options.model, dataset.classes, dataset.name, dataset.is_gray)
    initial = initial_weights(options, contract, notify)
    task = ClassificationTask(contract, recipe, data.training, data.validation, options.balance, initial)
    merged = {"merged": list(options.merges)} if options.merges else {}
    job = make_job(options, data, task, recipe, merged)
    return run_training(job, options, data, notify, on_step, on_epoch)
