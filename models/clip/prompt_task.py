"""The task that trains prompts for a frozen CLIP in the common training loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.checkpoint import prompt_checkpoint, save_prompts
from edgekit.models.clip.classifier import prompted_classifier
from edgekit.models.clip.config import PromptConfig
from edgekit.models.clip.descriptions import Descriptions
from edgekit.models.clip.frozen import FrozenClip
from edgekit.models.clip.prompted import PromptedClip
from edgekit.models.data import ImageSet
from edgekit.models.data.resized_crop import ResizedCrop, draw_crops, resized_crops
from edgekit.models.evaluation.evaluate import evaluate
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.task import StepLoss, Task, Validation, on_device


class PromptTask(Task):
    """Trains a prompt learner with HiCroPL's loss on random resized crops."""

    def __init__(
        self,
        clip: FrozenClip,
        config: PromptConfig,
        class_descriptions: Descriptions,
        recipe: Recipe,
        training: ImageSet,
        validation: ImageSet,
        dataset_name: str,
    ) -> None:
        """Create the task.

        Args:
            clip: The frozen CLIP; it is moved to the device of the training.
            config: Hyper-parameters.
            class_descriptions: Sentences per class, in the order of the labels.
            recipe: The recipe; the task uses its random resized crops.
            training: Training images of the CLIP's size.
            validation: Images that each epoch is evaluated on.
            dataset_name: Name of the data set in the contract.

        Raises:
            InputError: The recipe's augmentation is not random resized crops.
        """
        if not isinstance(recipe.augmentation, ResizedCrop):
            raise InputError("the recipe has no random resized crops: prompts need 'hicropl'")
        self._clip = clip
        self._config = config
        self._descriptions = class_descriptions
        self._crop = recipe.augmentation
        self._training = training
        self._validation = validation
        self._dataset_name = dataset_name
        self._gray = training.images.shape[-1] == 1

    def fingerprint(self) -> dict[str, Any]:
        """Return the hyper-parameters, the CLIP's checksum and the descriptions."""
        return {
            "architecture": "hicropl",
            "prompts": asdict(self._config),
            "clip_sha256": self._clip.sha256,
            "descriptions": {name: list(texts) for name, texts in self._descriptions.items()},
            "gray": self._gray,
        }

    def build(self, device: torch.device) -> nn.Module:
        """Return a prompted CLIP with initial prompts."""
        self._examples = on_device(self._training, device)
        return _LossNet(PromptedClip(self._clip, self._config, self._descriptions))

    def learned(self, net: nn.Module) -> nn.Module:
        """Return the part of the net that is trained: the prompt learner."""
        return _prompted(net).learner

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the indices of all images once, in random order."""
        return torch.randperm(len(self._training), generator=generator)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return random numbers (count, 5) for the crops."""
        return draw_crops(count, generator)

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return HiCroPL's loss on random crops of the images."""
        images, labels = self._examples.images[indices], self._examples.labels[indices]
        crops = resized_crops(images, numbers, self._crop, self._clip.image_size_px)  # (N, C, size, size) in 0..1
        total, logits = net(normalized(crops, self._clip.config), labels)
        return StepLoss(total, (logits.argmax(dim=1) == labels).sum())

    def validate(self, net: nn.Module) -> Validation:
        """Return loss and accuracy on whole validation images."""
        classifier = prompted_classifier(_prompted(net), self._dataset_name, self._gray)
        result = evaluate(classifier, self._validation, "center-crop")
        return Validation(result.loss, result.accuracy)

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
