"""The engine under training: how many threads torch uses."""

from __future__ import annotations

import torch


def set_torch_threads(threads: int) -> None:
    """Let torch use that many CPU threads, at least 1, in this process."""
    torch.set_num_threads(threads)
