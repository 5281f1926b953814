"""CLIPs with random weights."""

from __future__ import annotations

from edgekit.models.clip.architecture import ClipConfig
from edgekit.models.clip.load import FrozenClip, seeded_model


def random_clip(config: ClipConfig, seed: int = 0) -> FrozenClip:
    """Return a frozen CLIP with open_clip's initial weights, drawn with `seed`."""
    return FrozenClip(seeded_model(config, seed), config, f"random:{seed}")
