"""Train prompts for a frozen CLIP with HiCroPL (arXiv 2507.14976) and evaluate them on a task's test images.

result = train_prompts(clip="ViT-B-16.pt", data="fer2013.tar.gz", output="runs/prompts", shots=16)
print(result.evaluation.summary["accuracy"], result.training.checkpoint)
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.errors import InputError
from edgekit.files import write_atomic
from edgekit.models.callbacks import of_stage
from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.checkpoint import build_prompted, load_prompts
from edgekit.models.clip.config import PromptConfig, at_depth, require_fit, shortened
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.clip.frozen import FrozenClip
from edgekit.models.clip.load import load_clip
from edgekit.models.clip.options import DEFAULT_SHOTS, PromptOptions
from edgekit.models.clip.prompt_task import PromptTask
from edgekit.models.clip.protocols import (
    Target,
    TaskData,
    TaskResult,
    check_evaluation,
    epochs_of,
    load_target,
    load_task_data,
    measure,
    preset_of,
)
from edgekit.models.data.few_shot import Splits, report_known
from edgekit.models.data.resized_crop import ResizedCrop
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.distributed import is_first_process
from edgekit.models.training.loop import check_output
from edgekit.models.training.run import TrainingData, TrainingResult, make_job, recipe_of, run_training
from edgekit.options import takes
from edgekit.text import one_line

RESULTS_NAME = "results.json"


@dataclass(frozen=True)
class PromptTrainingResult:
    """A finished training of prompts.

    Attributes:
        training: Paths, best epoch and reports of the training.
        evaluation: Accuracies with prompts and zero-shot; None in all but the first of several processes.
        results: JSON file with the training and the accuracies; None where `evaluation` is None.
    """

    training: TrainingResult
    evaluation: TaskResult | None = None
    results: Path | None = None

    def document(self) -> dict[str, Any]:
        """Return the result as a JSON object, as in the file `results`."""
        evaluation = self.evaluation.document() if self.evaluation else {}
        return {**self.training.document(), **evaluation, "results": str(self.results)}


@takes(PromptOptions)
def train_prompts(options: PromptOptions) -> PromptTrainingResult:
    """Train prompts for a CLIP, and evaluate prompts and plain CLIP on the task's test images.

    The output folder receives the files of `edgekit.train`; `best.safetensors` contains the prompts of the last epoch,
    without the CLIP. `results.json` contains the accuracies.

    Raises:
        InputError: An option, the CLIP, the data or the descriptions are invalid or do not fit each other, or the
            output folder contains another training.
        StorageError: The disk is full or read-only.
        UnavailableError: A CLIP that is given by name cannot be downloaded.
    """
    notify = options.notify
    recipe = recipe_of(replace(options, epochs=options.epochs or epochs_of(options.task)))
    if options.min_area is not None:
        recipe = replace(recipe, augmentation=ResizedCrop(min_area=options.min_area))
    set_torch_threads(options.threads)
    check_output(options.output, options.resume)
    clip = load_clip(options.clip, options.activation)
    notify(_summary(clip))
    config = prompt_config(options, clip.config)
    data, targets = _read_data(options, clip.image_size_px)
    name, classes = data.dataset.name, data.dataset.classes
    report_known("the CLIP", clip.labels, classes[len(data.trained) :], notify)
    describe = partial(descriptions_for, path=options.descriptions)
    check_evaluation(options.task, data, targets, describe, clip.config)
    describe = partial(describe, notify=notify)
    described = describe(data.trained, dataset=name)
    task = PromptTask(clip, config, described, recipe, data.training, data.validation, name)
    seen = TrainingData(data.dataset, data.training, data.validation, data.validation_name)
    shots = None if options.task == "all" else options.shots or DEFAULT_SHOTS
    record = {"task": options.task, "shots": shots, "clip_activation": options.activation}
    precision = "fp32" if options.precision == "auto" else options.precision
    trained = run_training(make_job(options, seen, task, recipe, precision, **record), options, seen)
    if not is_first_process():
        return PromptTrainingResult(trained)  # the first process evaluates for all
    net = build_prompted(load_prompts(trained.checkpoint), clip).to(clip.logit_scale.device)
    evaluation = measure(options.task, net, data, describe, targets, notify)
    result = PromptTrainingResult(trained, evaluation, options.output / RESULTS_NAME)
    write_atomic(options.output / RESULTS_NAME, json.dumps(result.document(), indent=2) + "\n")
    return result


def prompt_config(options: PromptOptions, clip: ClipConfig) -> PromptConfig:
    """Return the task's preset, scaled down to a CLIP with fewer layers and overridden by the options that are set.

    Raises:
        InputError: A value is out of range, or the prompts do not fit the CLIP.
    """
    preset = preset_of(options.task)
    fitting = shortened(preset, clip) if options.depth is None else at_depth(preset, options.depth)
    names = ("n_ctx", "cross_layer", "consistency_weight")
    config = replace(fitting, **{name: value for name in names if (value := getattr(options, name)) is not None})
    if options.depth is None and fitting != preset:
        options.notify(
            f"the CLIP has fewer layers than the preset's depth {preset.depth}: "
            f"depth {config.depth}, cross layer {config.cross_layer}"
        )
    require_fit(config, clip)
    return config


def _summary(clip: FrozenClip) -> str:
    shape = clip.config
    return (
        f"CLIP {clip.source}: {shape.image_size_px} px in patches of {shape.patch_size_px}, image tower "
        f"{shape.vision.layers} x {shape.vision.width}, text tower {shape.text.layers} x {shape.text.width}, "
        f"activation {shape.activation}"
    )


def _read_data(options: PromptOptions, size_px: int) -> tuple[TaskData, list[Target]]:
    """Return the task's images and the other data sets to evaluate on."""
    reading, notify, contempt = of_stage(options.progress, "reading images"), options.notify, options.contempt
    splits = Splits(options.train_split, options.val_split, options.test_split)
    shots = options.shots or DEFAULT_SHOTS
    data = load_task_data(options.data, options.task, size_px, shots, options.seed, splits, reading, contempt, notify)
    targets = [load_target(Path(path), size_px, reading, contempt, notify) for path in options.eval_data]
    if len(data.trained) < 2:
        raise InputError(f"data '{options.data}' has one class only, '{data.trained[0]}': training needs two")
    if options.task == "base-to-novel":
        novel = data.dataset.classes[len(data.trained) :]
        notify(one_line(f"base classes: {', '.join(data.trained)}; novel classes: {', '.join(novel)}"))
    return data, targets
