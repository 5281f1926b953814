"""HiCroPL (arXiv 2507.14976, section 3): prompts of every layer, knowledge proxies and mappers, and the prompted CLIP.

- `KnowledgeProxy`: the paper's layer-specific knowledge proxy (LKP, figure 2b); it condenses the prompts of one layer
  to one token p_l.
- `Mapper`: the paper's hierarchical knowledge mapper M; the prompts of one modality attend to the other modality's
  proxies of all layers of a group, which fuses knowledge of several scales.
- `PromptLearner`: both directions of the flow. With text prompts T_l, vision prompts V_l and cross layer k:

      [V_1 … V_k]   ← M_tv([V_1 … V_k],   [p_1 … p_k])      with p_l = LKP(T_l)
      [T_k+1 … T_D] ← M_vt([T_k+1 … T_D], [p_k+1 … p_D])    with p_l = LKP(V_l)

- `PromptedClip`: a frozen CLIP with these prompts as a classifier: features, logits and loss.

Shapes: D layers with prompts, n prompts per layer, d_t and d_v the widths of text and image tower, d one of them, G
layers in a group (k or D - k); N images, C classes, embed_dim the length of the features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.errors import InputError
from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.descriptions import as_words, sentences_or_template
from edgekit.models.clip.load import FrozenClip, description_tokens
from edgekit.models.clip.prompt_insertion import embed_patches, encode_patches, encode_text

_PROMPT_STD = 0.02
# Heads of every attention in proxies and mappers; the widths of both towers must be multiples of it.
HEADS = 8
# Contexts with more tokens are initialised with noise, because the context words do not fill them.
MAX_WORDS_N_CTX = 4
_PLACEHOLDER = "X"


@dataclass(frozen=True)
class Prompts:
    """Inputs of the towers: text prompts (D, n, d_t) and vision prompts (D, n, d_v)."""

    text: Tensor
    vision: Tensor


class PromptLearner(nn.Module):
    """All trained parameters: text prompts (D, n, d_t), vision prompts (D, n, d_v), proxies and mappers."""

    def __init__(self, config: PromptConfig, clip: ClipConfig, context: Tensor | None = None) -> None:
        """Create the learner; initial values are drawn from torch's global generator.

        Args:
            config: Hyper-parameters.
            clip: Architecture of the CLIP.
            context: Initial text prompts of the first layer (n, d_t), embedded words; default: noise.

        Raises:
            InputError: The prompts do not fit the CLIP.
        """
        super().__init__()
        require_fit(config, clip)
        self.config = config
        depth, n_ctx = config.depth, config.n_ctx
        text_width, vision_width = clip.text.width, clip.vision.width
        self.text_prompts = nn.Parameter(torch.randn(depth, n_ctx, text_width) * _PROMPT_STD)
        self.vision_prompts = nn.Parameter(torch.randn(depth, n_ctx, vision_width) * _PROMPT_STD)
        if context is not None:
            with torch.no_grad():
                self.text_prompts[0] = context
        # In layers 1 to k text prompts influence vision prompts, in the others vision prompts influence text prompts.
        k = config.cross_layer
        self.text_proxies = nn.ModuleList(KnowledgeProxy(text_width) for _ in range(k))
        self.vision_proxies = nn.ModuleList(KnowledgeProxy(vision_width) for _ in range(depth - k))
        self.text_to_vision = Mapper(vision_width, text_width)
        self.vision_to_text = Mapper(text_width, vision_width) if k < depth else None

    def forward(self) -> Prompts:
        """Return the prompts of all layers; gradients flow through them to mappers and proxies.

        Text prompts influence the vision prompts of layers 1 to k. Vision prompts influence the text prompts of layers
        k + 1 to D.
        """
        text, vision, k = self.text_prompts, self.vision_prompts, self.config.cross_layer  # (D, n, d_t), (D, n, d_v)
        mapped_vision = self.text_to_vision(vision[:k], _proxies_of(text[:k], self.text_proxies))  # (k, n, d_v)
        all_vision = torch.cat([mapped_vision, vision[k:]])
        if self.vision_to_text is None:  # k = D
            return Prompts(text, all_vision)
        mapped_text = self.vision_to_text(text[k:], _proxies_of(vision[k:], self.vision_proxies))  # (D - k, n, d_t)
        return Prompts(torch.cat([text[:k], mapped_text]), all_vision)


class KnowledgeProxy(nn.Module):
    """Layer-specific knowledge proxy: p = LN₂(q + MHA(LN₁ q, LN₁ X, LN₁ X)) of a layer's prompts X, with learned q."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, width))
        self.attn = nn.MultiheadAttention(width, HEADS)
        self.ln_1 = nn.LayerNorm(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, prompts: Tensor) -> Tensor:
        """Return the proxy (1, d) of prompts (n, d)."""
        keys = self.ln_1(prompts)
        attended, _ = self.attn(self.ln_1(self.query), keys, keys, need_weights=False)  # (1, d)
        proxy: Tensor = self.ln_2(self.query + attended)
        return proxy


