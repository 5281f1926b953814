"""A small CLIP for faces of 48 pixels, and the task that pretrains it on images with composed captions."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.errors import InputError
from edgekit.models.clip.architecture import ClipConfig, Tower, build_model
from edgekit.models.clip.captions import captions_of, captions_with_names, example_captions
from edgekit.models.clip.classifier import zero_shot_classifier
from edgekit.models.clip.contrastive import caption_loss, contrastive_loss
from edgekit.models.clip.descriptions import Descriptions
from edgekit.models.clip.frozen import FrozenClip, description_tokens, tokenize
from edgekit.models.clip.load import save_clip
from edgekit.models.clip.prompt_insertion import trained_attention
from edgekit.models.clip.prompt_task import normalized
from edgekit.models.clip.trunk import TRUNK_STRIDE_PX, TrunkPatches, TrunkWeights
from edgekit.models.clip.vote_captions import Contents, captions_of_votes, example_vote_captions
from edgekit.models.data import ImageSet
from edgekit.models.data.augment import augment, draw, flips
from edgekit.models.evaluation.evaluate import evaluate
from edgekit.models.model_loading import load_weights
from edgekit.models.training.precision import processor_has_bf16
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.task import StepLoss, Task, Validation, on_device
from edgekit.preprocess import FloatArray

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
# Sentences per class that the teacher's loss encodes in a step.
_SENTENCES_PER_STEP = 2
_MAPS_BATCH = 64
# Share of the epochs with patch dropout.
_DROPOUT_EPOCHS = 0.75


def hybrid_config(trunk: str, layers: int = 4) -> ClipConfig:
    """Return the small CLIP's architecture with a trunk as patch embedding, and `layers` layers in both towers."""
    return replace(
        CLIP_MINI,
        patch_size_px=TRUNK_STRIDE_PX,
        vision=replace(CLIP_MINI.vision, layers=layers),
        text=replace(CLIP_MINI.text, layers=layers),
        image_mean=(0.0, 0.0, 0.0),
        image_std=(1.0, 1.0, 1.0),
        trunk=trunk,
    )


@dataclass(frozen=True)
class TeacherTargets:
    """Probabilities of a teacher for the training images, float32 (N, classes); `sha256` identifies the teacher."""

    probabilities: FloatArray
    sha256: str


