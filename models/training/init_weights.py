"""Weights that a training starts from instead of random ones (`--init`).

They come from a checkpoint, from EfficientNet-Lite0's package, from timm's downloads, or from a file of a state dict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit.contract import METADATA_KEY, Contract
from edgekit.errors import InputError
from edgekit.files import require_file, sha256_of
from edgekit.model_store import CHECKPOINT_SUFFIX, DEVICE_SUFFIXES, resolve_model
from edgekit.models.checkpoint import Checkpoint, load_checkpoint
from edgekit.models.model_loading import InputValues, check_weights
from edgekit.models.nets.embedding_net import NET_PREFIX
from edgekit.models.nets.external_nets import (
    EFFICIENTNET_LITE0,
    LITE0_MEAN,
    LITE0_SCALE,
    LITE0_STD,
    TIMM_PREFIX,
    TORCHVISION_PREFIX,
    imagenet_weights,
    timm_input,
    timm_weights,
)
from edgekit.models.nets.registry import class_dimensions, create_model, plain_name
from edgekit.models.tensor_files import check_values, is_dense, load_tensors, read_header, read_tensors, weights_digest
from edgekit.models.training.options import NetOptions

# The value of `--init` for the weights that come with a net.
PRETRAINED = "pretrained"
# Keys under which training programs store a state dict, the averaged weights first.
_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class InitialWeights:
    """Weights that a net starts from; tensors that are in neither `state` nor `rows` start at random.

    Attributes:
        state: Tensors that are taken over as they are.
        sha256: SHA-256 of their file.
        rows: Tensors of a last layer for other classes, of which only the rows of common classes are taken over.
        dimensions: For each tensor in `rows`, the dimension whose index is the class.
        known: Common classes, as pairs: number in the new net, number in `rows`.
        new_classes: Classes of the new net whose rows start at random.
    """

    state: Mapping[str, Tensor]
    sha256: str
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    dimensions: Mapping[str, int] = field(default_factory=dict)
    known: tuple[tuple[int, int], ...] = ()
    new_classes: tuple[str, ...] = ()

    def merged_into(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state dict `own` of a new net with these weights in place of its own."""
        merged = {**own, **self.state}
        for name, old_tensor in self.rows.items():
            dimension = self.dimensions[name]
            new_tensor = own[name].clone()  # the rows of new classes keep the random values
            for new_class, old_class in self.known:
                new_tensor.select(dimension, new_class).copy_(old_tensor.select(dimension, old_class))
            merged[name] = new_tensor
        return merged


def read_initial_weights(path: Path, contract: Contract, notify: Callable[[str], None]) -> InitialWeights:
    """Return the tensors of a checkpoint that fit the net described by `contract`, and report what is left out.

    With equal labels and architectures, these are all tensors. Between nets without an embedding space, the last layer
    keeps the rows of the classes that both nets have. In all other cases the last layer is left out.

    Raises:
        InputError: The file is not a checkpoint, or is one of another net.
    """
    checkpoint = load_checkpoint(path)
    old, new = checkpoint.contract.architecture, contract.architecture
    if plain_name(old) != plain_name(new):
        raise InputError(f"init '{path}' is a checkpoint of {old}, but the net to train is {new}")
    try:
        check_weights(checkpoint)
    except InputError as error:
        raise InputError(f"init '{path}': {error}") from error
    if replace(checkpoint.contract.input, name="") != replace(contract.input, name=""):  # more than the name differs
        notify(f"init '{path}' was trained on another input (size, colour order or scale) than this training uses")
    old_labels, new_labels = checkpoint.contract.labels, contract.labels
    if old == new and old_labels == new_labels:
        return InitialWeights(checkpoint.state, sha256_of(path))
    plain = plain_name(new)
    state = _without_last_layer(checkpoint, contract)
    # The classes that both nets have: (index in the new net, index in the old one).
    known = [(index, old_labels.index(name)) for index, name in enumerate(new_labels) if name in old_labels]
    either_has_space = old != plain or new != plain  # a net in an embedding space is named NAME@WIDTH
    if known and not either_has_space:
        dimensions = class_dimensions(plain)
        rows = {name: checkpoint.state[name] for name in dimensions}
        added = tuple(name for name in new_labels if name not in old_labels)
        if added:
            notify(f"init '{path}': the last layer starts at random for the classes {', '.join(added)}")
        return InitialWeights(state, sha256_of(path), rows, dimensions, known=tuple(known), new_classes=added)
    notify(f"init '{path}': {plain} starts from it except for the last layer, which starts at random")
    return InitialWeights(state, sha256_of(path), new_classes=new_labels)


def _without_last_layer(checkpoint: Checkpoint, contract: Contract) -> dict[str, Tensor]:
    """Return the tensors that a checkpoint's net shares with the net described by `contract`, under the latter's names.

    In an embedding space, the names of the net's tensors have the prefix `NET_PREFIX`. The class vectors have no
    prefix, so they are left out.
    """
    old, new = checkpoint.contract.architecture, contract.architecture
    old_prefix, new_prefix = ("" if name == plain_name(name) else NET_PREFIX for name in (old, new))
    last_layer = class_dimensions(plain_name(old))
    shared = {}
    for name, tensor in checkpoint.state.items():
        name_in_plain_net = name.removeprefix(old_prefix)
        if name.startswith(old_prefix) and name_in_plain_net not in last_layer:
            shared[new_prefix + name_in_plain_net] = tensor
    return shared


def is_pretrained_net(architecture: str) -> bool:
    """Return whether a net is one that others have trained: EfficientNet-Lite0, timm's and torchvision's."""
    return architecture == EFFICIENTNET_LITE0 or architecture.startswith((TIMM_PREFIX, TORCHVISION_PREFIX))