class Mapper(nn.Module):
    """Hierarchical knowledge mapper: prompts Q (G, n, d) of one tower attend to the proxies P (G, d') of the other.

    q = W_q Q,  h = q + MHA(LN₁ q, LN₁ W_k P, LN₁ W_v P),  out = h + FFN(LN₂ h)

    The three LN₁ share their parameters. The FFN has 4 d hidden units and QuickGELU.
    """

    def __init__(self, width: int, proxy_width: int) -> None:
        """Create the mapper with random weights; `width` is d, `proxy_width` is d'."""
        super().__init__()
        self.attn = nn.MultiheadAttention(width, HEADS)
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(proxy_width, width)
        self.linear_v = nn.Linear(proxy_width, width)
        self.ln_1 = nn.LayerNorm(width)
        self.ffn = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, prompts: Tensor, proxies: Tensor) -> Tensor:
        """Return the mapped prompts (G, n, d) for prompts (G, n, d) of one tower and proxies (G, d') of the other."""
        q = self.linear_q(prompts.flatten(0, 1))  # (G, n, d) → (G * n, d)
        keys, values = self.ln_1(self.linear_k(proxies)), self.ln_1(self.linear_v(proxies))  # (G, d) each
        attended, _ = self.attn(self.ln_1(q), keys, values, need_weights=False)  # (G * n, d)
        h = q + attended
        hidden = self.ffn["c_fc"](self.ln_2(h))  # (G * n, 4d)
        out: Tensor = h + self.ffn["c_proj"](hidden * torch.sigmoid(1.702 * hidden))  # QuickGELU
        return out.view_as(prompts)  # (G * n, d) → (G, n, d)


def _proxies_of(prompts: Tensor, modules: nn.ModuleList) -> Tensor:
    """Return the proxies (G, d) of prompts (G, n, d), each layer's from its own module."""
    return torch.cat([module(layer) for module, layer in zip(modules, prompts, strict=True)])


@dataclass(frozen=True)
class PromptConfig:
    """Hyper-parameters of HiCroPL; the defaults are the paper's for few-shot and base-to-novel.

    Attributes:
        n_ctx: n, prompt tokens per layer, in each tower.
        depth: D, number of layers with prompts, counted from the input.
        cross_layer: k: knowledge flows from text to vision in layers 1 to k, from vision to text in layers k + 1 to D.
        consistency_weight: λ, weight of the distance between the features that logits are computed from ("used") and
            the frozen features.
        context_words: Initial text prompts of the first layer if n is at most 4; words beyond n stay in front of the
            class name and are not trained. No training option sets this field.
    """

    n_ctx: int = 16
    depth: int = 12
    cross_layer: int = 6
    consistency_weight: float = 12.0
    context_words: str = "a photo of a"

    def __post_init__(self) -> None:
        if self.n_ctx < 1 or not 1 <= self.cross_layer <= self.depth:
            raise InputError(
                f"prompts have n_ctx {self.n_ctx}, depth {self.depth} and cross_layer {self.cross_layer}: expected at "
                "least 1 each, and cross_layer at most depth"
            )


PRESETS: Mapping[str, PromptConfig] = {
    "few-shot": PromptConfig(),
    "cross-dataset": PromptConfig(n_ctx=2, depth=6, cross_layer=5),
}


