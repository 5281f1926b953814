"""Train prompts for a frozen CLIP with HiCroPL (arXiv 2507.14976) and evaluate them on a task's test images.

result = train_prompts(clip="ViT-B-16.pt", data="fer2013.tar.gz", output="runs/prompts", shots=16)
print(result.evaluation.summary["accuracy"], result.training.checkpoint)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.contract import Fit
from edgekit.errors import InputError
from edgekit.files import write_atomic
from edgekit.models.callbacks import Notify, StageProgress, ignore_message, of_stage
from edgekit.models.clip.architecture import Activation, ClipConfig
from edgekit.models.clip.checkpoint import build_prompted, load_prompts
from edgekit.models.clip.config import (
    ConsistencyOn,
    Flow,
    MapperKind,
    PromptConfig,
    Proxy,
    at_depth,
    require_fit,
    shortened,
)
from edgekit.models.clip.descriptions import descriptions_for
from edgekit.models.clip.frozen import FrozenClip
from edgekit.models.clip.load import load_clip
from edgekit.models.clip.prompt_task import PromptTask
from edgekit.models.clip.protocols import (
    TRANSFER_TASKS,
    Target,
    TaskData,
    TaskName,
    TaskResult,
    check_evaluation,
    load_target,
    load_task_data,
    measure,
    preset_of,
    recipe_name_of,
)
from edgekit.models.data.few_shot import Splits, report_known
from edgekit.models.data.original_crops import CropFrom
from edgekit.models.data.resized_crop import ResizedCrop
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.distributed import is_first_process
from edgekit.models.training.loop import EpochCallback, StepCallback, check_output
from edgekit.models.training.options import TrainingOptions, options_from, refuse_fields, require_choice
from edgekit.models.training.recipes import Keep, Recipe
from edgekit.models.training.run import TrainingData, TrainingResult, make_job, recipe_of, run_training
from edgekit.text import one_line

DEFAULT_SHOTS = 16
RESULTS_NAME = "results.json"

# Options of the method that replace the values of the task's preset.
_METHOD = (
    "n_ctx",
    "cross_layer",
    "consistency_weight",
    "flow",
    "consistency_on",
    "proxy",
    "mapper",
    "upstream_compat",
)
# Without a flow there are no proxies and mappers, and only "hicropl" changes direction after layer k.
_UNUSED_BY_FLOW = {"one-way": ("cross_layer",), "independent": ("cross_layer", "proxy", "mapper")}


@dataclass(frozen=True, kw_only=True)
class PromptTrainingOptions(TrainingOptions):
    """Options of `train_prompts`; see `TrainingOptions` for those that all trainings share.

    - `clip`: file of the CLIP, or one of open_clip's names as MODEL/WEIGHTS; `activation`: the CLIP's activation
      function, if its file does not state it.
    - `task`: what to train on and how to evaluate, see `protocols.load_task_data` and `protocols.measure`.
    - `recipe`: name of the recipe; default: the task's.
    - `shots`: training images per class, by default 16; not with task "all". A class with fewer images gives all.
    - `eval_data`: data sets to evaluate on, for the tasks "cross-dataset" and "domain".
    - `test_split`: split to evaluate on; default: `PrivateTest` or `test`, else the validation images.
    - `descriptions`: JSON file of sentences per class, or a folder with a file per data set; default: the shipped ones
      of the seven expressions.
    - `keep`: the epoch whose prompts are kept: the "best" on the validation images, or the "last"; None: the recipe's.
    - `crop_from`: what random crops are cut from: the "square" in the middle of a picture, or the "original" picture,
      for images in a folder, with every task but "all".
    - `drop_last`: leave out the last batch of an epoch if it has fewer images than the others.
    - `min_area`: smallest area of a random crop, as a fraction of the image; default: the recipe's.
    - `depth`: D, number of prompted layers; the default of `cross_layer` is scaled with it.
    - All other fields: see `config.PromptConfig`; None selects the value of the task's preset.

    Raises:
        InputError: A value is not allowed, or two options exclude each other.
    """

    recipe: str = ""
    fit: Fit = "square"
    clip: str
    activation: Activation | None = None
    task: TaskName = "few-shot"
    shots: int | None = None
    eval_data: Sequence[str | Path] = ()
    test_split: str | None = None
    descriptions: str | Path | None = None
    keep: Keep | None = None
    crop_from: CropFrom = "square"
    drop_last: bool = False
    min_area: float | None = None
    depth: int | None = None
    n_ctx: int | None = None
    cross_layer: int | None = None
    consistency_weight: float | None = None
    flow: Flow = "hicropl"
    consistency_on: ConsistencyOn = "ensembled"
    proxy: Proxy | None = None
    mapper: MapperKind | None = None
    upstream_compat: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in (("task", TaskName), ("flow", Flow), ("consistency_on", ConsistencyOn)):
            require_choice(name, getattr(self, name), choices)
        require_choice("crop_from", self.crop_from, CropFrom)
        for name, choices in (("proxy", Proxy), ("mapper", MapperKind), ("keep", Keep)):
            if (value := getattr(self, name)) is not None:
                require_choice(name, value, choices)
        if not self.recipe:
            object.__setattr__(self, "recipe", recipe_name_of(self.task))
        if self.init or self.ferplus:
            raise InputError("prompts are trained without init and ferplus: leave them out")
        refuse_fields(self, ("fit", "mixup_alpha", "sam_radius", "prior_strength"), "prompts")
        if bool(self.eval_data) != (self.task in TRANSFER_TASKS):
            raise InputError(
                f"task '{self.task}' needs eval-data: one or several data sets to evaluate on"
                if self.task in TRANSFER_TASKS
                else f"eval-data is only for the tasks {' and '.join(TRANSFER_TASKS)}, not for '{self.task}'"
            )
        if self.task == "all" and self.shots is not None:
            raise InputError("task 'all' trains on all images: leave shots out, or choose another task")
        if self.task == "all" and self.crop_from == "original":
            raise InputError("crop-from original is only for tasks of few images, not for 'all': leave it out")
        if self.shots is not None and self.shots < 1:
            raise InputError(f"shots is {self.shots}: expected 1 or more")
        if self.min_area is not None and not 0 < self.min_area <= 1:
            raise InputError(f"min-area is {self.min_area}: expected more than 0, at most 1")
        for name in _UNUSED_BY_FLOW.get(self.flow, ()):
            if getattr(self, name) is not None:
                raise InputError(f"{name.replace('_', '-')} has no effect with flow {self.flow}: leave it out")


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


def train_prompts(
    options: PromptTrainingOptions | None = None,
    *,
    notify: Notify = ignore_message,
    progress: StageProgress | None = None,
    on_step: StepCallback | None = None,
    on_epoch: EpochCallback | None = None,
    **values: Any,
) -> PromptTrainingResult:
    """Train prompts for a CLIP, and evaluate prompts and plain CLIP on the task's test images.

    The output folder receives the files of `edgekit.train`; `best.safetensors` contains the prompts of the last epoch
    or, with `keep="best"`, of the best one, without the CLIP. `results.json` contains the accuracies.

    Args:
        options: The options; None: made from `values`, which are the fields of `PromptTrainingOptions`.
        notify: Called with messages for the user.
        progress: Called with (stage, items done, items in total or None) while the data is read.
        on_step: Called after every optimiser step.
        on_epoch: Called after every epoch.

    Raises:
        InputError: An option, the CLIP, the data or the descriptions are invalid or do not fit each other, or the
            output folder contains another training.
        StorageError: The disk is full or read-only.
        UnavailableError: A CLIP that is given by name cannot be downloaded.
    """
    options = options_from(PromptTrainingOptions, options, values)
    recipe = _recipe(options)
    set_torch_threads(options.threads)
    check_output(options.output, options.resume)
    clip = load_clip(options.clip, options.activation)
    notify(_summary(clip))
    config = prompt_config(options, clip.config, notify)
    data, targets = _read_data(options, clip.image_size_px, notify, progress)
    report_known("the CLIP", clip.labels, data.dataset.classes[len(data.trained) :], notify)
    path = Path(options.descriptions) if options.descriptions else None
    check_evaluation(options.task, data, targets, partial(descriptions_for, path=path), clip.config)
    describe = partial(descriptions_for, path=path, notify=notify)
    seen = TrainingData(data.dataset, data.training, data.validation, data.validation_name)
    name, originals = data.dataset.name, data.originals if options.crop_from == "original" else None
    described = describe(data.trained, dataset=name)
    task = PromptTask(clip, config, described, recipe, seen.training, seen.validation, name, originals)
    shots = None if options.task == "all" else options.shots or DEFAULT_SHOTS
    record = {"task": options.task, "shots": shots, "clip_activation": options.activation}
    job = make_job(options, seen, task, recipe, record)
    trained = run_training(job, options, seen, notify, on_step, on_epoch)
    if not is_first_process():
        return PromptTrainingResult(trained)  # the first process evaluates for all
    net = build_prompted(load_prompts(trained.checkpoint), clip).to(clip.logit_scale.device)
    evaluation = measure(options.task, net, data, describe, targets, notify)
    result = PromptTrainingResult(trained, evaluation, options.output / RESULTS_NAME)
    write_atomic(options.output / RESULTS_NAME, json.dumps(result.document(), indent=2) + "\n")
    return result


def prompt_config(options: PromptTrainingOptions, clip: ClipConfig, notify: Notify = ignore_message) -> PromptConfig:
    """Return the task's preset, scaled down to a CLIP with fewer layers and overridden by the options that are set.

    Raises:
        InputError: A value is out of range, or the prompts do not fit the CLIP.
    """
    preset = preset_of(options.task)
    fitting = shortened(preset, clip) if options.depth is None else at_depth(preset, options.depth)
    given = {name: value for name in _METHOD if (value := getattr(options, name)) is not None}
    config = replace(fitting, **given)
    if options.depth is None and fitting != preset:
        notify(
            f"the CLIP has fewer layers than the preset's depth {preset.depth}: "
            f"depth {config.depth}, cross layer {config.cross_layer}"
        )
    require_fit(config, clip)
    return config


def _recipe(options: PromptTrainingOptions) -> Recipe:
    """Return the recipe with the options' `keep`, `drop_last` and `min_area`.

    A recipe without random resized crops has no `min_area`; `PromptTask` refuses it.
    """
    recipe = recipe_of(options)
    recipe = replace(recipe, keep=options.keep or recipe.keep, drop_last=options.drop_last or recipe.drop_last)
    if options.min_area is None or not isinstance(recipe.augmentation, ResizedCrop):
        return recipe
    return replace(recipe, augmentation=replace(recipe.augmentation, min_area=options.min_area))


def _summary(clip: FrozenClip) -> str:
    shape = clip.config
    return (
        f"CLIP {clip.source}: {shape.image_size_px} px in patches of {shape.patch_size_px}, image tower "
        f"{shape.vision.layers} x {shape.vision.width}, text tower {shape.text.layers} x {shape.text.width}, "
        f"activation {shape.activation}"
    )


def _read_data(
    options: PromptTrainingOptions, size_px: int, notify: Notify, progress: StageProgress | None
) -> tuple[TaskData, list[Target]]:
    """Return the task's images and the other data sets to evaluate on."""
    reading = of_stage(progress, "reading images")
    splits = Splits(options.train_split, options.val_split, options.test_split)
    shots = options.shots or DEFAULT_SHOTS
    data = load_task_data(
        options.data, options.task, size_px, shots, options.seed, splits, reading, options.contempt, notify
    )
    targets = [load_target(Path(path), size_px, reading, options.contempt, notify) for path in options.eval_data]
    if options.crop_from == "original" and data.originals is None:
        raise InputError(f"crop-from original needs image files in a folder, not '{options.data}': unpack it")
    if len(data.trained) < 2:
        raise InputError(f"data '{options.data}' has one class only, '{data.trained[0]}': training needs two")
    if options.task == "base-to-novel":
        novel = data.dataset.classes[len(data.trained) :]
        notify(one_line(f"base classes: {', '.join(data.trained)}; novel classes: {', '.join(novel)}"))
    return data, targets
