"""Where weights come from: the contract of a net to be trained and the record of how it was."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

from edgekit import __version__
from edgekit.contract import Contract, CropSpec, InputSpec, OutputSpec, Provenance
from edgekit.models.data import DataSet
from edgekit.models.nets.edgecnn import INPUT_SIZE_PX
from edgekit.models.nets.registry import create_model

IMAGE_SIZE_PX = 48
# Fraction of a detected box's side that is added all round; chosen by benchmarks/models/crop_margin.py.
CROP_MARGIN = 0.04


def contract_for(architecture: str, labels: tuple[str, ...], dataset_name: str, gray: bool) -> Contract:
    """Return the contract of a net trained on 48x48 pictures: centre crop of 44, R, G, B, scaled to 0..1.

    Raises:
        InputError: The architecture is not known.
    """
    create_model(architecture, len(labels))
    size_hw = (INPUT_SIZE_PX, INPUT_SIZE_PX)
    return Contract(
        architecture=architecture,
        labels=labels,
        input=InputSpec("input", size_hw, "rgb", 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        crop=CropSpec(CROP_MARGIN, gray, (IMAGE_SIZE_PX, IMAGE_SIZE_PX), size_hw),
        output=OutputSpec("logits"),
        provenance=Provenance(dataset=dataset_name, git_revision=git_revision(), edgekit_version=__version__),
    )


def training_provenance(dataset: DataSet, recipe_name: str, validation_name: str) -> dict[str, Any]:
    """Return what a checkpoint records beside recipe and seed: checksum of the data, versions, threads."""
    return {
        "recipe_name": recipe_name,
        "data_name": dataset.name,
        "data_sha256": dataset.checksum(),
        "validation": validation_name,
        "edgekit_version": __version__,
        "git_revision": git_revision(),
        "torch_version": torch.__version__,
        "threads": torch.get_num_threads(),
    }


@cache
def git_revision() -> str | None:
    """Return the revision of the source tree this runs from, "-dirty" if changed, or None when installed."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607 - the user's own git
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
