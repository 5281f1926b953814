"""Architecture of a CLIP with two transformers: read from a document, or derived from the weights' shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.models.clip.options import Activation
from edgekit.models.clip.trunk import TRUNK_STRIDE_PX, TrunkPatches, require_trunk, trunk_channels

# Normalisation of R, G, B in OpenAI's CLIPs and in the CLIPs trained by open_clip.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
_HEAD_WIDTH = 64
_MAX_SIDE_PX = 2048
_MAX_MLP_RATIO = 64
# Integer of a trunk's BatchNorms.
_COUNTER = ".num_batches_tracked"
_VISION_BLOCKS, _TEXT_BLOCKS = "visual.transformer.resblocks.", "transformer.resblocks."


@dataclass(frozen=True)
class Tower:
    """One transformer: token width, layers, attention heads, and width of the MLPs as a multiple of the token width."""

    width: int
    layers: int
    heads: int
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.mlp_ratio <= _MAX_MLP_RATIO:
            raise InputError(
                f"mlp_ratio of a CLIP tower is {self.mlp_ratio:g}: expected more than 0 and at most {_MAX_MLP_RATIO}"
            )
        if min(self.width, self.layers, self.heads) < 1 or self.width % self.heads:
            raise InputError(
                f"a CLIP tower has width {self.width}, {self.layers} layers and {self.heads} heads: expected at least "
                "1 each, and a width that is a multiple of the heads"
            )


@dataclass(frozen=True)
class ClipConfig:
    """Architecture of a CLIP and the normalisation of its images: `(pixel / 255 - mean) / std` of R, G, B.

    `trunk` is the net that embeds the patches, such as "edgecnn" (see `trunk.TrunkPatches`); None: the ViT's own
    convolution.
    """

    image_size_px: int
    patch_size_px: int
    vision: Tower
    text: Tower
    embed_dim: int
    activation: Activation = "gelu"
    context_length: int = 77
    vocabulary: int = 49408
    image_mean: tuple[float, ...] = IMAGE_MEAN
    image_std: tuple[float, ...] = IMAGE_STD
    trunk: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.patch_size_px <= self.image_size_px <= _MAX_SIDE_PX:
            raise InputError(
                f"a CLIP has images of {self.image_size_px} px in patches of {self.patch_size_px} px: expected patches "
                f"of at least 1 px, not larger than the image, and images of at most {_MAX_SIDE_PX} px"
            )
        if min(self.embed_dim, self.context_length, self.vocabulary) < 1:
            raise InputError(
                f"a CLIP has embed_dim {self.embed_dim}, context_length {self.context_length} and vocabulary "
                f"{self.vocabulary}: expected at least 1 each"
            )
        finite = all(map(math.isfinite, (*self.image_mean, *self.image_std)))
        if not len(self.image_mean) == len(self.image_std) == 3 or min(self.image_std) <= 0 or not finite:
            raise InputError(
                f"a CLIP has image_mean {self.image_mean} and image_std {self.image_std}: expected three finite values "
                "each, std above 0"
            )
        if self.trunk is not None:
            require_trunk(self.trunk)
            if self.patch_size_px != TRUNK_STRIDE_PX:
                raise InputError(
                    f"a CLIP with trunk {self.trunk} has patches of {self.patch_size_px} px: expected {TRUNK_STRIDE_PX}"
                )


def build_model(config: ClipConfig) -> nn.Module:
    """Return open_clip's model of an architecture, with initial weights drawn from torch's global generator.

    With a trunk, `visual.conv1` is a `TrunkPatches`.
    """
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vision, text = config.vision, config.text
    model: Any = CLIP(
        config.embed_dim,
        CLIPVisionCfg(
            layers=vision.layers,
            width=vision.width,
            head_width=vision.width // vision.heads,
            mlp_ratio=vision.mlp_ratio,
            patch_size=config.patch_size_px,
            image_size=config.image_size_px,
        ),
        CLIPTextCfg(
            context_length=config.context_length,
            vocab_size=config.vocabulary,
            width=text.width,
            heads=text.heads,
            layers=text.layers,
            mlp_ratio=text.mlp_ratio,
        ),
        quick_gelu=config.activation == "quick-gelu",
    )
    if config.trunk is not None:
        model.visual.conv1 = TrunkPatches(config.trunk, vision.width)
    built: nn.Module = model
    return built


def config_from_weights(state: Mapping[str, Tensor], activation: Activation) -> ClipConfig:
    """Return the architecture of a state dict, from its tensors' shapes.

    Attention heads are assumed to have 64 channels, as in every published CLIP ViT.

    Raises:
        InputError: The tensors are not those of a CLIP with a plain ViT.
    """
    if "visual.layer1.0.conv1.weight" in state:
        raise InputError("the CLIP's image tower is a ResNet: prompts need a ViT")
    if any(name.startswith("vision_model.") for name in state):
        raise InputError("the weights have the layout of the transformers library: give OpenAI's or open_clip's file")
    _, _, patch_size_px, _ = _shape(state, "visual.conv1.weight", 4)
    positions, vision_width = _shape(state, "visual.positional_embedding", 2)
    context_length, text_width = _shape(state, "positional_embedding", 2)
    vocabulary, _ = _shape(state, "token_embedding.weight", 2)
    _, embed_dim = _shape(state, "text_projection", 2)
    grid = math.isqrt(max(positions - 1, 0))
    if grid * grid != positions - 1:
        raise InputError(f"the CLIP's image tower has {positions} positions: expected a square number plus one")
    return ClipConfig(
        image_size_px=grid * patch_size_px,
        patch_size_px=patch_size_px,
        vision=_tower(state, _VISION_BLOCKS, vision_width),
        text=_tower(state, _TEXT_BLOCKS, text_width),
        embed_dim=embed_dim,
        activation=activation,
        context_length=context_length,
        vocabulary=vocabulary,
    )


def require_shapes(config: ClipConfig, state: Mapping[str, Tensor]) -> None:
    """Check that weights have a given architecture, before a model of its size is allocated.

    Raises:
        InputError: A tensor is missing, has another shape or contains integers, or the number of layers differs.
    """
    vision, text = config.vision, config.text
    positions = (config.image_size_px // config.patch_size_px) ** 2 + 1
    patches: dict[str, tuple[int, ...]] = (
        {"visual.conv1.weight": (vision.width, 3, config.patch_size_px, config.patch_size_px)}
        if config.trunk is None
        else {"visual.conv1.project.weight": (vision.width, trunk_channels(config.trunk), 1, 1)}
    )
    shapes: dict[str, tuple[int, ...]] = {
        **patches,
        "visual.positional_embedding": (positions, vision.width),
        f"{_VISION_BLOCKS}0.mlp.c_fc.weight": (int(vision.width * vision.mlp_ratio), vision.width),
        "positional_embedding": (config.context_length, text.width),
        "token_embedding.weight": (config.vocabulary, text.width),
        "text_projection": (text.width, config.embed_dim),
        f"{_TEXT_BLOCKS}0.mlp.c_fc.weight": (int(text.width * text.mlp_ratio), text.width),
    }
    for name, expected in shapes.items():
        found = _shape(state, name, len(expected))
        if found != expected:
            raise InputError(
                f"the weights do not fit the architecture: tensor '{name}' has shape {list(found)}, "
                f"not {list(expected)}"
            )
    for prefix, tower, which in ((_VISION_BLOCKS, vision, "image"), (_TEXT_BLOCKS, text, "text")):
        count = len(_blocks(state, prefix))
        if count != tower.layers:
            raise InputError(
                f"the weights do not fit the architecture: the {which} tower has {count} layers, not {tower.layers}"
            )
    for name, tensor in state.items():
        if not tensor.is_floating_point() and not name.endswith(_COUNTER):
            raise InputError(
                f"tensor '{name}' has type {str(tensor.dtype).removeprefix('torch.')}: expected floating point"
            )


def config_from_open_clip(document: Mapping[str, Any], activation: Activation | None) -> ClipConfig:
    """Return the architecture of one of open_clip's model configurations.

    Raises:
        InputError: The configuration is not that of a CLIP with two plain transformers.
    """
    vision, text = document["vision_cfg"], document["text_cfg"]
    known_vision = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
    known_text = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
    unknown = [*(vision.keys() - known_vision), *(text.keys() - known_text)]
    if unknown or isinstance(vision["layers"], list) or document.get("custom_text"):
        reason = f"it has '{sorted(unknown)[0]}'" if unknown else "its towers are of another kind"
        raise InputError(f"the model is not a CLIP with two plain transformers ({reason}): choose one such as ViT-B-16")
    width = vision["width"]
    return ClipConfig(
        image_size_px=vision["image_size"],
        patch_size_px=vision["patch_size"],
        vision=Tower(
            width, vision["layers"], width // vision.get("head_width", _HEAD_WIDTH), vision.get("mlp_ratio", 4.0)
        ),
        text=Tower(text["width"], text["layers"], text["heads"], text.get("mlp_ratio", 4.0)),
        embed_dim=document["embed_dim"],
        activation=activation or ("quick-gelu" if document.get("quick_gelu") else "gelu"),
        context_length=text.get("context_length", 77),
        vocabulary=text.get("vocab_size", 49408),
    )


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise InputError(f"the weights are not those of a CLIP with a ViT: tensor '{name}' is missing")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise InputError(f"the weights are not those of a CLIP with a ViT: tensor '{name}' has shape {list(shape)}")
    return shape


def _tower(state: Mapping[str, Tensor], prefix: str, width: int) -> Tower:
    hidden, _ = _shape(state, f"{prefix}0.mlp.c_fc.weight", 2)
    if width % _HEAD_WIDTH:
        raise InputError(
            f"a CLIP tower's width is {width}, not a multiple of the usual head width {_HEAD_WIDTH}: give a file that "
            "states its architecture, as those saved by edgekit do"
        )
    return Tower(width, len(_blocks(state, prefix)), width // _HEAD_WIDTH, hidden / width)


def _blocks(state: Mapping[str, Tensor], prefix: str) -> set[str]:
    return {name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)}
