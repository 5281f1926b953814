"""Pretrain a small CLIP for images of 48 pixels on labelled images, so that prompts can be trained without a download.

result = train_clip(data="fer2013.tar.gz", output="runs/mini", precision="bf16")
clip = load_clip(result.checkpoint)
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.callbacks import of_stage
from edgekit.models.clip.architecture import (
    TRUNK_STRIDE_PX,
    ClipConfig,
    Tower,
    TrunkPatches,
    TrunkWeights,
    build_model,
    read_trunk,
)
from edgekit.models.clip.captions import (
    Contents,
    captions_of,
    captions_of_votes,
    captions_with_names,
    contents_of,
    example_captions,
    example_vote_captions,
)
from edgekit.models.clip.classifier import zero_shot_classifier
from edgekit.models.clip.descriptions import Descriptions, descriptions_for
from edgekit.models.clip.load import FrozenClip, description_tokens, save_clip, tokenize
from edgekit.models.clip.options import MiniClipOptions
from edgekit.models.clip.prompt_insertion import trained_attention
from edgekit.models.data import ImageSet
from edgekit.models.data.augment import draw, flips
from edgekit.models.data.ferplus import vote_counts
from edgekit.models.distill.targets import targets_of
from edgekit.models.distill.teachers import TeacherOptions, open_teacher
from edgekit.models.evaluation.evaluate import Evaluation, evaluate
from edgekit.models.model_loading import load_weights
from edgekit.models.torch_threads import set_torch_threads
from edgekit.models.training.loop import check_output
from edgekit.models.training.machine import processor_has_bf16
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.run import (
    TrainingData,
    TrainingResult,
    check_training_images,
    make_job,
    read_training_data,
    recipe_of,
    run_training,
)
from edgekit.models.training.task import StepLoss, Task, on_device
from edgekit.options import takes
from edgekit.preprocess import FloatArray, softmax

# The limit of the logit scale in CLIP's own training (arXiv 2103.00020, section 2.5).
_MAX_LOG_SCALE = math.log(100)
# Sentences per class that the teacher's loss encodes in a step.
_SENTENCES_PER_STEP = 2
_MAPS_BATCH = 64
# Share of the epochs with patch dropout.
_DROPOUT_EPOCHS = 0.75
# The last two columns of the random numbers of a step. The first selects the expression that an image's caption names,
# by its share of the votes. The second has one number for the whole batch: the seed of the captions' words.
_EXPRESSION, _SEED = -2, -1


def hybrid_config(trunk: str) -> ClipConfig:
    """Return the small CLIP's architecture, with a trunk as patch embedding."""
    return ClipConfig(
        image_size_px=48,
        patch_size_px=TRUNK_STRIDE_PX,
        vision=Tower(width=192, layers=4, heads=3),
        text=Tower(width=128, layers=4, heads=2),
        embed_dim=128,
        context_length=48,
        image_mean=(0.0, 0.0, 0.0),  # the trunk takes pixels 0..1
        image_std=(1.0, 1.0, 1.0),
        trunk=trunk,
    )


@dataclass(frozen=True)
class TeacherTargets:
    """Probabilities of a teacher for the training images, float32 (N, classes); `sha256` identifies the teacher."""

    probabilities: FloatArray
    sha256: str


