"""Checkpoints: safetensors files whose header contains the same contract that the exported model will contain.

    checkpoint = load_checkpoint(Path("runs/mine/best.safetensors"))
    checkpoint.contract.labels, checkpoint.training["recipe_name"]

`edgekit.models.model_loading.build_net` turns a checkpoint into a net. `read_authors_checkpoint` reads files of the
EdgeCNN authors' released code, with tensors renamed to those of `edgekit.models.nets.edgecnn`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from edgekit.contract import METADATA_KEY, Contract
from edgekit.errors import InputError
from edgekit.files import check_replaces_none, check_writable, require_file
from edgekit.model_store import BEST_NAME, CHECKPOINT_SUFFIX
from edgekit.models.tensor_files import check_values, is_dense, load_tensors, read_tensors, write_tensors

# Other kinds of edgekit files, by the key of their header.
_OTHER_KINDS = {
    f"{METADATA_KEY}-clip": "is a CLIP, not a net: to evaluate it, run 'edgekit eval zero-shot --clip FILE'",
    f"{METADATA_KEY}-prompts": "contains trained prompts: give also the CLIP that they belong to",
}
_DENSE = re.compile(r"features\.dense(\d{1,2})_(\d{1,2})\.denselayer\d+_\d+\.(conv0|norm0|conv1|norm1)\.(.+)")
_PARTS = {"conv0": "expand", "norm0": "expand_norm", "conv1": "reduce", "norm1": "reduce_norm"}
# The net of each growth rate. The growth rate is the number of output channels of a dense layer.
_ARCHITECTURES = {8: "edgecnn", 16: "edgecnn-wide"}


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a net, the contract of the model exported from it, and the record of its training.

    `state` is the net's state dict; `training` contains recipe, seed, versions and checksums of the data.
    """

    contract: Contract
    state: Mapping[str, Tensor]
    training: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; equal checkpoints give equal bytes.

    Raises:
        StorageError: The file cannot be written.
    """
    document = {"contract": json.loads(checkpoint.contract.to_json()), "training": checkpoint.training}
    write_tensors(path, checkpoint.state, METADATA_KEY, document)


def check_checkpoint_output(output: Path, inputs: Iterable[Path]) -> None:
    """Check that a checkpoint can be written to `output`, and that it replaces none of `inputs`.

    Raises:
        InputError: The name does not end in .safetensors, or the file is one of `inputs`. A folder among them is that
            of a training, and stands for its best checkpoint.
        StorageError: The file cannot be written.
    """
    if output.suffix != CHECKPOINT_SUFFIX:
        raise InputError(f"output '{output}' must end in {CHECKPOINT_SUFFIX}")
    check_replaces_none(output, (path / BEST_NAME if path.is_dir() else path for path in inputs))
    check_writable(output)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        InputError: The file is not a checkpoint of edgekit, its contract is invalid, or its weights are not finite.
    """
    require_file(path, "checkpoint")
    try:
        state, metadata = read_tensors(path)
    except InputError as error:
        raise InputError(
            f"checkpoint '{path}' is not a safetensors file ({error}): convert other formats with 'edgekit import'"
        ) from error
    for key in metadata:
        if key.startswith(f"{METADATA_KEY}-"):  # another kind of edgekit's files
            raise InputError(f"'{path}' {_OTHER_KINDS.get(key, 'is not a classifier')}")
    if METADATA_KEY not in metadata:
        raise InputError(f"checkpoint '{path}' has no edgekit contract: convert it with 'edgekit import'")
    try:
        document = json.loads(metadata[METADATA_KEY])
        contract = Contract.from_json(json.dumps(document["contract"]))
        training = document["training"]
        if not isinstance(training, dict):
            raise InputError("'training' is not an object")
    except (InputError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"checkpoint '{path}' has no valid contract: {error}") from error
    check_values(state, f"checkpoint '{path}'", "train or import it again")
    return Checkpoint(contract, state, training)


def read_authors_checkpoint(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the architecture, and the state dict under edgekit's names, of a file saved by the authors' code.

    Raises:
        InputError: The file is damaged, contains code, or belongs to another net.
    """
    state = load_tensors(path).get("net")
    if not isinstance(state, dict) or not all(map(is_dense, state.values())):
        raise InputError(f"'{path}' has no dense tensors under 'net': it is not a checkpoint of the EdgeCNN authors")
    renamed = {_renamed(str(name)): tensor for name, tensor in state.items()}
    weight = renamed.get("classifier.weight")  # the caller reads its number of classes
    bias = renamed.get("blocks.0.0.reduce.bias")
    # The bias has one value per output channel of a layer: the growth rate, in which the authors' nets differ.
    growth_rate = 0 if bias is None else bias.numel()
    architecture = _ARCHITECTURES.get(growth_rate)
    if architecture is None or weight is None or weight.ndim != 2:
        raise InputError(f"'{path}' is not a checkpoint of EdgeCNN: its first tensor is '{min(renamed, default='')}'")
    return architecture, renamed


def _renamed(name: str) -> str:
    """Return the name in `edgekit.models.nets.edgecnn` of a tensor of the authors' net."""
    name = name.removeprefix("module.")  # the prefix of a net that was trained with DataParallel
    if match := _DENSE.fullmatch(name):
        block, layer, part, rest = match.groups()  # the authors count blocks and layers from 1
        return f"blocks.{int(block) - 1}.{int(layer) - 1}.{_PARTS[part]}.{rest}"
    return name.replace("features.conv0.", "stem.")
