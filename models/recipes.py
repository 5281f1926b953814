"""Training recipes: data, not code. A recipe and a seed say everything about a training but the images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edgekit.errors import InputError
from edgekit.models.data.augment import Augmentation

Schedule = Literal["one-cycle", "paper"]


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD with momentum; the rest by field.

    `schedule` "one-cycle" warms up linearly over `warmup` of all steps and falls to zero on a cosine; "paper" keeps
    `max_lr` and, after epoch `decay_start`, multiplies it by `decay_rate` every `decay_every` epochs.
    `grad_clamp` clamps each gradient element. `ema_decay` keeps an exponential moving average of the weights, which is
    what is evaluated and saved; 0 is none. `label_smoothing` is left out where the data set brings distributions as
    targets.
    """

    epochs: int
    augmentation: Augmentation
    batch_size: int = 64
    max_lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Schedule = "one-cycle"
    warmup: float = 0.15
    decay_start: int = 80
    decay_every: int = 5
    decay_rate: float = 0.9
    label_smoothing: float = 0.0
    grad_clamp: float = 0.0
    ema_decay: float = 0.0

    def learning_rate(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step; `epoch` and `step` count from 0."""
        if self.schedule == "paper":
            decays = max(0, epoch - self.decay_start) // self.decay_every
            return self.max_lr * self.decay_rate**decays
        progress = (epoch * steps_per_epoch + step + 1) / (self.epochs * steps_per_epoch)
        if progress < self.warmup:
            return self.max_lr * progress / self.warmup
        return self.max_lr * 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))


RECIPES = {
    # Small affine moves and cutout suit a net that under-fits; mixup and stronger moves cost accuracy at this length.
    "fer2013": Recipe(
        epochs=90,
        augmentation=Augmentation(
            crop_px=44,
            rotation_deg=10,
            scale=0.1,
            brightness=0.1,
            contrast=0.2,
            cutout_px=12,
            cutout_probability=0.5,
        ),
        label_smoothing=0.1,
        ema_decay=0.999,
    ),
    # The authors' own schedule (arXiv 1909.13522, released code): random crops and flips only.
    "paper": Recipe(
        epochs=500,
        augmentation=Augmentation(crop_px=44),
        max_lr=0.01,
        nesterov=False,
        schedule="paper",
        grad_clamp=0.1,
    ),
}


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        InputError: No such recipe.
    """
    if name not in RECIPES:
        raise InputError(f"recipe '{name}' is not known: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