class MiniClipTask(Task):
    """Trains both towers with a contrastive loss on augmented images with composed captions.

    Images of a batch with equal content have the same caption, which is encoded once. Captions of the classes are
    trained with open_clip's loss, in which a caption counts once for each of its images; captions of `contents` with
    `caption_loss`. With a teacher, the class probabilities of an image, through the text features of the classes'
    descriptions, are trained towards the teacher's.
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
        *,
        trunk: TrunkWeights | None = None,
        contents: Contents | None = None,
        teacher: TeacherTargets | None = None,
    ) -> None:
        """Create the task.

        Args:
            config: Architecture of the towers.
            classes: Names in label order.
            class_descriptions: Sentences per class, for the zero-shot validation.
            recipe: The recipe; the task uses its augmentation.
            training: Training images; their captions are composed from their labels, or from `contents`.
            validation: Images whose zero-shot accuracy selects the best epoch.
            dataset_name: Name of the data set in the contract.
            trunk: Weights of the trunk, if the architecture has one.
            contents: What the captions of the training images state; None: the classes, with random traits.
            teacher: Targets for the class probabilities; None: none.

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
            description_tokens(name, sentences, config)  # raises if a sentence is too long
        self._config = config
        self._classes = classes
        self._descriptions = class_descriptions
        self._training = training
        self._validation = validation
        self._dataset_name = dataset_name
        self._trunk = trunk
        self._contents = contents
        self._teacher = teacher
        self._recipe = recipe
        self._feature_maps: Tensor | None = None

    def fingerprint(self) -> dict[str, Any]:
        """Return the architecture, the classes, their descriptions, and the sources of captions, trunk and targets."""
        texts = json.dumps(self._descriptions, sort_keys=True)
        return {
            "architecture": "clip-mini",
            "clip": asdict(self._config),
            "labels": list(self._classes),
            "descriptions_sha256": sha256(texts.encode()).hexdigest(),
            "captions": "labels" if self._contents is None else "votes",
            "trunk_sha256": self._trunk and self._trunk.sha256,
            "teacher_sha256": self._teacher and self._teacher.sha256,
        }

    def build(self, device: torch.device) -> nn.Module:
        """Return open_clip's model with random weights, except for the trunk's."""
        self._examples = on_device(self._training, device)
        self._contrast = contrastive_loss()
        self._targets = None if self._teacher is None else torch.from_numpy(self._teacher.probabilities).to(device)
        self._sentences = tokenize([text for texts in self._descriptions.values() for text in texts], self._config)
        net: Any = build_model(self._config)
        if self._trunk is not None:
            load_weights(net.visual.conv1.trunk, self._trunk.state, f"trunk {self._trunk.architecture}")
            net.visual.conv1.trunk.requires_grad_(requires_grad=False)
        if self._recipe.patch_dropout:
            from open_clip.transformer import PatchDropout

            net.visual.patch_dropout = PatchDropout(self._recipe.patch_dropout)
        built: nn.Module = net
        return built

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the indices of all images once, in random order."""
        return torch.randperm(len(self._training), generator=generator)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return random numbers (count, 11 + 2): augmentation, choice of the class, choice of the words."""
        own = torch.rand(count, 1, generator=generator)
        shared = torch.rand(1, 1, generator=generator).expand(count, 1)
        return torch.cat([draw(count, generator, self._augmentation), own, shared], dim=1)

    def start_epoch(self, net: nn.Module, epoch: int) -> None:
        """Set the patch dropout, and compute a trunk's feature maps of the images and their mirror images once."""
        model: Any = net
        if self._recipe.patch_dropout:
            share = self._recipe.patch_dropout if epoch < _DROPOUT_EPOCHS * self._recipe.epochs else 0.0
            model.visual.patch_dropout.prob = share
        if self._trunk is not None and self._feature_maps is None:
            self._feature_maps = _feature_maps(model.visual.conv1, self._examples.images)

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return the loss; a prediction is correct if the most similar caption is the image's caption."""
        images = self._images(indices, numbers)
        seed = int(numbers[0, -1].item() * (1 << 24))
        texts, which = self._captions(indices, numbers[:, -2], seed)
        which = which.to(images.device)
        with torch.no_grad():
            scale: Any = net.logit_scale
            scale.clamp_(0, _MAX_LOG_SCALE)
        tokens = tokenize(texts, self._config)  # (texts, context_length)
        described = self._described(seed) if self._targets is not None else tokens[:0]
        with trained_attention(self._config.context_length, images.device):
            # image (N, embed_dim), text (texts + sentences, embed_dim)
            image, text, scale = net(images, torch.cat([tokens, described]).to(images.device))
        distinct, sentences = text[: len(tokens)], text[len(tokens) :]
        if self._contents is None:
            loss = self._contrast(image, distinct[which], scale)
        else:
            loss = caption_loss(image, distinct, which, scale)
        if self._targets is not None:
            vectors = F.normalize(sentences.float().view(len(self._classes), -1, sentences.shape[1]).mean(1), dim=1)
            with torch.autocast(image.device.type, enabled=False):
                logits = scale.float() * image.float() @ vectors.T  # (N, classes)
            loss = loss + F.cross_entropy(logits, self._targets[indices])
        return StepLoss(loss, ((image @ distinct.T).argmax(dim=1) == which).sum())

    def _images(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return the tower's input: normalised images (N, 3, H, W), or the trunk's feature maps (N, channels, h, w)."""
        if self._feature_maps is not None:
            return self._feature_maps[flips(numbers.unbind(dim=1), self._augmentation).long(), indices].float()
        pixels = augment(self._examples.images[indices], numbers[:, :-2], self._augmentation)
        return normalized(pixels.expand(-1, 3, -1, -1), self._config)

    def _captions(self, indices: Tensor, uniform: Tensor, seed: int) -> tuple[list[str], Tensor]:
        if self._contents is not None:
            return captions_of_votes(self._contents, indices.cpu(), uniform.cpu(), seed)
        return captions_of(self._classes, self._examples.labels[indices], seed)

    def _described(self, seed: int) -> Tensor:
        """Return the tokens of a few descriptions of each class, int64 (classes * sentences, context_length)."""
        generator, start, chosen = torch.Generator().manual_seed(seed), 0, []
        for texts in self._descriptions.values():
            chosen.append(start + torch.randint(len(texts), (_SENTENCES_PER_STEP,), generator=generator))
            start += len(texts)
        return self._sentences[torch.cat(chosen)]

    def validate(self, net: nn.Module) -> Validation:
        """Return zero-shot loss and accuracy on the validation images."""
        # FrozenClip would freeze the net itself.
        clip = FrozenClip(copy.deepcopy(net), self._config, "in training", sha256="in training")
        gray = self._validation.images.shape[-1] == 1
        classifier = zero_shot_classifier(clip, self._descriptions, self._dataset_name, gray)
        result = evaluate(classifier, self._validation, "center-crop")
        return Validation(result.loss, result.accuracy)

    def save(self, path: Path, net: nn.Module, training: Mapping[str, Any]) -> None:
        """Write the CLIP to a file for `load_clip`, with examples of the texts that it was trained on."""
        contents = self._contents
        texts = example_captions(self._classes) if contents is None else example_vote_captions(contents.names)
        if self._teacher is not None:
            texts += [sentence for sentences in self._descriptions.values() for sentence in sentences]
        save_clip(path, net, self._config, {**training, "texts": texts})


@torch.no_grad()
def _feature_maps(patches: TrunkPatches, images: Tensor) -> Tensor:
    """Return a trunk's feature maps of gray or colour images uint8 (N, C, H, W): bfloat16 (2, N, channels, h, w).

    The second half belongs to the mirror images.
    """
    views = []
    for mirror in (False, True):
        maps = []
        for batch in torch.split(images, _MAPS_BATCH):
            pixels = (batch.flip(-1) if mirror else batch).float().div(255).expand(-1, 3, -1, -1)
            with torch.autocast(images.device.type, torch.bfloat16, enabled=processor_has_bf16()):
                found = patches.feature_maps(pixels.contiguous(memory_format=torch.channels_last))
            maps.append(found.bfloat16().contiguous())
        views.append(torch.cat(maps))
    return torch.stack(views)
