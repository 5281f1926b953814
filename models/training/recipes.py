"""Training recipes as data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from edgekit.errors import InputError
from edgekit.models.data.augment import Augmentation
from edgekit.models.data.camera import Camera
from edgekit.models.data.resized_crop import ResizedCrop

Optimizer = Literal["sgd", "adam", "adamw"]
Schedule = Literal["one-cycle", "warm-epoch-cosine"]
Keep = Literal["best", "last"]
Balance = Literal["none", "sampler"]


@dataclass(frozen=True)
class Finish:
    """Second stage of a training: another learning-rate cycle, with weaker augmentation.

    A net trained with strong augmentation, label smoothing and a high learning rate has good features but underfits.
    Fine-tuning without affine augmentation or label smoothing, at a low learning rate, matches the evaluation
    distribution.

    `share` is the fraction of all epochs; `lr_share` is the fraction of `max_lr`.
    """

    share: float
    lr_share: float
    augmentation: Augmentation
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of a training.

    - `optimizer`: "sgd" uses `momentum` and `nesterov`; "adam" and "adamw" use `betas` and `eps`.
    - `schedule`: "one-cycle" rises linearly over the fraction `warmup` of all steps and falls to zero on a cosine.
      "warm-epoch-cosine" spends the first epoch at `warmup_lr` and falls from `max_lr` on a cosine, once per epoch.
    - `label_smoothing` is not applied where the data set has target distributions.
    - `ema_decay`: decay of the exponential moving average of the weights, which is evaluated and saved; 0: off.
    - `keep`: the weights to save: those of the epoch with the highest validation accuracy, or those of the last epoch.
    - `patience`: stop after this many epochs without a better one on the validation images; 0: off.
    - `depth_decay` ("sgd" only): factor of the learning rate per stage below the last layer (see
      `optimizer.layer_rates`); 0 trains the last layer only and freezes the rest with its BatchNorm statistics.
    - `frozen` ("sgd" only): share of the layers, from the input, that do not learn.
    - `initial_share`: share of the initial weights in the weights that are evaluated and saved: interpolation of the
      initial and the fine-tuned weights (WiSE-FT, arXiv 2109.01903, equation 1).
    - `balance`: "sampler" draws each class equally often.
    - `keeps_statistics`: BatchNorm normalises with the statistics of the initial weights. Those of small batches differ
      from them, and the averages would follow them only after thousands of steps.
    - `patch_dropout` (small CLIPs only): share of the image tokens that are left out (arXiv 2212.00794), except in the
      last quarter of the epochs.
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
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    optimizer: Optimizer = "sgd"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    warmup_lr: float = 1e-5
    keep: Keep = "best"
    finish: Finish | None = None
    patience: int = 0
    depth_decay: float = 1.0
    frozen: float = 0.0
    initial_share: float = 0.0
    balance: Balance = "none"
    patch_dropout: float = 0.0
    keeps_statistics: bool = False

    def stage(self, epoch: int) -> tuple[Recipe, int]:
        """Return the recipe of the stage that contains `epoch`, and the epoch's number within that stage.

        Both numbers count from 0. The returned recipe has no `finish`.
        """
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
        """The augmentation of a recipe for nets.

        Raises:
            InputError: The recipe trains prompts, with random resized crops.
        """
        if not isinstance(self.augmentation, Augmentation):
            raise InputError("the recipe trains prompts: use it with 'edgekit train-prompts'")
        return self.augmentation

    def learning_rate(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step; `epoch` and `step` count from 0."""
        if self.finish is not None:
            stage, epoch = self.stage(epoch)
            return stage.learning_rate(epoch, step, steps_per_epoch)
        if self.schedule == "warm-epoch-cosine":
            if epoch == 0:
                return self.warmup_lr
            return self.max_lr * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / self.epochs))
        progress = (epoch * steps_per_epoch + step + 1) / (self.epochs * steps_per_epoch)
        if progress < self.warmup:
            return self.max_lr * progress / self.warmup
        return self.max_lr * 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))


