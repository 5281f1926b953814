"""Trained prompts in a file of their own: safetensors without the CLIP, which is named by its checksums instead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.models.checkpoints.tensorfile import read_header, read_tensors, write_tensors
from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.config import PromptConfig
from edgekit.models.clip.descriptions import Descriptions, parse_descriptions
from edgekit.models.clip.documents import from_document
from edgekit.models.clip.frozen import FrozenClip
from edgekit.models.clip.prompted import PromptedClip
from edgekit.models.clip.prompts import PromptLearner
from edgekit.models.clip.weights import check_schema
from edgekit.models.model_loading import load_weights

METADATA_KEY = "edgekit-prompts"
SCHEMA_MAJOR = 1
SCHEMA_VERSION = f"{SCHEMA_MAJOR}.0"


@dataclass(frozen=True)
class ClipIdentity:
    """Which CLIP: where it came from, the checksum of its file and that of its weights in any file, its shape."""

    source: str
    sha256: str
    weights_sha256: str
    config: ClipConfig


@dataclass(frozen=True)
class PromptCheckpoint:
    """A trained learner and everything but the CLIP that is needed to use it.

    `descriptions` holds the sentences of each class in the order of the logits; `training` says how it was made.
    """

    config: PromptConfig
    clip: ClipIdentity
    descriptions: Descriptions
    state: Mapping[str, Tensor]
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the logits."""
        return tuple(self.descriptions)


def prompt_checkpoint(prompted: PromptedClip, training: Mapping[str, Any]) -> PromptCheckpoint:
    """Return the checkpoint of a prompted CLIP as it is now."""
    clip = prompted.clip
    return PromptCheckpoint(
        config=prompted.config,
        clip=ClipIdentity(clip.source, clip.sha256, clip.weights_sha256(), clip.config),
        descriptions=prompted.class_descriptions,
        state={name: tensor.detach().cpu().clone() for name, tensor in prompted.learner.state_dict().items()},
        training=training,
    )


def save_prompts(path: Path, checkpoint: PromptCheckpoint) -> None:
    """Write a checkpoint atomically; equal checkpoints give equal bytes.

    Raises:
        StorageError: The file cannot be written.
    """
    document = {
        "schema": SCHEMA_VERSION,
        "config": asdict(checkpoint.config),
        "clip": asdict(checkpoint.clip),
        "classes": list(checkpoint.descriptions),  # sorting the keys loses their order
        "descriptions": {name: list(texts) for name, texts in checkpoint.descriptions.items()},
        "training": dict(checkpoint.training),
    }
    write_tensors(path, checkpoint.state, METADATA_KEY, document)


def is_prompts_file(path: Path) -> bool:
    """Return whether the file is a safetensors file of trained prompts."""
    try:
        return METADATA_KEY in read_header(path)
    except InputError:
        return False


def load_prompts(path: Path) -> PromptCheckpoint:
    """Read a checkpoint.

    Raises:
        InputError: It is no file of trained prompts, damaged, or of another major version.
    """
    require_file(path, "prompts")
    try:
        state, metadata = read_tensors(path)
    except InputError as error:
        raise InputError(f"prompts '{path}' are no safetensors file ({error})") from error
    if METADATA_KEY not in metadata:
        raise InputError(f"'{path}' holds no trained prompts: train some with 'edgekit train --model hicropl'")
    try:
        document = json.loads(metadata[METADATA_KEY])
        check_schema(document, SCHEMA_MAJOR)
        descriptions = parse_descriptions(document.get("descriptions"))
        classes, training = document.get("classes"), document.get("training")
        if not isinstance(classes, list) or sorted(classes) != sorted(descriptions):
            raise InputError("its classes are not those it describes")
        if not isinstance(training, dict):
            raise InputError("'training' is missing")
        return PromptCheckpoint(
            config=from_document(PromptConfig, document.get("config"), "config"),
            clip=from_document(ClipIdentity, document.get("clip"), "clip"),
            descriptions={name: descriptions[name] for name in classes},
            state=state,
            training=training,
        )
    except (InputError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"prompts '{path}' have no valid description: {error}") from error


def load_lasting_prompts(path: Path) -> PromptCheckpoint:
    """Return trained prompts that answer alike whenever they are asked.

    Raises:
        InputError: The file holds no prompts, or they change whenever they are used.
    """
    checkpoint = load_prompts(path)
    if checkpoint.config.upstream_compat:
        raise InputError(
            f"prompts '{path}' are of --upstream-compat, which change at every pass: they cannot teach or be exported"
        )
    return checkpoint


def require_clip(path: Path, clip: str | None) -> str:
    """Return `clip`, the name or file of the CLIP that the prompts at `path` belong to.

    Raises:
        InputError: It is None; the message says which one to give.
    """
    if clip is None:
        wanted = load_prompts(path).clip
        raise InputError(
            f"'{path}' holds prompts for the CLIP '{wanted.source}' (sha256 {wanted.sha256}): "
            "give its weights with --clip"
        )
    return clip


def build_prompted(checkpoint: PromptCheckpoint, clip: FrozenClip) -> PromptedClip:
    """Return the prompted CLIP with the checkpoint's weights, in eval mode.

    Raises:
        InputError: `clip` is not the one the prompts were trained on, or the weights do not fit.
    """
    wanted = checkpoint.clip
    if clip.config != wanted.config:
        raise InputError(f"the prompts were trained on '{wanted.source}', {_difference(wanted.config, clip.config)}")
    if clip.sha256 != wanted.sha256 and clip.weights_sha256() != wanted.weights_sha256:
        raise InputError(
            f"the prompts were trained on '{wanted.source}' (sha256 {wanted.sha256}), "
            f"not on the weights of '{clip.source}' (sha256 {clip.sha256}): give that CLIP"
        )
    learner = PromptLearner(checkpoint.config, clip.config)
    load_weights(learner, checkpoint.state, "this prompt learner")
    return PromptedClip(clip, checkpoint.config, checkpoint.descriptions, learner).eval()


def _difference(wanted: ClipConfig, given: ClipConfig) -> str:
    expected, found = asdict(wanted), asdict(given)
    name = next(name for name in expected if expected[name] != found[name])
    return f"a CLIP whose {name} is {expected[name]}, not {found[name]}: give that CLIP"
