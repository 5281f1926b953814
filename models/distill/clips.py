"""CLIPs as teachers, zero-shot or with trained prompts; their input is the whole face image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.contract import InputSpec
from edgekit.models.clip.checkpoint import ClipIdentity, build_prompted, load_prompts
from edgekit.models.clip.descriptions import Descriptions
from edgekit.models.clip.frozen import FrozenClip
from edgekit.models.clip.prompted import PromptedClip, frozen_classifier
from edgekit.models.clip.text_tower import TextTower
from edgekit.models.distill.teachers import EmbeddingSpace, Kind, Teacher, TeacherOutputs, name_of, to_teacher_input
from edgekit.preprocess import ImageU8, to_tensor


def zero_shot_teacher(clip: FrozenClip, descriptions: Descriptions, device: torch.device) -> Teacher:
    """Return a CLIP as a teacher whose class vectors are the encoded descriptions.

    Raises:
        InputError: A description is longer than the CLIP's context.
    """
    clip = clip.to(device)
    # The outputs also depend on activation and normalisation, which the weights do not contain.
    described = json.dumps([clip.weights_sha256, asdict(clip.config), *descriptions.items()])
    return _teacher(
        "clip",
        clip.source,
        hashlib.sha256(described.encode()).hexdigest(),
        tuple(descriptions),
        clip,
        lambda images: F.normalize(clip.encode_image(images), dim=-1),
        frozen_classifier(clip, descriptions),
        None,
    )


def prompted_teacher(path: Path, clip: FrozenClip, device: torch.device) -> Teacher:
    """Return a CLIP with the trained prompts in the file at `path` as a teacher.

    Raises:
        InputError: The file does not contain prompts that can be loaded, or they belong to another CLIP.
    """
    checkpoint = load_prompts(path)
    net = build_prompted(checkpoint, clip).to(device)
    with torch.no_grad():
        vectors = net.text_features()
    return _teacher(
        "prompted-clip",
        name_of(path),
        checkpoint.outputs_sha256(),
        net.classes,
        net.clip,
        net.image_features,
        vectors,
        net,
        bool(checkpoint.training.get("gray")),
    )


def _teacher(
    kind: Kind,
    name: str,
    sha256: str,
    labels: tuple[str, ...],
    clip: FrozenClip,
    image_features: Callable[[Tensor], Tensor],
    class_vectors: Tensor,
    prompted: PromptedClip | None,
    gray: bool = False,
) -> Teacher:
    side, config = clip.image_size_px, clip.config
    spec = InputSpec("images", (side, side), "rgb", 1 / 255, config.image_mean, config.image_std)
    device = class_vectors.device
    scale = float(clip.logit_scale)
    vectors = class_vectors.float().cpu().numpy()

    @torch.no_grad()
    def predict(crops: ImageU8) -> TeacherOutputs:
        images = torch.from_numpy(to_tensor(to_teacher_input(crops, spec.size_hw, gray), spec)).to(device)
        embeddings = image_features(images).float().cpu().numpy()
        return TeacherOutputs(np.float32(scale) * embeddings @ vectors.T, embeddings)

    identity = ClipIdentity(clip.source, clip.sha256, clip.weights_sha256, config)
    return Teacher(
        kind,
        name,
        labels,
        sha256,
        predict,
        space=EmbeddingSpace(vectors, scale),
        text_tower=TextTower(clip, prompted, sha256) if clip.texts else None,
        facts={"clip": asdict(identity)},
    )
