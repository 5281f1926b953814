"""A small net in a teacher's embedding space: it gives unit vectors, and its classes are unit vectors too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# A vector of zeros has no direction and stays one.
_LEAST_NORM = 1e-12
# What the names of the net's own tensors begin with in the state of an `EmbeddingNet`.
BODY_PREFIX = "net."


class EmbeddingNet(nn.Module):
    """Logits (N, classes) of float images: scaled cosines with class vectors, as CLIP has them.

    `net` gives embed_dim values, so its last layer is the projector into the space. The classes are a buffer and no
    weights: others can take their place without training.
    """

    def __init__(self, net: nn.Module, num_classes: int, embed_dim: int) -> None:
        """Take over `net`; the classes are zeros until `set_classes`."""
        super().__init__()
        self.net = net
        self.class_vectors: Tensor
        self.logit_scale: Tensor
        self.register_buffer("class_vectors", torch.zeros(num_classes, embed_dim))
        self.register_buffer("logit_scale", torch.ones(()))

    def set_classes(self, class_vectors: Tensor, logit_scale: float) -> None:
        """Compare with these unit vectors (classes, embed_dim) from now on."""
        self.class_vectors.copy_(class_vectors)
        self.logit_scale.fill_(logit_scale)

    def forward(self, images: Tensor, embeddings_only: bool = False) -> Tensor:
        """Return logits (N, classes), or the unit vectors (N, embed_dim) that `logits` takes."""
        projected = self.net(images).float()
        embeddings: Tensor = projected / projected.norm(dim=1, keepdim=True).clamp_min(_LEAST_NORM)
        return embeddings if embeddings_only else self.logits(embeddings)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Return scaled cosines (N, classes) of unit vectors (N, embed_dim)."""
        return embeddings @ (self.logit_scale * self.class_vectors).T
