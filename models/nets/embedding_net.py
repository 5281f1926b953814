"""A small net in a teacher's embedding space: it maps images to unit vectors, and classes are unit vectors too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Avoids a division by zero: a zero vector stays zero.
_MIN_NORM = 1e-12
# Prefix of the inner net's tensors in the state dict of an `EmbeddingNet`.
NET_PREFIX = "net."


class EmbeddingNet(nn.Module):
    """Logits (N, classes) of float images: scaled cosine similarities to class vectors, as in CLIP.

    `net` has embed_dim outputs, so its last layer is the projection into the embedding space. The class vectors are a
    buffer and not trained, so the classes can be replaced without training.
    """

    def __init__(self, net: nn.Module, num_classes: int, embed_dim: int) -> None:
        """Wrap `net`; the class vectors are zeros until `set_classes` is called."""
        super().__init__()
        self.net = net
        self.class_vectors: Tensor
        self.logit_scale: Tensor
        self.register_buffer("class_vectors", torch.zeros(num_classes, embed_dim))
        self.register_buffer("logit_scale", torch.ones(()))

    def set_classes(self, class_vectors: Tensor, logit_scale: float) -> None:
        """Set the class vectors (classes, embed_dim), of length 1, and the factor of the cosine similarity."""
        self.class_vectors.copy_(class_vectors)
        self.logit_scale.fill_(logit_scale)

    def forward(self, images: Tensor, embeddings_only: bool = False) -> Tensor:
        """Return logits (N, classes), or with `embeddings_only` the unit vectors (N, embed_dim)."""
        projected = self.net(images).float()  # (N, embed_dim)
        embeddings: Tensor = projected / projected.norm(dim=1, keepdim=True).clamp_min(_MIN_NORM)
        return embeddings if embeddings_only else self.logits(embeddings)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Return the scaled cosine similarities (N, classes) of unit vectors (N, embed_dim) to the class vectors."""
        return embeddings @ (self.logit_scale * self.class_vectors).T
