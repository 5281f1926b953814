"""The task that trains prompts for a frozen CLIP in the common training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from edgekit.models.clip.prompted import PromptedClip, prompts_kept
from edgekit.models.data import ImageSet
from edgekit.models.data.image_files import ImageFiles
from edgekit.models.data.original_crops import OriginalCrops
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
        originals: ImageFiles | None = None,
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
            originals: The files of the training images, to crop from whole pictures; None: crop from `training`.

        Raises:
            InputError: The recipe's augmentation is not random resized crops.
        """
        if not isinstance(recipe.augmentation, ResizedCrop):
            raise InputError("the recipe has no random resized crops: prompts need 'hicropl' or 'hicropl-short'")
        self._clip = clip
        self._config = config
        self._descriptions = class_descriptions
        self._crop = recipe.augmentation
        self._training = training
        self._validation = validation
        self._dataset_name = dataset_name
        self._gray = training.images.shape[-1] == 1
        self._originals = originals and OriginalCrops(originals, self._crop, clip.image_size_px, self._gray)

    def fingerprint(self) -> dict[str, Any]:
        """Return the hyper-parameters, the CLIP's checksum and the descriptions."""
        return {
            "architecture": "hicropl",
            "prompts": asdict(self._config),
            "clip_sha256": self._clip.sha256,
            "descriptions": {name: list(texts) for name, texts in self._descriptions.items()},
            "gray": self._gray,
            "crop_from_originals": self._originals is not None,
        }

    def build(self, device: torch.device) -> nn.Module:
        """Return a prompted CLIP with initial prompts."""
        self._labels = torch.tensor(self._training.labels, device=device)
        self._images = None if self._originals else on_device(self._training, device).images
        prompted = PromptedClip(self._clip, self._config, self._descriptions)
        if self._config.upstream_compat:
            # Mappers and proxies never receive a gradient, and distributed training would wait for one.
            for name, parameter in prompted.learner.named_parameters():
                parameter.requires_grad_(name in ("text_prompts", "vision_prompts"))
        return _LossNet(prompted)

    def learned(self, net: nn.Module) -> nn.Module:
        """Return the part of the net that is trained: the prompt learner."""
        return _prompted(net).learner

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the indices of all images once, in random order."""
        return torch.randperm(len(self._training), generator=generator)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return random numbers (count, 5) for the crops."""
        return draw_crops(count, generator)

    def prefetch(self, batches: Sequence[Tensor]) -> None:
        """Start to decode the files of the batches, where crops are cut from the original pictures."""
        if self._originals:
            self._originals.prefetch(batches)

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return HiCroPL's loss on random crops of the images."""
        crops, labels = self._crops(indices, numbers), self._labels[indices]
        total, logits = net(normalized(crops, self._clip.config), labels)
        return StepLoss(total, (logits.argmax(dim=1) == labels).sum())

    def _crops(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return random crops (N, C, size, size) in 0..1."""
        if self._originals:
            return self._originals.crops(indices, numbers).to(numbers.device)
        assert self._images is not None
        return resized_crops(self._images[indices], numbers, self._crop, self._clip.image_size_px)

    def validate(self, net: nn.Module) -> Validation:
        """Return loss and accuracy on whole validation images."""
        prompted = _prompted(net)
        with prompts_kept(prompted):
            classifier = prompted_classifier(prompted, self._dataset_name, self._gray)
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
