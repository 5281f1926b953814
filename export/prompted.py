"""Export of a CLIP with trained prompts to one ONNX file: images in, logits out, without a text tower.

The prompts are constants of the image tower. For the ensemble, the file also contains the frozen tower. The text tower
is replaced by one matrix: class vectors times logit scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.contract import Contract
from edgekit.export.options import ExportOptions
from edgekit.export.relabelling import described_classes, new_classes
from edgekit.files import sha256_of
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.clip.checkpoint import build_prompted, load_prompts, require_clip
from edgekit.models.clip.classifier import PROMPTED, clip_contract
from edgekit.models.clip.hicropl import PromptedClip
from edgekit.models.clip.load import load_clip
from edgekit.models.clip.prompt_insertion import embed_patches, encode_patches
from edgekit.models.distill.relabel import report_distances

# Logits are cosines times 100, so rounding errors are larger than in other nets.
PROMPTS_TOLERANCE = 1e-3


class PromptedTower(nn.Module):
    """Module that returns logits (N, classes) of normalised images (N, 3, size, size)."""

    def __init__(self, net: PromptedClip, ensemble: bool) -> None:
        """Compute the prompts of the image tower, and the class matrix (dim, classes) from the texts, once.

        Without `ensemble` the frozen tower is left out, see `forward`.
        """
        super().__init__()
        self.visual = net.clip.model.visual
        self.ensemble = ensemble
        self.prompts: Tensor
        self.class_matrix: Tensor
        with torch.no_grad():
            # (D, n, d): n tokens for each of the first D layers of the image tower.
            self.register_buffer("prompts", net.learner().vision.clone())
            self.register_buffer("class_matrix", (net.clip.logit_scale * net.text_features()).T.contiguous())

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of normalised images (N, 3, H, W).

        The ensemble is the mean of the features of the prompted and of the frozen (unprompted) tower.
        """
        patches = embed_patches(self.visual, images)  # once for both towers
        features = F.normalize(encode_patches(self.visual, patches, self.prompts), dim=-1)  # (N, dim)
        if self.ensemble:
            frozen = F.normalize(encode_patches(self.visual, patches), dim=-1)
            features = F.normalize(features + frozen, dim=-1)
        return features @ self.class_matrix  # (dim, classes)


def open_prompted_tower(path: Path, options: ExportOptions) -> tuple[PromptedTower, Contract]:
    """Return the net of an exported file of trained prompts and its contract, with the labels that the options state.

    Raises:
        InputError: As `open_prompts`, or the labels cannot be used.
    """
    # None: the classes that the prompts were trained for.
    descriptions = described_classes(new_classes(options), options.notify) or None
    net = open_prompts(path, options.clip, descriptions, options.notify)
    training = load_prompts(path).training  # the record of the training
    data_name, gray = str(training.get("data_name", "unknown")), bool(training.get("gray"))
    contract = clip_contract(PROMPTED, net.clip.config, net.classes, data_name, gray)
    origin = replace(contract.provenance, checkpoint_sha256=sha256_of(path))
    # 0.0: no threshold.
    contract = replace(contract, provenance=origin, uncertain_below=options.uncertain_below or 0.0)
    return PromptedTower(net, ensemble=not options.without_ensemble), contract


def open_prompts(
    path: Path, clip: str | None, descriptions: Mapping[str, Sequence[str]] | None, notify: Notify = ignore_message
) -> PromptedClip:
    """Return the prompted CLIP: trained prompts in the CLIP that they were trained for.

    Args:
        path: A file of trained prompts.
        clip: The CLIP they were trained for, by name or file.
        descriptions: Sentences of classes that replace the trained ones; see `edgekit.models.clip.descriptions`.
        notify: Called with a line per new class about its distance from the captions that the CLIP was trained on, if
            the CLIP's file states the captions.

    Raises:
        InputError: The prompts were trained with `upstream_compat`, `clip` is None or is not the CLIP that the prompts
            were trained for, or a sentence is too long.
        UnavailableError: The CLIP cannot be downloaded.
    """
    checkpoint = load_prompts(path)
    net = build_prompted(checkpoint, load_clip(require_clip(path, clip), checkpoint.clip.config.activation))
    if descriptions is None:
        return net
    net = net.with_classes(descriptions)
    # A prompted CLIP encodes the name of a class, too, and has one vector per class for all its sentences.
    texts = {name: (name, *sentences) for name, sentences in descriptions.items()}
    with torch.no_grad():
        report_distances(net.clip, texts, net.text_features()[None], notify)  # (sentences = 1, classes, dim)
    return net