def shortened(config: PromptConfig, clip: ClipConfig) -> PromptConfig:
    """Return `config`; if the CLIP has fewer layers than its depth, depth and cross_layer are scaled down to them."""
    depth = min(config.depth, clip.vision.layers, clip.text.layers)
    cross_layer = min(max(round(config.cross_layer * depth / config.depth), 1), depth)
    return replace(config, depth=depth, cross_layer=cross_layer)


def require_fit(config: PromptConfig, clip: ClipConfig) -> None:
    """Check that prompts of this configuration can be inserted into a CLIP.

    Raises:
        InputError: The CLIP has too few layers, too short a context, or a width that is not a multiple of the number of
            attention heads.
    """
    for name, tower in (("image", clip.vision), ("text", clip.text)):
        if config.depth > tower.layers:
            raise InputError(f"depth is {config.depth}, but the CLIP's {name} tower has {tower.layers} layers")
        if tower.width % HEADS:
            raise InputError(f"the CLIP's {name} tower has width {tower.width}: mappers need a multiple of {HEADS}")
    # The context also contains the start token, the end token and at least one token of a class name.
    room = clip.context_length - 3
    if config.n_ctx > room:
        raise InputError(f"n_ctx is {config.n_ctx}, but the CLIP's context has room for {room}")


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
    """Unit vectors (N or C, embed_dim): the frozen features, and `used`, the mean of prompted and frozen ones.

    Logits are computed from the used features.
    """

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
        # Not saved with the prompts: both follow from the CLIP and the descriptions.
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

    def prompted_and_plain(self, images: Tensor, text_features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the logits (N, C) of `forward`, and those of the CLIP without prompts.

        `text_features` is as for `forward`.
        """
        prompts = self.learner()
        if text_features is None:
            text_features = self._text(prompts).used
        image = self._image(images, prompts)
        return self.logits(image.used, text_features), self.logits(image.frozen, self.frozen_text_features)

    def loss(self, images: Tensor, labels: Tensor) -> Losses:
        """Return the losses of images (N, 3, size, size) with labels (N,).

        The classification loss is the cross-entropy. Each consistency loss is 1 minus the mean cosine between used and
        frozen features, see `_Features`.
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
        """Return the features of images (N, 3, size, size)."""
        visual = self.clip.model.visual
        patches = embed_patches(visual, images)  # once, for the pass with prompts and the one without
        prompted = encode_patches(visual, patches, prompts.vision)
        with torch.no_grad():
            frozen = encode_patches(visual, patches)
        return self._combined(prompted, frozen)

    def _text(self, prompts: Prompts) -> _Features:
        """Return the features of the classes."""
        prompted = encode_text(self.clip.model, self.class_tokens, prompts.text)
        return self._combined(prompted, self.frozen_text_features)

    def _combined(self, prompted: Tensor, frozen: Tensor) -> _Features:
        """Return the features (N or C, embed_dim) of the prompted and the frozen tower, normalised and averaged."""
        prompted, frozen = _unit(prompted.float()), _unit(frozen.float())
        return _Features(_unit(prompted + frozen), frozen)


def _distance(features: _Features) -> Tensor:
    """Return the consistency loss: 1 minus the mean cosine between used and frozen features."""
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


def _context(clip: FrozenClip, config: PromptConfig) -> tuple[Tensor | None, str]:
    """Return the initial text prompts (n, d_t) or None for noise, and the words in front of the class names.

    The prompts replace the first n = `n_ctx` tokens of the context words. Prompts start from noise if there are no
    context words, or if n > `MAX_WORDS_N_CTX`; the words are then n placeholders. A smaller n that is larger than the
    number of the context words' tokens is an error.
    """
    if config.n_ctx > MAX_WORDS_N_CTX or not config.context_words.strip():
        return None, " ".join([_PLACEHOLDER] * config.n_ctx)
    tokens = clip.tokenize([config.context_words])[0]  # (context_length,): start token, words, end token, zeros
    word_tokens = int(tokens.argmax()) - 1  # the end token has the highest number
    if word_tokens < config.n_ctx:
        raise InputError(
            f"context words '{config.context_words}' are {word_tokens} tokens, n_ctx is {config.n_ctx}: "
            "give more words, or none to start from noise"
        )
    embedded: Tensor = clip.model.token_embedding(tokens)[1 : 1 + config.n_ctx]  # from after the start token
    return embedded, config.context_words


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features, dim=-1)
