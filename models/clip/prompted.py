"""A CLIP with HiCroPL prompts as a classifier (arXiv 2507.14976, section 3): features, logits and loss.

Shapes: N images, C classes, embed_dim the length of the features. The shapes of the prompts are described in the module
`prompts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.errors import InputError
from edgekit.models.clip.config import MAX_WORDS_N_CTX, PromptConfig
from edgekit.models.clip.descriptions import as_words, sentences_or_template
from edgekit.models.clip.frozen import FrozenClip, description_tokens
from edgekit.models.clip.prompt_insertion import embed_patches, encode_patches, encode_text
from edgekit.models.clip.prompts import PromptLearner, Prompts

_PLACEHOLDER = "X"


@dataclass(frozen=True)
class Losses:
    """Losses of a batch (scalars) and the batch's logits (N, C).

    total = classification + λ (text_consistency + image_consistency)
    """

    total: Tensor
    classification: Tensor
    text_consistency: Tensor
    image_consistency: Tensor
    logits: Tensor


@dataclass(frozen=True)
class _Features:
    """Unit vectors (N or C, embed_dim): `used`, the means of prompted and frozen features, and the frozen ones."""

    used: Tensor
    frozen: Tensor


class PromptedClip(nn.Module):
    """A frozen CLIP with a prompt learner and the classes to distinguish.

    Only `learner` is trained and saved; its state dict contains neither the CLIP nor the features of the CLIP's text
    tower.

    Example:
        >>> net = PromptedClip(load_clip("ViT-B-16.pt"), PromptConfig(), {"cat": ["a photo of a cat."], "dog": []})
        >>> net(images).shape  # images: (N, 3, 224, 224), normalised
        torch.Size([N, 2])
    """

    def __init__(
        self,
        clip: FrozenClip,
        config: PromptConfig,
        class_descriptions: Mapping[str, Sequence[str]],
        learner: nn.Module | None = None,
    ) -> None:
        """Encode the descriptions with the frozen text tower.

        Args:
            clip: The frozen CLIP.
            config: Hyper-parameters.
            class_descriptions: Sentences per class in the order of the logits; a class without any gets a template.
            learner: Module that returns the trained `Prompts`; default: a new `PromptLearner`, drawn from torch's
                global generator.

        Raises:
            InputError: The prompts do not fit the towers, or a text is longer than the context.
        """
        super().__init__()
        if not class_descriptions:
            raise InputError("no class is given: a classifier needs at least one")
        self.clip = clip
        self.config = config
        self.class_descriptions = {
            name: sentences_or_template(name, texts) for name, texts in class_descriptions.items()
        }
        context, prefix = _context(clip, config)
        self.learner = learner or PromptLearner(config, clip.config, context)
        texts = [f"{prefix} {as_words(name)}." for name in self.class_descriptions]
        self.class_tokens: Tensor  # (C, context_length)
        self.frozen_text_features: Tensor  # (C, embed_dim)
        self.register_buffer("class_tokens", clip.tokenize(texts), persistent=False)
        self.register_buffer("frozen_text_features", frozen_classifier(clip, self.class_descriptions), persistent=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return tuple(self.class_descriptions)

    def with_classes(self, class_descriptions: Mapping[str, Sequence[str]]) -> PromptedClip:
        """Return a classifier of other classes that shares this net's CLIP and prompt learner."""
        return PromptedClip(self.clip, self.config, class_descriptions, self.learner)

    def forward(self, images: Tensor, text_features: Tensor | None = None) -> Tensor:
        """Return logits (N, C) of normalised images (N, 3, size, size).

        Pass the result of `text_features()` to compute the text features once for many batches.
        """
        return self.prompted_and_plain(images, text_features)[0]

    def prompted_and_plain(
        self, images: Tensor, text_features: Tensor | None = None, plain_text: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the logits (N, C) of `forward`, and those of the CLIP without prompts.

        `plain_text` (K, embed_dim) replaces the frozen text features of the classes in the latter, which are (N, K).
        """
        prompts = self.learner()
        if text_features is None:
            text_features = self._text(prompts).used
        image = self._image(images, prompts)
        return self.logits(image.used, text_features), self.logits(
            image.frozen, self.frozen_text_features if plain_text is None else plain_text
        )

    def loss(self, images: Tensor, labels: Tensor) -> Losses:
        """Return the losses of images (N, 3, size, size) with labels (N,).

        The classification loss is the cross-entropy. Each consistency loss is 1 minus the mean cosine between trained
        and frozen features.
        """
        prompts = self.learner()
        image, text = self._image(images, prompts), self._text(prompts)
        logits = self.logits(image.used, text.used)
        classification = F.cross_entropy(logits, labels)
        text_consistency, image_consistency = _distance(text), _distance(image)
        total = classification + self.config.consistency_weight * (text_consistency + image_consistency)
        return Losses(total, classification, text_consistency, image_consistency, logits)

    def image_features(self, images: Tensor) -> Tensor:
        """Return the image features that the logits are computed from: unit vectors (N, embed_dim)."""
        return self._image(images, self.learner()).used

    def text_features(self) -> Tensor:
        """Return the text features that the logits are computed from: unit vectors (C, embed_dim)."""
        return self._text(self.learner()).used

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Return logits (N, C): scaled cosines of unit vectors, images (N, embed_dim) and classes (C, embed_dim)."""
        # In float32 also under autocast, because the logit scale, 100, multiplies rounding errors.
        with torch.autocast(image_features.device.type, enabled=False):
            return self.clip.logit_scale * image_features @ text_features.T

    def _image(self, images: Tensor, prompts: Prompts) -> _Features:
        visual = self.clip.model.visual
        patches = embed_patches(visual, images)  # once for both towers
        prompted = encode_patches(visual, patches, prompts.vision)
        with torch.no_grad():
            frozen = encode_patches(visual, patches)
        return self._combined(prompted, frozen)

    def _text(self, prompts: Prompts) -> _Features:
        prompted = encode_text(self.clip.model, self.class_tokens, prompts.text)
        return self._combined(prompted, self.frozen_text_features)

    def _combined(self, prompted: Tensor, frozen: Tensor) -> _Features:
        prompted, frozen = _unit(prompted.float()), _unit(frozen.float())
        return _Features(_unit(prompted + frozen), frozen)


def _distance(features: _Features) -> Tensor:
    return 1 - F.cosine_similarity(features.used, features.frozen).mean()


def frozen_classifier(clip: FrozenClip, class_descriptions: Mapping[str, Sequence[str]]) -> Tensor:
    """Return the class vectors of a plain CLIP (C, embed_dim): the normalised mean of the sentences' unit vectors.

    Raises:
        InputError: A description is longer than the context.
    """
    means = []
    for name, sentences in class_descriptions.items():
        tokens = description_tokens(name, sentences, clip.config)  # (sentences, context_length)
        means.append(_unit(clip.encode_text(tokens.to(clip.logit_scale.device))).mean(dim=0))
    return _unit(torch.stack(means))


def sentence_vectors(
    class_descriptions: Mapping[str, Sequence[str]], encode: Callable[[Mapping[str, Sequence[str]]], Tensor]
) -> Tensor:
    """Return one class vector per sentence: (sentences, C, embed_dim), where `sentences` is a power of two.

    A class with fewer sentences has some of its vectors more than once. `encode` returns the vectors (C, embed_dim) of
    classes with one sentence each.
    """
    texts = {name: sentences_or_template(name, sentences) for name, sentences in class_descriptions.items()}
    most = max(len(sentences) for sentences in texts.values())
    count = 1 << (most - 1).bit_length()
    return torch.stack(
        [encode({name: (each[index % len(each)],) for name, each in texts.items()}) for index in range(count)]
    )


def _context(clip: FrozenClip, config: PromptConfig) -> tuple[Tensor | None, str]:
    """Return the initial text prompts (n, d_t) or None for noise, and the words in front of the class names."""
    if config.n_ctx > MAX_WORDS_N_CTX or not config.context_words.strip():
        return None, " ".join([_PLACEHOLDER] * config.n_ctx)
    tokens = clip.tokenize([config.context_words])[0]  # (context_length,)
    words = int(tokens.argmax()) - 1
    if words < config.n_ctx:
        raise InputError(
            f"context words '{config.context_words}' are {words} tokens, n_ctx is {config.n_ctx}: "
            "give more words, or none to start from noise"
        )
    embedded: Tensor = clip.model.token_embedding(tokens)[1 : 1 + config.n_ctx]
    return embedded, config.context_words


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features, dim=-1)
