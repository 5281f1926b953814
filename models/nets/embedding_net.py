"""A small net that maps images into a teacher's embedding space, in which each class is a unit vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Avoids a division by zero: a zero vector stays zero.
_MIN_NORM = 1e-12
# Prefix of the inner net's tensors in the state dict of an `EmbeddingNet`.
NET_PREFIX = "net."
# Names of the factor of the cosines and of the unit vectors of the classes in the state dict.
LOGIT_SCALE, CLASS_VECTORS = "logit_scale", "class_vectors"


class EmbeddingNet(nn.Module):
    """Net whose logits (N, classes) are scaled cosine similarities of image embeddings to class vectors, as in CLIP.

    `net` maps float images to embed_dim outputs, so its last layer is the projection into the embedding space. The
    class vectors are a buffer and are not trained, so the classes can be replaced without training. A class may have
    several vectors, such as one for each sentence that describes it: its logit is that of the most similar vector.
    """

    def __init__(self, net: nn.Module, num_classes: int, embed_dim: int) -> None:
        """Wrap `net`; the class vectors are zeros until `set_classes` is called."""
        super().__init__()
        self.net = net
        self._num_classes = num_classes
        self.class_vectors: Tensor
        self.logit_scale: Tensor
        # Buffers and not parameters: they are saved with the net, but not trained.
        self.register_buffer("class_vectors", torch.zeros(num_classes, embed_dim))
        self.register_buffer("logit_scale", torch.ones(()))

    def set_classes(self, class_vectors: Tensor, logit_scale: float) -> None:
        """Set the class vectors, unit vectors (classes, embed_dim), and the factor of the cosine similarity."""
        self.class_vectors.copy_(class_vectors)
        self.logit_scale.fill_(logit_scale)

    def replace_classes(self, vectors: Tensor) -> None:
        """Replace the classes by those of unit vectors (per class, classes, embed_dim).

        The caller passes a power of two of vectors per class, because `forward` compares them by halves. For a class
        with fewer vectors, the caller repeats some of them.
        """
        self._num_classes = vectors.shape[1]
        self.class_vectors = vectors.flatten(0, 1).to(self.class_vectors)  # (per class * classes, embed_dim)

    def forward(self, images: Tensor, embeddings_only: bool = False) -> Tensor:
        """Return logits (N, classes), or with `embeddings_only` the unit vectors (N, embed_dim)."""
        projected = self.net(images).float()  # (N, embed_dim)
        embeddings: Tensor = projected / projected.norm(dim=1, keepdim=True).clamp_min(_MIN_NORM)
        if embeddings_only:
            return embeddings
        logits = embeddings @ (self.logit_scale * self.class_vectors).T  # (N, per class * classes)
        # The maximum over the vectors of each class, by halves, because pnnx does not convert a maximum reduction.
        # Each half has all classes in the same order.
        while logits.shape[1] > self._num_classes:
            logits = torch.maximum(*torch.split(logits, logits.shape[1] // 2, dim=1))
        return logits
