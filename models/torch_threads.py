"""Number of CPU threads that torch uses in this process."""

from __future__ import annotations

import torch


def set_torch_threads(threads: int | None) -> None:
    """Set the number of CPU threads that torch uses; None or 0: the number stays."""
    if threads:
        torch.set_num_threads(threads)
