"""Checkpoints of trained prompts: safetensors without the CLIP, which they identify by checksums.

net = build_prompted(load_prompts(Path("runs/prompts/best.safetensors")), load_clip("ViT-B-16.pt"))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.descriptions import Descriptions, parse_descriptions
from edgekit.models.clip.hicropl import PromptConfig, PromptedClip, PromptLearner
from edgekit.models.clip.load import FrozenClip
from edgekit.models.model_loading import load_weights
from edgekit.models.tensor_files import (
    check_schema,
    check_values,
    read_header,
    read_tensors,
    weights_digest,
    write_tensors,
)
from edgekit.typed_json import convert, parse_json

METADATA_KEY = "edgekit-prompts"
SCHEMA_MAJOR = 1
SCHEMA_VERSION = f"{SCHEMA_MAJOR}.0"
# Fields of version 0.2 for variants of the method; files with other values cannot be used.
_METHOD = {"flow": "hicropl", "ensemble": True, "upstream_compat": False, "proxy": "attention", "mapper": "attention"}


@dataclass(frozen=True)
class ClipIdentity:
    """Origin and architecture of a CLIP, and checksums of its file and of its weights.

    The checksum of the weights is the same for each file format that contains them.
    """

    source: str
    sha256: str
    weights_sha256: str
    config: ClipConfig


@dataclass(frozen=True)
class PromptCheckpoint:
    """Trained prompts and everything except the CLIP that is needed to use them.

    `descriptions` contains the sentences of each class in the order of the logits; `training` is the record of the
    training.
    """

    config: PromptConfig
    clip: ClipIdentity
    descriptions: Descriptions
    state: Mapping[str, Tensor]
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return tuple(self.descriptions)

    def outputs_sha256(self) -> str:
        """Return a SHA-256 of all that the outputs depend on; it is equal for files of repeated, equal trainings."""
        prompts, clip = self.config, self.clip.config
        parts = [
            # The digest of older prompts must stay the same if a class gets or loses a field. Therefore fields are
            # listed one by one, and the constants of `_METHOD` stand where version 0.2 had fields.
            [weights_digest(self.state), self.clip.weights_sha256],
            [clip.activation, clip.image_size_px, clip.image_mean, clip.image_std, clip.vision.heads, clip.text.heads],
            [prompts.n_ctx, prompts.depth, prompts.cross_layer, prompts.context_words, _METHOD["flow"]],
            [_METHOD[name] for name in ("ensemble", "upstream_compat", "proxy", "mapper")],
            list(self.descriptions.items()),
            bool(self.training.get("gray")),  # gray images give other outputs than images in colour
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class _Document:
    """The checkpoint's metadata; `classes` is stored because the file sorts the classes in `descriptions` by name."""

    schema: str
    config: PromptConfig
    clip: ClipIdentity
    classes: tuple[str, ...]
    descriptions: dict[str, Any]
    training: dict[str, Any]


def prompt_checkpoint(prompted: PromptedClip, training: Mapping[str, Any]) -> PromptCheckpoint:
    """Return the checkpoint of a prompted CLIP with its current prompts."""
    clip = prompted.clip
    return PromptCheckpoint(
        config=prompted.config,
        clip=ClipIdentity(clip.source, clip.sha256, clip.weights_sha256, clip.config),
        descriptions=prompted.class_descriptions,
        # Copies, because a training may go on and change the prompts.
        state={name: tensor.detach().cpu().clone() for name, tensor in prompted.learner.state_dict().items()},
        training=training,
    )


def save_prompts(path: Path, checkpoint: PromptCheckpoint) -> None:
    """Write a checkpoint atomically; equal checkpoints give equal bytes.

    Raises:
        StorageError: The file cannot be written.
    """
    document = _Document(
        SCHEMA_VERSION,
        checkpoint.config,
        checkpoint.clip,
        checkpoint.classes,
        descriptions=dict(checkpoint.descriptions),
        training=dict(checkpoint.training),
    )
    write_tensors(path, checkpoint.state, METADATA_KEY, asdict(document))


def is_prompts_file(path: Path) -> bool:
    """Return whether the file is a checkpoint of prompts."""
    try:
        return METADATA_KEY in read_header(path)
    except InputError:
        return False


def load_prompts(path: Path) -> PromptCheckpoint:
    """Return the checkpoint in a file.

    Raises:
        InputError: The file is not a checkpoint of prompts, is damaged, has another major version, or contains NaN.
    """
    require_file(path, "prompts")
    try:
        state, metadata = read_tensors(path)
    except InputError as error:
        raise InputError(f"prompts '{path}' are not a safetensors file ({error})") from error
    if METADATA_KEY not in metadata:
        raise InputError(f"'{path}' contains no trained prompts: train some with 'edgekit train-prompts'")
    try:
        data = parse_json(metadata[METADATA_KEY], "it")
        check_schema(data, SCHEMA_MAJOR)
        document = convert(data, _Document, "field")
        for name, value in _METHOD.items():  # fields of edgekit 0.2, of which one value is supported
            if (found := data["config"].get(name, value)) != value:
                raise InputError(f"{name} {found!r} is a variant of the method that only edgekit 0.2 has: train again")
        descriptions = parse_descriptions(document.descriptions)
        if sorted(document.classes) != sorted(descriptions):
            raise InputError("its classes are not those of its descriptions")
    except InputError as error:
        raise InputError(f"prompts '{path}' have no valid metadata: {error}") from error
    check_values(state, f"prompts '{path}'", "train them again")
    ordered = {name: descriptions[name] for name in document.classes}
    return PromptCheckpoint(document.config, document.clip, ordered, state, document.training)


def require_clip(path: Path, clip: str | None) -> str:
    """Return `clip`, the name or file of the CLIP for the prompts at `path`.

    Raises:
        InputError: `clip` is None; the message names the CLIP to give.
    """
    if clip is None:
        wanted = load_prompts(path).clip
        raise InputError(
            f"'{path}' contains prompts for the CLIP '{wanted.source}' (sha256 {wanted.sha256}): "
            "give this CLIP (--clip)"
        )
    return clip


def build_prompted(checkpoint: PromptCheckpoint, clip: FrozenClip) -> PromptedClip:
    """Return the prompted CLIP with the checkpoint's prompts, in eval mode.

    Raises:
        InputError: `clip` is not the CLIP that the prompts were trained for, or a tensor has another shape.
    """
    wanted = checkpoint.clip
    if clip.config != wanted.config:
        raise InputError(f"the prompts were trained for '{wanted.source}', {_difference(wanted.config, clip.config)}")
    # The weights may come from another file, so that only their checksum is equal.
    if clip.sha256 != wanted.sha256 and clip.weights_sha256 != wanted.weights_sha256:
        raise InputError(
            f"the prompts were trained for '{wanted.source}' (sha256 {wanted.sha256}), "
            f"not for the weights of '{clip.source}' (sha256 {clip.sha256}): give that CLIP"
        )
    learner = PromptLearner(checkpoint.config, clip.config)
    load_weights(learner, checkpoint.state, "this prompt learner")
    return PromptedClip(clip, checkpoint.config, checkpoint.descriptions, learner).eval()


def _difference(wanted: ClipConfig, given: ClipConfig) -> str:
    """Return the part of an error message that names the first field in which two architectures differ."""
    expected, found = asdict(wanted), asdict(given)
    name = next(name for name in expected if expected[name] != found[name])
    return f"a CLIP whose {name} is {expected[name]}, not {found[name]}: give that CLIP"
