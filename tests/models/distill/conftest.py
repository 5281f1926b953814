"""Fixtures: a rule-based teacher, a small CLIP and a short recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.load import FrozenClip
from edgekit.models.data import EXPRESSIONS
from edgekit.models.data.augment import Augmentation
from edgekit.models.distill.teachers import EmbeddingSpace, Teacher, TeacherOutputs
from edgekit.models.training.recipes import Recipe
from edgekit.preprocess import FloatArray, ImageU8
from tests.clips import random_clip

EMBED_DIM = 12


@dataclass
class BarTeacher:
    """A teacher for `bars` that predicts the class after the true one; records the shapes of its inputs."""

    sha256: str = "a" * 64
    embeds: bool = False
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    @staticmethod
    def named(images: ImageU8) -> np.ndarray:
        """Return the predicted classes for whole images or centred crops of any height."""
        rows = images.mean(axis=(2, 3))  # (N, H)
        cut = (48 - rows.shape[1]) // 2
        bands = np.stack([rows[:, 6 + 5 * bar - cut : 10 + 5 * bar - cut].mean(axis=1) for bar in range(7)], axis=1)
        named: np.ndarray = (bands.argmax(axis=1) + 1) % 7
        return named

    @property
    def space(self) -> EmbeddingSpace:
        return EmbeddingSpace(np.eye(7, EMBED_DIM, dtype=np.float32), 8.0)

    def teacher(self) -> Teacher:
        space = self.space if self.embeds else None
        return Teacher("clip" if space else "classifier", "bars", EXPRESSIONS, self.sha256, self.predict, space=space)

    def predict(self, crops: ImageU8) -> TeacherOutputs:
        self.shapes.append(crops.shape)
        vectors: FloatArray = self.space.class_vectors[self.named(crops)]
        logits = self.space.logit_scale * vectors @ self.space.class_vectors.T
        return TeacherOutputs(logits, vectors if self.embeds else None)


@pytest.fixture
def bar_teacher() -> Callable[..., BarTeacher]:
    return BarTeacher


@pytest.fixture(scope="session")
def short() -> Recipe:
    return Recipe(
        epochs=3, augmentation=Augmentation(crop_px=44, cutout_px=8), batch_size=14, max_lr=0.1, ema_decay=0.9
    )


@pytest.fixture(scope="session")
def small_clip() -> FrozenClip:
    config = ClipConfig(image_size_px=32, patch_size_px=16, vision=Tower(128, 2, 2), text=Tower(64, 2, 1), embed_dim=24)
    return random_clip(config, seed=1)
