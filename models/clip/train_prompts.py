"""Train prompts for a frozen CLIP with HiCroPL (arXiv 2507.14976) and evaluate them on a task's test images.

result = train_prompts(clip="ViT-B-16.pt", data="fer2013.tar.gz", output="runs/prompts", shots=16)
print(result.evaluation.summary["accuracy"], result.training.checkpoint)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.files import write_atomic
from edgekit.models.callbacks import of_stage
from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.checkpoint import build_prompted, load_prompts, prompt_checkpoint, save_prompts
from edgekit.models.clip.classifier import prompted_classifier
from edgekit.models.clip.descriptions import Descriptions, descriptions_for
from edgekit.models.clip.hicropl import PromptConfig, PromptedClip, require_fit, shortened
from edgekit.models.clip.load import FrozenClip, load_clip
from edgekit.models.clip.options import PromptOptions
from edgekit.models.clip.protocols import (
    Splits,
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
from edgekit.models.data import ImageSet
from edgekit.models.data.augment import ResizedCrop, draw_crops, resized_crops
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import Evaluation, evaluate
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.loop import check_output
from edgekit.models.training.machine import is_first_process
from edgekit.models.training.run import TrainingData, TrainingResult, make_job, recipe_of, run_training
from edgekit.models.training.task import StepLoss, Task, on_device
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
    crop = ResizedCrop() if options.min_area is None else ResizedCrop(options.min_area)
    recipe = recipe_of(replace(options, epochs=options.epochs or epochs_of(options.task)))
    recipe = replace(recipe, augmentation=crop)
    set_torch_threads(options.threads)
    check_output(options.output, options.resume)
    clip = load_clip(options.clip)
    notify(_summary(clip))
    config = prompt_config(options, clip.config)
    data, targets = _read_data(options, clip.image_size_px)
    name = data.dataset.name
    # Without messages for the check, because the same descriptions are read again afterwards.
    describe_silently = partial(descriptions_for, path=options.descriptions)
    check_evaluation(options.task, data, targets, describe_silently, clip.config)
    describe = partial(describe_silently, notify=notify)
    descriptions = describe(data.trained, dataset=name)
    prompt_task = PromptTask(clip, config, descriptions, crop, data.training, data.validation, name)
    training_data = TrainingData(data.dataset, data.training, data.validation, data.validation_name)
    precision = "fp32" if options.precision == "auto" else options.precision  # bf16 is chosen for nets only
    # The record of the training contains the keyword arguments.
    job = make_job(options, training_data, prompt_task, recipe, precision, task=options.task, shots=options.shots)
    trained = run_training(job, options, training_data)
    if not is_first_process():
        return PromptTrainingResult(trained)  # the first process evaluates for all
    net = build_prompted(load_prompts(trained.checkpoint), clip).to(clip.logit_scale.device)
    evaluation = measure(options.task, net, data, describe, targets, notify)
    result = PromptTrainingResult(trained, evaluation, options.output / RESULTS_NAME)
    write_atomic(options.output / RESULTS_NAME, json.dumps(result.document(), indent=2) + "\n")
    return result


def prompt_config(options: PromptOptions, clip: ClipConfig) -> PromptConfig:
    """Return the task's preset, scaled down to a CLIP with fewer layers, with the options' consistency weight.

    Raises:
        InputError: The prompts do not fit the CLIP.
    """
    preset = preset_of(options.task)
    config = shortened(preset, clip)
    if config != preset:
        options.notify(
            f"the CLIP has fewer layers than the preset's depth {preset.depth}: "
            f"depth {config.depth}, cross layer {config.cross_layer}"
        )
    if options.consistency_weight is not None:
        config = replace(config, consistency_weight=options.consistency_weight)
    require_fit(config, clip)
    return config


def _summary(clip: FrozenClip) -> str:
    """Return one line for the user about the CLIP's architecture."""
    shape = clip.config
    return (
        f"CLIP {clip.source}: {shape.image_size_px} px in patches of {shape.patch_size_px}, image tower "
        f"{shape.vision.layers} x {shape.vision.width}, text tower {shape.text.layers} x {shape.text.width}, "
        f"activation {shape.activation}"
    )


