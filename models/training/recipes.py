"""Training recipes: data, not code. A recipe and a seed say everything about a training but the images."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from edgekit.errors import InputError
from edgekit.models.data.augment import Augmentation
from edgekit.models.data.resized_crop import ResizedCrop

Optimizer = Literal["sgd", "adam", "adamw"]
Schedule = Literal["one-cycle", "paper", "warm-epoch-cosine"]
Keep = Literal["best", "last"]


@dataclass(frozen=True)
class Finish:
    """The last part of a training: one more cycle with a learning rate of its own, on pictures nearer to real ones.

    A net that was held back by strong moves, smoothed labels and a high rate has good features and fits its data
    loosely. Shown unmoved pixels and plain labels at a low rate it fits what it will be asked about.

    `share` is that of all epochs; `lr_share` what is left of `max_lr`.
    """

    share: float
    lr_share: float
    augmentation: Augmentation
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How to train.

    `optimizer` "sgd" has `momentum` and `nesterov`, "adam" and "adamw" have `betas` and `eps`. `schedule` "one-cycle"
    warms up linearly over `warmup` of all steps and falls to zero on a cosine; "paper" keeps `max_lr` and, after epoch
    `decay_start`, multiplies it by `decay_rate` every `decay_every` epochs; "warm-epoch-cosine" spends the first epoch
    at `warmup_lr` and falls from `max_lr` on a cosine, epoch by epoch. `grad_clamp` clamps each gradient element.
    `ema_decay` keeps an exponential moving average of the weights, which is what is evaluated and saved; 0 is none.
    `label_smoothing` is left out where the data set brings distributions as targets. `keep` says which epoch's weights
    are the result: the one best on the validation split, or the last.
    """

    epochs: int
    augmentation: Augmentation | ResizedCrop
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
    optimizer: Optimizer = "sgd"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    warmup_lr: float = 1e-5
    keep: Keep = "best"
    finish: Finish | None = None

    def stage(self, epoch: int) -> tuple[Recipe, int]:
        """Return what holds in an epoch, counted from 0, as a recipe without `finish`, and the epoch's number in it."""
        if self.finish is None:
            return self, epoch
        start = self.epochs - round(self.epochs * self.finish.share)
        if epoch < start:
            return replace(self, epochs=start, finish=None), epoch
        finish = replace(
            self,
            epochs=self.epochs - start,
            max_lr=self.max_lr * self.finish.lr_share,
            augmentation=self.finish.augmentation,
            label_smoothing=self.finish.label_smoothing,
            finish=None,
        )
        return finish, epoch - start

    @property
    def plain_augmentation(self) -> Augmentation:
        """The augmentation of pictures that keep their size.

        Raises:
            InputError: The recipe is for prompts, with random parts of a picture enlarged.
        """
        if not isinstance(self.augmentation, Augmentation):
            raise InputError("the recipe is one for prompts: it goes with --model hicropl")
        return self.augmentation

    def learning_rate(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step; `epoch` and `step` count from 0."""
        if self.finish is not None:
            stage, epoch = self.stage(epoch)
            return stage.learning_rate(epoch, step, steps_per_epoch)
        if self.schedule == "paper":
            decays = max(0, epoch - self.decay_start) // self.decay_every
            return self.max_lr * self.decay_rate**decays
        if self.schedule == "warm-epoch-cosine":
            if epoch == 0:
                return self.warmup_lr
            return self.max_lr * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / self.epochs))
        progress = (epoch * steps_per_epoch + step + 1) / (self.epochs * steps_per_epoch)
        if progress < self.warmup:
            return self.max_lr * progress / self.warmup
        return self.max_lr * 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))


# As published (arXiv 2507.14976), in a schedule of 50 epochs for few images a class, of 5 for what shall carry over to
# other data sets. The authors' images are cut anew from the whole picture, here from its central square.
_PROMPTS = Recipe(
    epochs=50,
    augmentation=ResizedCrop(),
    batch_size=32,
    max_lr=2.5e-3,
    weight_decay=5e-4,
    schedule="warm-epoch-cosine",
    optimizer="adam",
    eps=1e-3,
    keep="last",
)

_UNMOVED = Augmentation(crop_px=44)

# Small affine moves and cutout suit a net that under-fits; mixup and stronger moves cost accuracy at this length.
# Moved pixels are blurred pixels: the second half shows them as they are, and labels as they are.
_FER2013 = Recipe(
    epochs=72,
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
    finish=Finish(share=0.5, lr_share=0.12, augmentation=_UNMOVED),
)

RECIPES = {
    "fer2013": _FER2013,
    # Its halves alone: trainings between which teachers change. The second starts from another's weights.
    "fer2013-start": replace(_FER2013, epochs=60, finish=None),
    "fer2013-finish": replace(
        _FER2013, epochs=36, max_lr=0.015, augmentation=_UNMOVED, label_smoothing=0.0, finish=None
    ),
    # The authors' own schedule (arXiv 1909.13522, released code): random crops and flips only.
    "paper": Recipe(
        epochs=500,
        augmentation=_UNMOVED,
        max_lr=0.01,
        nesterov=False,
        schedule="paper",
        grad_clamp=0.1,
    ),
    "hicropl": _PROMPTS,
    "hicropl-short": replace(_PROMPTS, epochs=5),
    # A CLIP from nothing: many epochs, since each shows an image with another caption, and moves as large as a
    # transformer needs that has never seen a picture.
    "clip-mini": Recipe(
        epochs=24,
        augmentation=Augmentation(
            crop_px=48,
            rotation_deg=10,
            scale=0.1,
            brightness=0.1,
            contrast=0.2,
            translation=0.08,
        ),
        batch_size=128,
        max_lr=4e-4,
        weight_decay=0.1,
        warmup=0.1,
        ema_decay=0.999,
        optimizer="adamw",
        betas=(0.9, 0.98),
        eps=1e-6,
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
