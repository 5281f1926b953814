"""CLIP with learned prompts as a classifier (arXiv 2507.14976): features, logits, loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.errors import InputError
from edgekit.models.clip.config import MAX_WORDS_N_CTX, PromptConfig
from edgekit.models.clip.descriptions import as_words, sentences_or_template
from edgekit.models.clip.frozen import FrozenClip, require_room
from edgekit.models.clip.prompt_insertion import encode_image, encode_text
from edgekit.models.clip.prompts import PromptLearner, Prompts

_PLACEHOLDER = "X"


@dataclass(frozen=True)
class Losses:
    """One batch: total = classification + λ (text_consistency + image_consistency); `logits` (N, classes)."""

    total: Tensor
    classification: Tensor
    text_consistency: Tensor
    image_consistency: Tensor
    logits: Tensor


@dataclass(frozen=True)
class _Features:
    """Of unit length, (N, embed_dim) each; `used` is what logits are made of."""

    used: Tensor
    prompted: Tensor
    frozen: Tensor


class PromptedClip(nn.Module):
    """A frozen CLIP, a prompt learner and the classes to tell apart.

    Only `learner` is trained, and only it needs saving: the CLIP and what was computed from its text tower are left out
    of `learner.state_dict()`.
    """

    def __init__(
        self,
        clip: FrozenClip,
        config: PromptConfig,
        class_descriptions: Mapping[str, Sequence[str]],
        learner: PromptLearner | None = None,
    ) -> None:
        """Encode the classes' descriptions with the frozen text tower.

        Args:
            clip: The towers.
            config: Values of the method.
            class_descriptions: Sentences for each class, in the order of the logits; a class with none gets a template.
            learner: Trained prompts; default: new ones, drawn from torch's global generator.

        Raises:
            InputError: The prompts do not fit the towers, or a text does not fit the context.
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
        self.class_tokens: Tensor
        self.frozen_text_features: Tensor
        self.register_buffer("class_tokens", clip.tokenize(texts), persistent=False)
        self.register_buffer("frozen_text_features", frozen_classifier(clip, self.class_descriptions), persistent=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the logits."""
        return tuple(self.class_descriptions)

    def with_classes(self, class_descriptions: Mapping[str, Sequence[str]]) -> PromptedClip:
        """Return a classifier of other classes that shares this one's CLIP and learner."""
        return PromptedClip(self.clip, self.config, class_descriptions, self.learner)

    def forward(self, images: Tensor, text_features: Tensor | None = None) -> Tensor:
        """Return logits (N, classes) of normalised images (N, 3, size, size).

        `text_features` are those of an earlier `text_features()`: they are the same for all images, and evaluating
        many batches need not compute them each time.
        """
        return self.with_and_without(images, text_features)[0]

    def with_and_without(self, images: Tensor, text_features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logits (N, classes) with prompts, as `forward` does, and those of the plain CLIP by the way."""
        prompts = self.learner()
        if text_features is None:
            text_features = self._text(prompts).used
        image = self._image(images, prompts)
        return self.logits(image.used, text_features), self.logits(image.frozen, self.frozen_text_features)

    def loss(self, images: Tensor, labels: Tensor) -> Losses:
        """Return the losses of a batch, labels (N,); consistency is 1 - mean cosine with the frozen features."""
        prompts = self.learner()
        image, text = self._image(images, prompts), self._text(prompts)
        logits = self.logits(image.used, text.used)
        classification = F.cross_entropy(logits, labels)
        text_consistency, image_consistency = self._distance(text), self._distance(image)
        total = classification + self.config.consistency_weight * (text_consistency + image_consistency)
        return Losses(total, classification, text_consistency, image_consistency, logits)

    def image_features(self, images: Tensor) -> Tensor:
        """Return unit vectors (N, embed_dim), of the ensemble if there is one."""
        return self._image(images, self.learner()).used

    def text_features(self) -> Tensor:
        """Return unit vectors (classes, embed_dim), of the ensemble if there is one."""
        return self._text(self.learner()).used

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Return scaled cosines (N, classes) of unit vectors."""
        # float32 also under autocast: the scale, 100, multiplies what is rounded away.
        with torch.autocast(image_features.device.type, enabled=False):
            return self.clip.logit_scale * image_features @ text_features.T

    def _image(self, images: Tensor, prompts: Prompts) -> _Features:
        prompted = encode_image(self.clip.model.visual, images, prompts.vision)
        return self._combined(prompted, self.clip.encode_image(images))

    def _text(self, prompts: Prompts) -> _Features:
        prompted = encode_text(self.clip.model, self.class_tokens, prompts.text)
        return self._combined(prompted, self.frozen_text_features)

    def _combined(self, prompted: Tensor, frozen: Tensor) -> _Features:
        prompted, frozen = _unit(prompted.float()), _unit(frozen.float())
        used = _unit(prompted + frozen) if self.config.ensemble else prompted
        return _Features(used, prompted, frozen)

    def _distance(self, features: _Features) -> Tensor:
        compared = features.used if self.config.consistency_on == "ensembled" else features.prompted
        return 1 - F.cosine_similarity(compared, features.frozen).mean()


@contextmanager
def prompts_kept(net: PromptedClip) -> Iterator[None]:
    """Put the learned prompts back afterwards: with the released code's behaviour each pass changes them."""
    before = {name: tensor.clone() for name, tensor in net.learner.state_dict().items()}
    try:
        yield
    finally:
        net.learner.load_state_dict(before)


def frozen_classifier(clip: FrozenClip, class_descriptions: Mapping[str, Sequence[str]]) -> Tensor:
    """Return (classes, embed_dim): the mean of each class's unit vectors, made a unit vector again.

    Raises:
        InputError: A description does not fit the context.
    """
    means = []
    for name, sentences in class_descriptions.items():
        tokens = require_room(name, sentences, clip.config).to(clip.logit_scale.device)
        means.append(_unit(clip.encode_text(tokens)).mean(dim=0))
    return _unit(torch.stack(means))


def _context(clip: FrozenClip, config: PromptConfig) -> tuple[Tensor | None, str]:
    """Return what the first text prompts start from and the words at their places in the classes' captions."""
    if config.n_ctx > MAX_WORDS_N_CTX or not config.context_words.strip():
        return None, " ".join([_PLACEHOLDER] * config.n_ctx)
    tokens = clip.tokenize([config.context_words])[0]
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