@dataclass
class MiniClipTask(Task):
    """Trains both towers with a contrastive loss on images and their mirror images, with composed captions.

    Images of a batch with equal content have the same caption, which is encoded once. With a teacher, the class
    probabilities of an image, through the text features of the classes' descriptions, are trained towards the
    teacher's.

    Attributes:
        config: Architecture of the towers.
        classes: Names in label order.
        descriptions: Sentences per class, for the zero-shot validation.
        recipe: The recipe; the task uses its patch dropout.
        training: Training images; their captions are composed from their labels, or from `contents`.
        validation: Images whose zero-shot accuracy selects the best epoch.
        dataset_name: Name of the data set in the contract.
        trunk: Weights of the trunk, which is not trained.
        contents: What the captions of the training images state; None: the classes, with random traits.
        teacher: Targets for the class probabilities; None: none.

    Raises:
        InputError: A text is longer than the context.
    """

    config: ClipConfig
    classes: tuple[str, ...]
    descriptions: Descriptions
    recipe: Recipe
    training: ImageSet
    validation: ImageSet
    dataset_name: str
    trunk: TrunkWeights
    contents: Contents | None = None
    teacher: TeacherTargets | None = None

    def __post_init__(self) -> None:
        self._feature_maps: Tensor | None = None
        # Reports texts that are too long before the first epoch.
        tokenize(captions_with_names(self.classes), self.config)
        for name, sentences in self.descriptions.items():
            description_tokens(name, sentences, self.config)

    def fingerprint(self) -> dict[str, Any]:
        """Return the architecture, the classes, their descriptions, and the sources of captions, trunk and targets.

        A training can only be resumed with equal values.
        """
        texts = json.dumps(self.descriptions, sort_keys=True)
        return {
            "architecture": "clip-mini",
            "clip": asdict(self.config),
            "labels": list(self.classes),
            "descriptions_sha256": sha256(texts.encode()).hexdigest(),
            "captions": "labels" if self.contents is None else "votes",
            "trunk_sha256": self.trunk.sha256,
            "teacher_sha256": self.teacher and self.teacher.sha256,
        }

    def build(self, device: torch.device) -> nn.Module:
        """Return open_clip's model with random weights, except for the trunk's, which are given and stay frozen."""
        # Copied once to the device and not for each step.
        self._examples = on_device(self.training, device)
        self._targets = None if self.teacher is None else torch.from_numpy(self.teacher.probabilities).to(device)
        self._sentences = [tokenize(sentences, self.config) for sentences in self.descriptions.values()]  # per class
        net: Any = build_model(self.config)
        load_weights(net.visual.conv1.trunk, self.trunk.state, f"trunk {self.trunk.architecture}")
        net.visual.conv1.trunk.requires_grad_(requires_grad=False)
        if self.recipe.patch_dropout:
            from open_clip.transformer import PatchDropout

            net.visual.patch_dropout = PatchDropout(self.recipe.patch_dropout)  # `start_epoch` changes its share
        built: nn.Module = net
        return built

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the indices of all images once, in random order."""
        return torch.randperm(len(self.training), generator=generator)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return random numbers (count, 11 + 2): those of the augmentation, then the columns _EXPRESSION and _SEED."""
        of_expression = torch.rand(count, 1, generator=generator)
        of_seed = torch.rand(1, 1, generator=generator).expand(count, 1)
        return torch.cat([draw(count, generator, self.recipe.plain_augmentation), of_expression, of_seed], dim=1)

    def start_epoch(self, net: nn.Module, epoch: int) -> None:
        """Set the epoch's patch dropout. Before the first epoch, compute the trunk's feature maps of all images.

        The trunk `conv1` is not trained, so its feature maps of the images and their mirror images stay the same.
        """
        model: Any = net
        if self.recipe.patch_dropout:  # off in the last quarter of the epochs
            share = self.recipe.patch_dropout if epoch < _DROPOUT_EPOCHS * self.recipe.epochs else 0.0
            model.visual.patch_dropout.prob = share
        if self._feature_maps is None:
            self._feature_maps = _feature_maps(model.visual.conv1, self._examples.images)

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return the contrastive loss of images and captions, and with a teacher the sum of this and the teacher's.

        An image counts as correct if its caption is the most similar one of the batch.
        """
        assert self._feature_maps is not None
        columns = numbers.unbind(dim=1)
        is_mirrored = flips(columns, self.recipe.plain_augmentation)  # (N,)
        feature_maps = self._feature_maps[is_mirrored.long(), indices].float()  # (N, channels, h, w)
        device = feature_maps.device
        seed = int(columns[_SEED][0].item() * (1 << 24))  # a float32 has 24 bits
        texts, caption_of = self._captions(indices, columns[_EXPRESSION], seed)
        caption_of = caption_of.to(device)
        tokens = tokenize(texts, self.config)  # (texts, context_length)
        if self._targets is not None:  # one call of the net also encodes the sentences of the teacher's loss
            tokens = torch.cat([tokens, self._description_tokens(seed)])
        with torch.no_grad():  # limits the learned scale of the logits, as CLIP's training does
            log_scale: Any = net.logit_scale
            log_scale.clamp_(0, _MAX_LOG_SCALE)
        with trained_attention(self.config.context_length, device):
            # Unit vectors: image (N, embed_dim), encoded (texts + sentences, embed_dim).
            image, encoded, scale = net(feature_maps, tokens.to(device))
        captions, sentences = encoded[: len(texts)], encoded[len(texts) :]
        loss = caption_loss(image, captions, caption_of, scale)
        if self._targets is not None:
            loss = loss + self._teacher_loss(image, sentences, scale, self._targets[indices])
        is_correct = (image @ captions.T).argmax(dim=1) == caption_of
        return StepLoss(loss, is_correct.sum())

    def _teacher_loss(self, image: Tensor, sentences: Tensor, scale: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of the zero-shot class probabilities of images with the teacher's, a scalar.

        Args:
            image: Unit vectors (N, embed_dim).
            sentences: Unit vectors (classes * sentences, embed_dim) of the classes' descriptions.
            scale: Scale of the logits, a scalar.
            targets: Probabilities of the teacher (N, classes).
        """
        by_class = sentences.float().view(len(self.classes), -1, sentences.shape[1])  # (classes, sentences, embed_dim)
        class_vectors = F.normalize(by_class.mean(dim=1), dim=1)  # (classes, embed_dim)
        with torch.autocast(image.device.type, enabled=False):  # in float32, also if the towers compute in bf16
            logits = scale.float() * image.float() @ class_vectors.T  # (N, classes)
        return F.cross_entropy(logits, targets)

    def _captions(self, indices: Tensor, uniform: Tensor, seed: int) -> tuple[list[str], Tensor]:
        """Return the distinct captions of a batch, and the index of each image's caption: int64 (N,)."""
        if self.contents is not None:
            return captions_of_votes(self.contents, indices.cpu(), uniform.cpu(), seed)
        return captions_of(self.classes, self._examples.labels[indices], seed)

    def _description_tokens(self, seed: int) -> Tensor:
        """Return the tokens of a few descriptions of each class, int64 (classes * sentences, context_length).

        `seed` is that of the step, so that a repeated training draws the same descriptions.
        """
        generator = torch.Generator().manual_seed(seed)
        chosen = []
        for tokens in self._sentences:
            chosen.append(tokens[torch.randint(len(tokens), (_SENTENCES_PER_STEP,), generator=generator)])
        return torch.cat(chosen)

    def validate(self, net: nn.Module) -> Evaluation:
        """Return the zero-shot predictions for the validation images."""
        # A copy, because FrozenClip would freeze the net that is being trained. Its checksum is not used: any text.
        clip = FrozenClip(copy.deepcopy(net), self.config, "in training", sha256="in training")
        gray = self.validation.images.shape[-1] == 1
        classifier = zero_shot_classifier(clip, self.descriptions, self.dataset_name, gray)
        return evaluate(classifier, self.validation, "center-crop")

    def save(self, path: Path, net: nn.Module, training: Mapping[str, Any]) -> None:
        """Write the CLIP to a file for `load_clip`, with examples of the texts that it was trained on."""
        contents = self.contents
        texts = example_captions(self.classes) if contents is None else example_vote_captions(contents.names)
        if self.teacher is not None:  # its loss also trains on the descriptions
            for sentences in self.descriptions.values():
                texts += sentences
        save_clip(path, net, self.config, {**training, "texts": texts})


