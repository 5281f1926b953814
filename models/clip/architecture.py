"""Architecture of a CLIP with two transformers: read from a document, or derived from the weights' shapes.

The image tower of a small CLIP may start from a trained net, the trunk, which embeds the patches:

    images (N, 3, 48, 48) → trunk → feature map (N, 152, 6, 6) → 1x1 convolution → tokens (N, width, 6, 6)

The trunk is everything below EdgeCNN's average pool. It is always in eval mode: its BatchNorms use the statistics of
the training that it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.clip.options import Activation
from edgekit.models.model_loading import check_weights
from edgekit.models.nets.edgecnn import EdgeCNN
from edgekit.models.nets.registry import create_model

# Normalisation of R, G, B in OpenAI's CLIPs and in the CLIPs trained by open_clip.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
_HEAD_WIDTH = 64
_MAX_SIDE_PX = 2048
_MAX_MLP_RATIO, _MAX_LAYERS, _MAX_WIDTH = 64, 256, 1_000_000
_VISION_BLOCKS, _TEXT_BLOCKS = "visual.transformer.resblocks.", "transformer.resblocks."
# Nets with EdgeCNN's form, by their names in the registry.
TRUNKS = ("edgecnn", "edgecnn-wide", "edgecnn-g")
# Pixels per token: EdgeCNN halves height and width three times.
TRUNK_STRIDE_PX = 8
_LAST_LAYER = "classifier."


@dataclass(frozen=True)
class Tower:
    """One transformer: token width, layers, attention heads, and width of the MLPs as a multiple of the token width."""

    width: int
    layers: int
    heads: int
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        """Check the sizes, so that a damaged file cannot allocate a model of any size."""
        fits = min(self.width, self.layers, self.heads) >= 1 and self.width % self.heads == 0
        is_small = self.layers <= _MAX_LAYERS and self.width <= _MAX_WIDTH
        if not (fits and is_small and 0 < self.mlp_ratio <= _MAX_MLP_RATIO):
            raise InputError(
                f"a CLIP tower has width {self.width}, {self.layers} layers, {self.heads} heads and mlp_ratio "
                f"{self.mlp_ratio:g}: expected at least 1 each, at most {_MAX_LAYERS} layers and mlp_ratio "
                f"{_MAX_MLP_RATIO}, and a width that is a multiple of the heads"
            )


@dataclass(frozen=True)
class ClipConfig:
    """Architecture of a CLIP and the normalisation of its images: `(pixel / 255 - mean) / std` of R, G, B.

    `trunk` is the net that embeds the patches, such as "edgecnn" (see `TrunkPatches`); None: the ViT's own convolution.
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
        """Check sizes, normalisation and trunk, so that a damaged file cannot allocate a model of any size."""
        sizes = (self.patch_size_px, self.embed_dim, self.context_length, self.vocabulary)
        fits = 1 <= self.patch_size_px <= self.image_size_px <= _MAX_SIDE_PX
        if not fits or min(sizes) < 1 or max(sizes) > _MAX_WIDTH:
            raise InputError(
                f"a CLIP has images of {self.image_size_px} px, patches of {self.patch_size_px} px, embed_dim "
                f"{self.embed_dim}, context_length {self.context_length} and vocabulary {self.vocabulary}: expected "
                f"patches not larger than the image, at most {_MAX_SIDE_PX} px, and 1 to {_MAX_WIDTH} of the others"
            )
        values = (*self.image_mean, *self.image_std)
        has_three = len(self.image_mean) == 3 and len(self.image_std) == 3
        if not has_three or not all(map(math.isfinite, values)) or min(self.image_std) <= 0:
            raise InputError(f"a CLIP has image_mean and image_std {values}: expected six finite values, std above 0")
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


