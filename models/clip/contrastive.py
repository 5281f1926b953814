"""Losses between images and captions: open_clip's, and one over the distinct captions of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss() -> Any:
    """Return open_clip's loss over the batches of all processes."""
    from open_clip.loss import ClipLoss

    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank = torch.distributed.get_rank() if distributed else 0
    world = torch.distributed.get_world_size() if distributed else 1
    return ClipLoss(gather_with_grad=True, rank=rank, world_size=world)


def caption_loss(image: Tensor, distinct: Tensor, which: Tensor, scale: Tensor) -> Tensor:
    """Return the contrastive loss of images and the distinct captions of a batch.

    The loss of an image is a cross-entropy over the distinct captions, each counted once, so that similarities learn
    how frequent a content is. In open_clip's loss a caption counts once for each of its images, and the similarities
    learn a classifier for equally frequent classes. The loss of a caption is the cross-entropy over the images, whose
    target is divided equally among its images.

    Args:
        image: Unit vectors (N, embed_dim).
        distinct: Unit vectors (texts, embed_dim).
        which: Index of each image's caption, int64 (N,).
        scale: Scale of the logits, a scalar.
    """
    with torch.autocast(image.device.type, enabled=False):
        logits = scale.float() * image.float() @ distinct.float().T  # (N, texts)
        of_images = F.cross_entropy(logits, which)
        of_captions = -logits.log_softmax(dim=0).gather(1, which[:, None]).mean()
    return (of_images + of_captions) / 2
