"""Nets with weights: build a net from a checkpoint, merge its classes, import the EdgeCNN authors' checkpoints.

net = build_net(load_checkpoint(Path("runs/mine/best.safetensors")))  # (N, 3, 44, 44) → logits (N, classes)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekit import __version__
from edgekit.contract import Contract, CropSpec, Fit, InputSpec, LabelMap, OutputSpec, Provenance
from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.models.checkpoint import Checkpoint, read_authors_checkpoint
from edgekit.models.data.fer2013 import SIDE_PX
from edgekit.models.nets.edgecnn import INPUT_SIZE_PX
from edgekit.models.nets.registry import class_dimensions, create_model, takes_any_size
from edgekit.preprocess import CROP_MARGIN

MAX_IMAGE_SIZE_PX = 224
# Logits are clamped to at most this far below the image's largest one. The probabilities stay the same, because in
# float32 1 + exp(-80) equals 1.
_MAX_GAP = 80.0


@dataclass(frozen=True)
class InputValues:
    """The normalisation of a net's input, in R, G, B: `(pixel * scale - mean) / std`."""

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)


def build_net(checkpoint: Checkpoint) -> nn.Module:
    """Return the checkpoint's net with its weights, in eval mode.

    Raises:
        InputError: The architecture is unknown, or a tensor is missing, unexpected, or of another shape or type.
    """
    check_weights(checkpoint)
    net = create_model(checkpoint.contract.architecture, len(checkpoint.contract.labels))
    net.load_state_dict(checkpoint.state)
    return net.eval()


def check_weights(checkpoint: Checkpoint) -> None:
    """Check that a checkpoint's tensors have the names, shapes and types of its architecture, without allocating it.

    Raises:
        InputError: The architecture is unknown, or a tensor is missing, unexpected, or of another shape or type.
    """
    architecture = checkpoint.contract.architecture
    with torch.device("meta"):
        net = create_model(architecture, len(checkpoint.contract.labels))
    check_tensors(net.state_dict(), checkpoint.state, architecture)


def load_weights(net: nn.Module, state: Mapping[str, Tensor], architecture: str) -> None:
    """Load a state dict into `net`; `architecture` names the net in errors.

    Raises:
        InputError: A tensor is missing, unexpected or of another shape.
    """
    check_tensors(net.state_dict(), state, architecture)
    net.load_state_dict(state)


def contract_for(
    architecture: str,
    labels: tuple[str, ...],
    dataset_name: str,
    gray: bool,
    fit: Fit = "square",
    image_size_px: int = SIDE_PX,
    values: InputValues | None = None,
) -> Contract:
    """Return the contract of a net trained on square RGB images of `image_size_px`.

    The net's input is a centre crop, 44 of 48 pixels wide; other sizes are cropped in proportion, to a multiple of 4.

    `gray` and `fit` are how the training images were read. `values` is the normalisation; None: pixels 0..1.

    Raises:
        InputError: The architecture is unknown or takes images of 48 pixels only, or the size is not 48 to 224.
    """
    if not SIDE_PX <= image_size_px <= MAX_IMAGE_SIZE_PX:
        raise InputError(f"image size {image_size_px}: expected {SIDE_PX} to {MAX_IMAGE_SIZE_PX} pixels")
    if image_size_px != SIDE_PX and not takes_any_size(architecture):
        raise InputError(f"{architecture} takes images of {SIDE_PX} pixels only: leave --image-size out")
    with torch.device("meta"):  # without memory for its weights
        create_model(architecture, len(labels))  # raises if the net is unknown
    values = values or InputValues()
    input_px = image_size_px * INPUT_SIZE_PX // SIDE_PX // 4 * 4  # rounded down to a multiple of 4
    size_hw = (input_px, input_px)
    return Contract(
        architecture=architecture,
        labels=labels,
        input=InputSpec("input", size_hw, "rgb", values.scale, values.mean, values.std),
        crop=CropSpec(CROP_MARGIN, gray, resize_hw=(image_size_px, image_size_px), center_crop_hw=size_hw, fit=fit),
        output=OutputSpec("logits"),
        provenance=Provenance(dataset=dataset_name, edgekit_version=__version__),
    )


def require_net(architecture: str, image_size_px: int = SIDE_PX) -> None:
    """Check that a net exists and can be trained on images of this size.

    Raises:
        InputError: As for `contract_for`.
    """
    # Labels, data set and colours do not matter for the checks.
    contract_for(architecture, labels=("any",), dataset_name="any", gray=True, image_size_px=image_size_px)


def build_merged_net(checkpoint: Checkpoint, labels: LabelMap) -> tuple[nn.Module, Contract]:
    """Return a net that classifies into merged labels, and its contract.

    The contract has neither the measured accuracies nor the threshold `uncertain_below`, which hold for the old labels.

    Raises:
        InputError: The architecture is unknown, or the weights do not fit it.
    """
    kept = _with_labels(checkpoint, labels.old)
    net, contract = merge_net(build_net(kept), kept.contract, labels)
    earlier_map = checkpoint.contract.label_map
    if earlier_map is not None:  # the checkpoint's labels are merged themselves: state what they stand for
        contract = replace(contract, label_map=labels.after(earlier_map))
    return net, contract