def config_from_open_clip(document: Mapping[str, Any], activation: Activation | None) -> ClipConfig:
    """Return the architecture of one of open_clip's model configurations.

    Raises:
        InputError: The configuration is not that of a CLIP with two plain transformers.
    """
    vision, text = document["vision_cfg"], document["text_cfg"]
    known_vision = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
    known_text = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
    unknown = [*(vision.keys() - known_vision), *(text.keys() - known_text)]
    # A ResNet has a list of layers, one number for each stage.
    if unknown or isinstance(vision["layers"], list) or document.get("custom_text"):
        reason = f"it has '{sorted(unknown)[0]}'" if unknown else "its towers are of another kind"
        raise InputError(f"the model is not a CLIP with two plain transformers ({reason}): choose one such as ViT-B-16")
    width = vision["width"]
    return ClipConfig(  # with the values of open_clip for missing keys
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
    """Return the shape of a tensor, which must exist and have so many dimensions."""
    if name not in state:
        raise InputError(f"the weights are not those of a CLIP with a ViT: tensor '{name}' is missing")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise InputError(f"the weights are not those of a CLIP with a ViT: tensor '{name}' has shape {list(shape)}")
    return shape


def _tower(state: Mapping[str, Tensor], prefix: str, width: int) -> Tower:
    """Return the architecture of the tower whose blocks have names with this prefix."""
    hidden, _ = _shape(state, f"{prefix}0.mlp.c_fc.weight", 2)
    if width % _HEAD_WIDTH:
        raise InputError(
            f"a CLIP tower's width is {width}, not a multiple of the usual head width {_HEAD_WIDTH}: give a file that "
            "states its architecture, as those saved by edgekit do"
        )
    # The numbers of the blocks: a name goes on with it after the prefix, as in "0.mlp.c_fc.weight".
    layers = {name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)}
    return Tower(width, len(layers), width // _HEAD_WIDTH, hidden / width)


@dataclass(frozen=True)
class TrunkWeights:
    """Weights of a trunk under EdgeCNN's names, its architecture, and the SHA-256 of the net they come from."""

    architecture: str
    state: Mapping[str, Tensor]
    sha256: str


class TrunkPatches(nn.Module):
    """Patch embedding: an EdgeCNN without its pooling and last layer, and a linear projection to the tower's width."""

    def __init__(self, architecture: str, width: int) -> None:
        """Create the module with random weights.

        Raises:
            InputError: The architecture is not one of `TRUNKS`.
        """
        super().__init__()
        require_trunk(architecture)
        trunk = create_model(architecture, num_classes=1)  # any number: the last layer is deleted
        assert isinstance(trunk, EdgeCNN)
        self.trunk = trunk.eval()  # it is not trained
        self.channels = trunk.classifier.in_features
        del self.trunk.classifier
        self.project = nn.Conv2d(self.channels, width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens (N, width, H/8, W/8) of images (N, 3, H, W) in 0..1, or of the trunk's feature maps."""
        # A training computes the feature maps once and passes them; they differ from images in the number of channels.
        maps = images if images.shape[1] == self.channels else self.feature_maps(images)
        tokens: Tensor = self.project(maps)
        return tokens

    def feature_maps(self, images: Tensor) -> Tensor:
        """Return the trunk's feature maps (N, channels, H/8, W/8) of images (N, 3, H, W) in 0..1."""
        return torch.relu(self.trunk.feature_map(images))

    def train(self, mode: bool = True) -> TrunkPatches:
        """Set the mode of the projection; the trunk stays in eval mode."""
        super().train(mode)
        self.trunk.eval()
        return self


def require_trunk(architecture: str) -> None:
    """Check that a net can be a trunk.

    Raises:
        InputError: It is not one of `TRUNKS`.
    """
    if architecture not in TRUNKS:
        raise InputError(f"trunk '{architecture}' is not an EdgeCNN: expected one of {', '.join(TRUNKS)}")


def read_trunk(path: Path) -> TrunkWeights:
    """Return the trunk of a checkpoint.

    Raises:
        InputError: The file is not a checkpoint, its net is not one of `TRUNKS`, or a tensor has another shape.
    """
    checkpoint = load_checkpoint(path)
    try:
        require_trunk(checkpoint.contract.architecture)
        check_weights(checkpoint)
    except InputError as error:
        raise InputError(f"trunk '{path}': {error}") from error
    state = {name: tensor for name, tensor in checkpoint.state.items() if not name.startswith(_LAST_LAYER)}
    return TrunkWeights(checkpoint.contract.architecture, state, sha256_of(path))
