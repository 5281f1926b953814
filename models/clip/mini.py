"""A small CLIP for faces of 48 pixels, and the task that pretrains it on images with composed captions."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.models.clip.architecture import ClipConfig, Tower, build_model
from edgekit.models.clip.captions import captions_of, captions_with_names
from edgekit.models.clip.classifier import zero_shot_classifier
from edgekit.models.clip.descriptions import Descriptions
from edgekit.models.clip.frozen import FrozenClip, require_room, tokenize
from edgekit.models.clip.load import save_clip
from edgekit.models.clip.prompt_insertion import trained_attention
from edgekit.models.clip.prompt_task import normalized
from edgekit.models.data import ImageSet
from edgekit.models.data.augment import augment, draw
from edgekit.models.evaluation.evaluate import evaluate
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.task import StepLoss, Task, Validation, on_device

# Parameters: 2.8 M in the image tower, 1.2 M in the text tower, 6.3 M in the token embedding.
CLIP_MINI = ClipConfig(
    image_size_px=48,
    patch_size_px=12,
    vision=Tower(width=192, layers=6, heads=3),
    text=Tower(width=128, layers=6, heads=2),
    embed_dim=128,
    context_length=48,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.25, 0.25, 0.25),
)
# The limit of the logit scale in CLIP's own training (arXiv 2103.00020, section 2.5).
_MAX_LOG_SCALE = math.log(100)


class MiniClipTask(Task):
    """Trains both towers with open_clip's contrastive loss on augmented images with composed captions.

    Images of a batch with equal content have the same caption, which is encoded once. Shared captions need no
    correction of the loss: with equal text features it equals a cross-entropy whose target probability is divided
    equally among the images of a caption.
    """

    def __init__(
        self,
        config: ClipConfig,
        classes: tuple[str, ...],
        class_descriptions: Descriptions,
        recipe: Recipe,
        training: ImageSet,
        validation: ImageSet,
        dataset_name: str,
    ) -> None:
        """Create the task.

        Args:
            config: Architecture of the towers.
            classes: Names in label order.
            class_descriptions: Sentences per class, for the zero-shot validation.
            recipe: The recipe; the task uses its augmentation.
            training: Training images; their captions are composed from their labels and, if they have them, their
                targets.
            validation: Images whose zero-shot accuracy selects the best epoch.
            dataset_name: Name of the data set in the contract.

        Raises:
            InputError: The recipe's crops do not have the size of the CLIP's images, or a text is longer than the
                context.
        """
        self._augmentation = recipe.plain_augmentation
        if self._augmentation.crop_px != config.image_size_px:
            raise InputError(
                f"the recipe crops images to {self._augmentation.crop_px} px, the CLIP takes {config.image_size_px}: "
                "choose recipe 'clip-mini'"
            )
        # Reports texts that are too long before the first epoch.
        tokenize(captions_with_names(classes), config)
        for name, sentences in class_descriptions.items():
            require_room(name, sentences, config)
        self._config = config
        self._classes = classes
        self._descriptions = class_descriptions
        self._training = training
        self._validation = validation
        self._dataset_name = dataset_name

    def fingerprint(self) -> dict[str, Any]:
        """Return the architecture and the classes."""
        return {"architecture": "clip-mini", "clip": asdict(self._config), "labels": list(self._classes)}

    def build(self, device: torch.device) -> nn.Module:
        """Return open_clip's model with random weights."""
        self._examples = on_device(self._training, device)
        self._contrast = contrastive_loss()
        return build_model(self._config)

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the indices of all images once, in random order."""
        return torch.randperm(len(self._training), generator=generator)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return random numbers (count, 11 + 2): augmentation, choice of the class, choice of the words."""
        own = torch.rand(count, 1, generator=generator)
        shared = torch.rand(1, 1, generator=generator).expand(count, 1)
        return torch.cat([draw(count, generator, self._augmentation), own, shared], dim=1)

    def start_epoch(self, net: nn.Module, epoch: int) -> None:
        """Do nothing: no setting of this task changes from epoch to epoch."""

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return the contrastive loss; a prediction is correct if the most similar caption is the image's caption."""
        pixels = augment(self._examples.images[indices], numbers[:, :-2], self._augmentation)
        pixels = pixels.expand(-1, 3, -1, -1)  # (N, 3, H, W)
        targets = None if self._examples.targets is None else self._examples.targets[indices]
        seed = int(numbers[0, -1].item() * (1 << 24))
        texts, which = captions_of(self._classes, self._examples.labels[indices], targets, numbers[:, -2], seed)
        with torch.no_grad():
            scale: Any = net.logit_scale
            scale.clamp_(0, _MAX_LOG_SCALE)
        tokens = tokenize(texts, self._config).to(pixels.device)  # (texts, context_length)
        with trained_attention(self._config.context_length, pixels.device):
            # image (N, embed_dim), distinct (texts, embed_dim)
            image, distinct, scale = net(normalized(pixels, self._config), tokens)
        loss = self._contrast(image, distinct[which], scale)
        return StepLoss(loss, ((image @ distinct.T).argmax(dim=1) == which).sum())

    def validate(self, net: nn.Module) -> Validation:
        """Return zero-shot loss and accuracy on the validation images."""
        # FrozenClip would freeze the net itself.
        clip = FrozenClip(copy.deepcopy(net), self._config, "in training", sha256="in training")
        gray = self._validation.images.shape[-1] == 1
        classifier = zero_shot_classifier(clip, self._descriptions, self._dataset_name, gray)
        result = evaluate(classifier, self._validation, "center-crop")
        return Validation(result.loss, result.accuracy)

    def save(self, path: Path, net: nn.Module, training: Mapping[str, Any]) -> None:
        """Write the CLIP to a file for `load_clip`."""
        save_clip(path, net, self._config, training)


def contrastive_loss() -> Any:
    """Return open_clip's loss over the batches of all processes."""
    from open_clip.loss import ClipLoss

    # open_clip gathers with a function that torch has deprecated.
    warnings.filterwarnings("ignore", message=".*all_gather is deprecated", category=FutureWarning)
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank = torch.distributed.get_rank() if distributed else 0
    world = torch.distributed.get_world_size() if distributed else 1
    return ClipLoss(gather_with_grad=True, rank=rank, world_size=world)
