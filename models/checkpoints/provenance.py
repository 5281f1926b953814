"""Provenance of weights: data set, recipe, versions and source revision, as recorded in a checkpoint."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

from edgekit import __version__
from edgekit.models.data import DataSet


def training_provenance(dataset: DataSet, recipe_name: str, validation_name: str) -> dict[str, Any]:
    """Return a checkpoint's record of its training: recipe, checksum of the data, versions, number of threads."""
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
    """Return the git revision of the source tree, with "-dirty" if it has changes; None for an installed package."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607 - the user's own git
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