def pretrained_input(architecture: str) -> InputValues:
    """Return the normalisation that the pretrained weights of a net need.

    Raises:
        InputError: timm does not state it.
    """
    if architecture == EFFICIENTNET_LITE0:
        return InputValues(LITE0_SCALE, LITE0_MEAN, LITE0_STD)
    if architecture.startswith(TIMM_PREFIX):
        return InputValues(1 / 255, *timm_input(architecture.removeprefix(TIMM_PREFIX)))
    return InputValues(1 / 255, *_IMAGENET)  # a net of torchvision


def pretrained_state(architecture: str, source: str) -> dict[str, Tensor]:
    """Return the pretrained weights of a net without its last layer.

    Args:
        architecture: The net, such as "efficientnet-lite0" or "timm/NAME".
        source: "pretrained" for the weights that come with the net, which timm downloads; or a .pth or .safetensors
            file with a state dict.

    Raises:
        InputError: The net comes without weights, or the file does not fit the net.
        TemporaryError: The download fails.
    """
    if source != PRETRAINED:
        state = _of_file(Path(source), architecture)
    elif architecture == EFFICIENTNET_LITE0:
        state = imagenet_weights()
    elif architecture.startswith(TIMM_PREFIX):
        state = timm_weights(architecture.removeprefix(TIMM_PREFIX))
    else:
        raise InputError(f"{architecture} comes without weights: give a file of them as init")
    last_layer = class_dimensions(architecture)
    return {name: tensor for name, tensor in state.items() if name not in last_layer}


def _of_file(path: Path, architecture: str) -> dict[str, Tensor]:
    """Return the weights in a file under the net's own names for them.

    Those of the last layer may be missing, or have shapes for other classes. If the file has as many tensors as the
    net, but with other names, they must be in the order of the net's.

    Raises:
        InputError: The file is damaged, or belongs to another net.
    """
    tensors = _tensors_in(path)
    with torch.device("meta"):  # only names and shapes are needed, for any number of classes
        own = create_model(architecture, num_classes=2).state_dict()
    if len(tensors) == len(own) and tensors.keys() != own.keys():
        tensors = dict(zip(own, tensors.values(), strict=True))
    last_layer = class_dimensions(architecture)
    for name, tensor in own.items():
        if name in last_layer:
            continue  # its number of classes may differ
        if name not in tensors or tensors[name].shape != tensor.shape:
            found = f"shape {list(tensors[name].shape)}" if name in tensors else "no such tensor"
            raise InputError(
                f"init '{path}' does not fit {architecture}: tensor '{name}' has shape {list(tensor.shape)}, the file "
                f"has {found}; choose its net with --model timm/NAME or torchvision/NAME; 'edgekit import' converts a "
                "checkpoint of the EdgeCNN authors"
            )
    result = {name: tensors[name] for name in own if name in tensors}
    check_values(result, f"init '{path}'", "choose another file")
    return result


def _tensors_in(path: Path) -> dict[str, Tensor]:
    """Return the tensors of the state dict in a file: the whole file, or its part under one of the keys `_NESTED`."""
    require_file(path, "init")
    document: Mapping[str, Any] = read_tensors(path)[0] if path.suffix == CHECKPOINT_SUFFIX else load_tensors(path)
    state = next((document[key] for key in _NESTED if isinstance(document.get(key), dict)), document)
    # DataParallel adds a prefix to the names. Entries other than dense tensors, such as numbers, are left out.
    return {str(name).removeprefix("module."): each for name, each in state.items() if is_dense(each)}


def initial_weights(options: NetOptions, contract: Contract) -> InitialWeights | None:
    """Return the weights to start from; None: random ones.

    Raises:
        InputError: The checkpoint does not exist or belongs to another net.
    """
    if options.init is None:
        return None
    if initial_checkpoint(options.init) is not None:  # else weights of another project
        return read_initial_weights(resolve_model(options.init, (CHECKPOINT_SUFFIX,)), contract, options.notify)
    state = pretrained_state(contract.architecture, options.init)
    options.notify(f"init '{options.init}': {contract.architecture} starts from it except for the last layer")
    # Without the last layer, every class is a new one.
    return InitialWeights(state, weights_digest(state), new_classes=contract.labels)


def initial_checkpoint(init: str) -> Checkpoint | None:
    """Return the checkpoint of edgekit that `init` names; None: it is a file of another project, or "pretrained".

    Raises:
        InputError: The file is missing or damaged, or is a model for a device.
    """
    path = Path(init)
    if init == PRETRAINED or (path.is_file() and _is_foreign(path)):
        return None
    return load_checkpoint(resolve_model(init, (CHECKPOINT_SUFFIX,)))


def _is_foreign(path: Path) -> bool:
    """Return whether a file of weights is of another project."""
    if path.suffix == CHECKPOINT_SUFFIX:
        return not any(key.startswith(METADATA_KEY) for key in read_header(path))
    return path.suffix not in DEVICE_SUFFIXES


def input_values(model: str, init: str | None) -> InputValues:
    """Return the normalisation of a net's input: the one that its initial weights were trained with.

    Raises:
        InputError: As `initial_checkpoint`.
    """
    default = InputValues()
    if init is None:
        return default
    checkpoint = initial_checkpoint(init)
    if checkpoint is None:  # weights of another project
        return pretrained_input(model) if is_pretrained_net(model) else default
    spec = checkpoint.contract.input
    # Values per channel of a net for "gray" or "bgr" input do not fit the RGB input of a net that is trained.
    return InputValues(spec.scale, spec.mean, spec.std) if spec.channels == "rgb" else default