def merge_net(net: nn.Module, contract: Contract, labels: LabelMap) -> tuple[nn.Module, Contract]:
    """Return a net with merged labels, and its contract.

    `net` and `contract` have only the classes `labels.old`, in that order; the rest is as in `build_merged_net`.
    """
    sizes = [len(group) for group in labels.members]
    merged = MergedClasses(net, sizes).eval() if max(sizes) > 1 else net  # else labels are only renamed or removed
    return merged, with_other_labels(contract, labels.labels, labels)


def with_other_labels(contract: Contract, labels: tuple[str, ...], label_map: LabelMap | None) -> Contract:
    """Return a contract with other labels, without what was measured for the old ones: accuracies and threshold."""
    provenance = replace(contract.provenance, accuracy=())
    return replace(contract, labels=labels, label_map=label_map, uncertain_below=0.0, provenance=provenance)


def import_authors_checkpoint(path: Path, labels: tuple[str, ...], dataset_name: str, gray: bool) -> Checkpoint:
    """Convert a checkpoint of the EdgeCNN authors' released code (usually `*.t7`) to one of edgekit.

    Args:
        path: The file.
        labels: Class names in the order of the net's outputs.
        dataset_name: Name of the data set that the net was trained on.
        gray: Whether the training images were gray (FER-2013) or colour (RAF-DB).

    Raises:
        InputError: The file is damaged, contains code, belongs to another net, or has another number of classes.
    """
    architecture, state = read_authors_checkpoint(path)
    classes = len(state["classifier.weight"])
    if classes != len(labels):
        raise InputError(f"'{path}' has {classes} classes, but {len(labels)} labels were given: give one per class")
    checkpoint = Checkpoint(
        contract_for(architecture, labels, dataset_name, gray), state, {"imported_from_sha256": sha256_of(path)}
    )
    check_weights(checkpoint)
    return checkpoint


def _with_labels(checkpoint: Checkpoint, labels: Sequence[str]) -> Checkpoint:
    """Return the checkpoint with only the given labels, in that order, and only their rows of the last layer."""
    check_weights(checkpoint)
    contract = checkpoint.contract
    kept = torch.tensor([contract.labels.index(name) for name in labels])
    state = dict(checkpoint.state)
    for name, dimension in class_dimensions(contract.architecture).items():
        state[name] = state[name].index_select(dimension, kept)
    # The map was for the labels before; the caller states the new one.
    return replace(checkpoint, contract=replace(contract, labels=tuple(labels), label_map=None), state=state)


def check_tensors(own: Mapping[str, Tensor], state: Mapping[str, Tensor], architecture: str) -> None:
    """Check that the state dict `state` has the names, shapes and types of the net's, `own`, which may be without data.

    Raises:
        InputError: A tensor is missing, unexpected, or of another shape or type; the message names `architecture`.
    """
    for name in sorted(own.keys() | state.keys()):
        if name not in state:
            raise InputError(f"the weights do not fit {architecture}: tensor '{name}' is missing")
        if name not in own:
            raise InputError(f"the weights do not fit {architecture}: tensor '{name}' is unexpected")
        if own[name].shape != state[name].shape:
            raise InputError(
                f"the weights do not fit {architecture}: tensor '{name}' has shape {list(state[name].shape)}, "
                f"expected {list(own[name].shape)}"
            )
        # Floating-point types of another size, such as float16, are converted when they are loaded.
        if own[name].is_floating_point() and not state[name].is_floating_point():
            kinds = [str(each[name].dtype).removeprefix("torch.") for each in (state, own)]
            raise InputError(
                f"the weights do not fit {architecture}: tensor '{name}' has {kinds[0]} values, expected {kinds[1]}"
            )


class MergedClasses(nn.Module):
    """Net with merged classes: the logit of a new class is log Σ exp of its members' logits in the old net.

    The softmax of the new logits is exactly the sum of the members' probabilities, because the new logits differ from
    their logarithms by one constant per image. The module contains no multiplication, so quantisation leaves it in
    float32, and ncnn supports each of its operations.
    """

    def __init__(self, net: nn.Module, sizes: Sequence[int]) -> None:
        """Wrap `net`, whose classes are ordered by new class; `sizes` has the number of members of each new class."""
        super().__init__()
        self.net = net
        self._sizes = list(sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, new classes)."""
        logits: Tensor = self.net(images)  # (N, old classes)
        # ncnn's logsumexp does not subtract the maximum, so large logits would overflow. The probabilities are the same
        # for logits minus a number that is equal for all classes of an image. The clamp keeps the exponentials above 0:
        # the logarithm of 0 is -inf.
        shifted = (logits - _row_maximum(logits)).clamp_min(-_MAX_GAP)
        parts = torch.split(shifted, self._sizes, dim=1)  # (N, members) for each new class
        merged = [part if part.shape[1] == 1 else part.logsumexp(dim=1, keepdim=True) for part in parts]
        return torch.cat(merged, dim=1)


def _row_maximum(values: Tensor) -> Tensor:
    """Return each row's maximum, (N, 1), by comparing halves: pnnx does not convert a maximum reduction."""
    while (count := values.shape[1]) > 1:
        half = count // 2
        is_odd = count % 2 == 1  # the last column is left over
        parts = torch.split(values, [half, half, 1] if is_odd else [half, half], dim=1)
        larger = torch.maximum(parts[0], parts[1])
        values = torch.cat([larger, parts[2]], dim=1) if is_odd else larger
    return values
