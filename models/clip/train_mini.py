"""Pretrain a small CLIP on labelled images, so that prompts can be trained without a download.

result = train_mini(data="fer2013.tar.gz", output="runs/mini", precision="bf16")
clip = load_clip(result.checkpoint)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, StageProgress, ignore_message
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.clip.mini import CLIP_MINI, MiniClipTask
from edgekit.models.data.few_shot import of_classes, without_classes
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.loop import EpochCallback, StepCallback, check_output
from edgekit.models.training.options import TrainingOptions
from edgekit.models.training.run import (
    TrainingData,
    TrainingResult,
    make_job,
    read_training_data,
    recipe_of,
    run_training,
)


@dataclass(frozen=True, kw_only=True)
class MiniClipOptions(TrainingOptions):
    """Options of `train_mini`; see `TrainingOptions` for those that all trainings share.

    - `descriptions`: JSON file of sentences per class for the zero-shot validation; default: the shipped ones.
    - `leave_out`: classes to train without; neither their images nor captions that name them are used.

    Raises:
        InputError: A value is not allowed.
    """

    recipe: str = "clip-mini"
    descriptions: str | Path | None = None
    leave_out: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init:
            raise InputError("a small CLIP is trained from random weights: leave init out")


def train_mini(
    options: MiniClipOptions | None = None,
    *,
    notify: Notify = ignore_message,
    progress: StageProgress | None = None,
    on_step: StepCallback | None = None,
    on_epoch: EpochCallback | None = None,
    **values: Any,
) -> TrainingResult:
    """Train a small CLIP and save the weights of the epoch with the highest zero-shot validation accuracy.

    The output folder receives the files of `edgekit.train`; `load_clip` reads `best.safetensors`.

    Args:
        options: The options; None: made from `values`, which are the fields of `MiniClipOptions`.
        notify: Called with messages for the user.
        progress: Called with (stage, items done, items in total or None) while the data is read.
        on_step: Called after every optimiser step.
        on_epoch: Called after every epoch.

    Raises:
        InputError: An option, the data or the descriptions are invalid, or the output folder contains another
            training.
        StorageError: The disk is full or read-only.
    """
    options = options or MiniClipOptions(**values)
    recipe = recipe_of(options)
    if options.threads:
        set_torch_threads(options.threads)
    check_output(options.output, options.resume)
    data = _without(read_training_data(options, (), notify, progress), options.leave_out)
    if options.leave_out:
        notify(f"classes left out, with their images and captions: {', '.join(options.leave_out)}")
    dataset = data.dataset
    path = Path(options.descriptions) if options.descriptions else None
    descriptions = descriptions_for(dataset.classes, path, notify)
    task = MiniClipTask(CLIP_MINI, dataset.classes, descriptions, recipe, data.training, data.validation, dataset.name)
    job = make_job(options, data, task, recipe, {"left_out": list(options.leave_out)})
    return run_training(job, options, data, notify, on_step, on_epoch)


def _without(data: TrainingData, left_out: Sequence[str]) -> TrainingData:
    rest = without_classes(data.dataset, left_out)
    kept = [data.dataset.classes.index(name) for name in rest.classes]
    return replace(
        data, dataset=rest, training=of_classes(data.training, kept), validation=of_classes(data.validation, kept)
    )
