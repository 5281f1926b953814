"""Number of CPU threads that torch uses in this process."""

from __future__ import annotations

import torch


def set_torch_threads(threads: int) -> None:
    """Set the number of CPU threads that torch uses; `threads` is at least 1."""
    torch.set_num_threads(threads)