def caption_loss(image: Tensor, captions: Tensor, caption_of: Tensor, scale: Tensor) -> Tensor:
    """Return the contrastive loss, a scalar, of images and the distinct captions of a batch.

    It is the mean of two losses:

    - Of images: the cross-entropy over the captions. A caption has one term in the softmax; in open_clip's loss it has
      one for each of its images. So the similarities learn how frequent a caption is.
    - Of captions: the cross-entropy over the images. The target of a caption is divided equally among its images. In
      the mean over the captions, the weight of a caption is the number of its images.

    Args:
        image: Unit vectors (N, embed_dim).
        captions: Unit vectors (texts, embed_dim).
        caption_of: Index of each image's caption, int64 (N,).
        scale: Scale of the logits, a scalar.
    """
    with torch.autocast(image.device.type, enabled=False):  # in float32, also if the towers compute in bf16
        logits = scale.float() * image.float() @ captions.float().T  # (N, texts)
        loss_of_images = F.cross_entropy(logits, caption_of)
        # Log-probability of each image, given its caption: (N, 1).
        log_probabilities = logits.log_softmax(dim=0).gather(1, caption_of[:, None])
        loss_of_captions = -log_probabilities.mean()
    return (loss_of_images + loss_of_captions) / 2


@torch.no_grad()
def _feature_maps(patches: TrunkPatches, images: Tensor) -> Tensor:
    """Return a trunk's feature maps of gray or colour images uint8 (N, C, H, W): bfloat16 (2, N, channels, h, w).

    Index 0 of the first dimension has the images, index 1 their mirror images.
    """
    views = []
    for mirror in (False, True):
        maps = []
        for batch in torch.split(images, _MAPS_BATCH):
            view = batch.flip(-1) if mirror else batch
            pixels = view.float().div(255).expand(-1, 3, -1, -1)  # three channels, of gray images three equal ones
            with torch.autocast(images.device.type, torch.bfloat16, enabled=processor_has_bf16()):
                found = patches.feature_maps(pixels.contiguous(memory_format=torch.channels_last))
            maps.append(found.bfloat16().contiguous())  # half the memory of float32
        views.append(torch.cat(maps))
    return torch.stack(views)