# As published (arXiv 2507.14976): 50 epochs for few-shot training; `train_prompts` trains 5 for other tasks.
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

_CROP_AND_FLIP = Augmentation(crop_px=44)

# Weak affine augmentation and cutout, because the net underfits: stronger augmentation costs accuracy. The finish has
# no affine augmentation, which blurs images of 48 px.
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
    finish=Finish(share=0.5, lr_share=0.12, augmentation=_CROP_AND_FLIP),
)

# For faces in front of a camera, from the weights of `fer2013`; the last third has plain pixels, as FER-2013's finish.
_CAMERA = Recipe(
    epochs=12,
    augmentation=replace(
        _CROP_AND_FLIP,
        camera=Camera(
            probability=0.5,
            framing_shift=0.06,
            framing_scale=0.08,
            blur_px=1.2,
            least_resolution=0.5,
            noise=0.04,
            least_quality=20,
            gamma=0.6,
            gain=0.2,
            shading=0.3,
        ),
    ),
    max_lr=0.012,
    ema_decay=0.999,
    keep="last",
    finish=Finish(share=1 / 3, lr_share=0.5, augmentation=_CROP_AND_FLIP),
)

# For 8 to 500 images per class. The last layer alone learns, and 40 % of what it learns is kept: lower layers that
# learn gain little on the new images and lose on the old ones. A few validation images choose a worse epoch than the
# last one, so they only end the training.
_ADAPT = Recipe(
    epochs=40,
    augmentation=_CROP_AND_FLIP,
    batch_size=32,
    max_lr=0.1,
    weight_decay=0.0,
    keep="last",
    patience=15,
    depth_decay=0.0,
    initial_share=0.6,
    balance="sampler",
)

# For a net that others have trained on photographs; its last layer is fitted first, see `linear_layer`.
# Adam's steps stay large where gradients are small and random, as after the fit: they cost up to five points.
_FINE_TUNE = Recipe(
    epochs=6,
    augmentation=Augmentation(crop_px=44, brightness=0.1, contrast=0.2, resized=ResizedCrop(min_area=0.35)),
    batch_size=32,
    max_lr=5e-3,
    weight_decay=1e-4,
    warmup=0.1,
    label_smoothing=0.1,
    ema_decay=0.99,
    keep="last",
    frozen=0.3,
    keeps_statistics=True,
)

# For a CLIP with random initial weights: each epoch pairs an image with another caption, and a transformer needs
# translation beyond the crop.
_CLIP_MINI = Recipe(
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
)


RECIPES = {
    "fer2013": _FER2013,
    # The two stages as separate recipes, for distillation with a different teacher in each. The second needs --init.
    "fer2013-start": replace(_FER2013, epochs=60, finish=None),
    "fer2013-finish": replace(
        _FER2013, epochs=36, max_lr=0.015, augmentation=_CROP_AND_FLIP, label_smoothing=0.0, finish=None
    ),
    "camera": _CAMERA,
    "adapt": _ADAPT,
    # The recipe that `adapt` becomes where the initial weights lack some of the classes.
    "adapt-new-classes": replace(_ADAPT, depth_decay=0.5, initial_share=0.0, keep="best"),
    "fine-tune": _FINE_TUNE,
    "hicropl": _PROMPTS,
    "clip-mini": _CLIP_MINI,
    # For a small CLIP on a trained trunk, which is frozen: its feature maps of the plain images are computed once.
    "clip-mini-trunk": replace(_CLIP_MINI, augmentation=Augmentation(crop_px=48), max_lr=6e-4, patch_dropout=0.5),
}

# The recipe of a training that starts from random weights.
DEFAULT_RECIPE = "fer2013"
# Recipes whose learning rates are for a trained net.
FROM_TRAINED = ("fine-tune", "fer2013-finish", "camera", "adapt", "adapt-new-classes")


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        InputError: The name is not known.
    """
    if name not in RECIPES:
        raise InputError(f"recipe '{name}' is not known: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