def _read_data(options: PromptOptions, size_px: int) -> tuple[TaskData, list[Target]]:
    """Return the task's images and the other data sets to evaluate on."""
    notify, splits = options.notify, Splits(options.train_split, options.val_split, options.test_split)
    read = partial(
        load_dataset,
        progress=of_stage(options.progress, "reading images"),
        contempt=options.contempt,
        notify=notify,
        fit="clip",
        cache_folder=options.output,
    )
    data = load_task_data(options.data, options.task, size_px, options.shots, options.seed, splits, read, notify)
    targets = [load_target(Path(path), size_px, read) for path in options.eval_data]
    if len(data.trained) < 2:
        raise InputError(f"data '{options.data}' has one class only, '{data.trained[0]}': training needs two")
    if options.task == "base-to-novel":
        notify(one_line(f"base classes: {', '.join(data.trained)}; novel classes: {', '.join(data.novel)}"))
    return data, targets


@dataclass
class PromptTask(Task):
    """Trains a prompt learner with HiCroPL's loss on random resized crops.

    Attributes:
        clip: The frozen CLIP; it is moved to the device of the training.
        config: Hyper-parameters.
        descriptions: Sentences per class, in the order of the labels.
        crop: The random resized crops.
        training: Training images of the CLIP's size.
        validation: Images that each epoch is evaluated on.
        dataset_name: Name of the data set in the contract.
    """

    clip: FrozenClip
    config: PromptConfig
    descriptions: Descriptions
    crop: ResizedCrop
    training: ImageSet
    validation: ImageSet
    dataset_name: str

    @property
    def gray(self) -> bool:
        """Whether the training images have one channel."""
        return bool(self.training.images.shape[-1] == 1)

    def fingerprint(self) -> dict[str, Any]:
        """Return the hyper-parameters, the CLIP's checksum and the descriptions.

        A training can only be resumed with equal values.
        """
        return {
            "architecture": "hicropl",
            "prompts": asdict(self.config),
            "clip_sha256": self.clip.sha256,
            "descriptions": {name: list(texts) for name, texts in self.descriptions.items()},
            "gray": self.gray,
        }

    def build(self, device: torch.device) -> nn.Module:
        """Return a prompted CLIP with initial prompts."""
        self._examples = on_device(self.training, device)
        return _LossNet(PromptedClip(self.clip, self.config, self.descriptions))

    def learned(self, net: nn.Module) -> nn.Module:
        """Return the part of the net that is trained: the prompt learner."""
        return _prompted(net).learner

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the indices of all images once, in random order."""
        return torch.randperm(len(self.training), generator=generator)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return random numbers (count, 5) for the crops."""
        return draw_crops(count, generator)

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return HiCroPL's loss on random crops of the images."""
        images, labels = self._examples.images[indices], self._examples.labels[indices]
        crops = resized_crops(images, numbers, self.crop, self.clip.image_size_px)  # (N, C, size, size) in 0..1
        total, logits = net(normalized(crops, self.clip.config), labels)
        return StepLoss(total, (logits.argmax(dim=1) == labels).sum())

    def validate(self, net: nn.Module) -> Evaluation:
        """Return the predictions for whole validation images."""
        classifier = prompted_classifier(_prompted(net), self.dataset_name, self.gray)
        return evaluate(classifier, self.validation, "center-crop")

    def save(self, path: Path, net: nn.Module, training: Mapping[str, Any]) -> None:
        """Write the checkpoint of the prompts, without the CLIP."""
        save_prompts(path, prompt_checkpoint(_prompted(net), training))


class _LossNet(nn.Module):
    """A prompted CLIP whose forward pass is its loss, because autocast and DDP wrap a module's forward pass."""

    def __init__(self, prompted: PromptedClip) -> None:
        super().__init__()
        self.prompted = prompted

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        losses = self.prompted.loss(images, labels)
        return losses.total, losses.logits


def normalized(pixels: Tensor, config: ClipConfig) -> Tensor:
    """Return the normalised input (N, 3, H, W) of the image tower for pixels (N, 1 or 3, H, W) in 0..1."""
    mean = torch.tensor(config.image_mean, device=pixels.device)[:, None, None]  # (3, 1, 1)
    std = torch.tensor(config.image_std, device=pixels.device)[:, None, None]
    return (pixels - mean) / std


def _prompted(net: nn.Module) -> PromptedClip:
    assert isinstance(net, _LossNet)
    return net.prompted