@takes(MiniClipOptions)
def train_clip(options: MiniClipOptions) -> TrainingResult:
    """Train a small CLIP and save the weights of the epoch with the highest zero-shot validation accuracy.

    The output folder receives the files of `edgekit.train`; `load_clip` reads `best.safetensors`.

    Raises:
        InputError: An option, the data or the descriptions are invalid, or the output folder contains another
            training.
        StorageError: The disk is full or read-only.
    """
    notify, recipe = options.notify, recipe_of(options)
    set_torch_threads(options.threads)
    check_output(options.output, options.resume)
    trunk = read_trunk(resolve_model(options.trunk, (CHECKPOINT_SUFFIX,)))
    data = read_training_data(options)
    check_training_images(data, notify)
    dataset = data.dataset
    task = MiniClipTask(
        config=hybrid_config(trunk.architecture),
        classes=dataset.classes,
        descriptions=descriptions_for(dataset.classes, options.descriptions, notify, dataset=dataset.name),
        recipe=recipe,
        training=data.training,
        validation=data.validation,
        dataset_name=dataset.name,
        trunk=trunk,
        contents=_contents(options, data),
        teacher=_teacher_targets(options, data),
    )
    precision = "fp32" if options.precision == "auto" else options.precision  # bf16 is chosen for nets only
    votes_sha256 = None if options.ferplus is None else sha256_of(options.ferplus)
    job = make_job(options, data, task, recipe, precision, ferplus_sha256=votes_sha256)
    return run_training(job, options, data)


def _contents(options: MiniClipOptions, data: TrainingData) -> Contents | None:
    """Return what the captions of the training images state, or None for captions of the classes."""
    if options.ferplus is None:
        return None
    # There is one row of votes for each image of the split, so no image of it may be held back for validation.
    name = data.training_name
    if name is None or len(data.training) != len(data.dataset.split(name)):
        raise InputError("captions of votes need a validation split beside the training split: use FER-2013's")
    votes = vote_counts(data.dataset, options.ferplus, name)[name]
    return contents_of(data.dataset.classes, data.training.labels, votes, data.training.images)


def _teacher_targets(options: MiniClipOptions, data: TrainingData) -> TeacherTargets | None:
    """Return the mean probabilities of the teachers for the training images and their mirror images."""
    if not options.teacher:
        return None
    notify, images = options.notify, data.training.images
    teacher = open_teacher(options.teacher, data.dataset.classes, TeacherOptions(threads=options.threads), notify)
    notify(f"teacher {teacher.name} classifies {len(images)} training images and their mirror images")
    views = []
    for view, what in ((images, "images"), (images[:, :, ::-1], "mirror images")):  # (N, H, W, C)
        report = of_stage(options.progress, f"teacher {teacher.name}: {what}")
        # Not `mirrored`, which averages the logits of both views: here their probabilities are averaged.
        views.append(softmax(targets_of(teacher, view, report, mirrored=False).logits))
    agreement = (views[0].argmax(1) == data.training.labels).mean()
    notify(f"teacher {teacher.name} agrees with {agreement:.2%} of the training labels")
    return TeacherTargets(np.stack(views).mean(axis=0, dtype=np.float32), teacher.sha256)
