"""Training recipes as data, and the optimiser that a recipe describes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from edgekit.errors import InputError
from edgekit.models.data.augment import Augmentation, ResizedCrop
from edgekit.models.data.camera import Camera

Optimizer = Literal["sgd", "adam", "adamw"]
Schedule = Literal["one-cycle", "warm-epoch-cosine"]
Keep = Literal["best", "last"]
Balance = Literal["none", "sampler"]
_STAGES = 4


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
      `layer_rates`); 0 trains the last layer only and freezes the rest with its BatchNorm statistics.
    - `initial_share`: share of the initial weights in the weights that are evaluated and saved: interpolation of the
      initial and the fine-tuned weights (WiSE-FT, arXiv 2109.01903, equation 1).
    - `clip_norm`: largest norm of the gradient; a larger one is scaled down to it. 0: off.
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
    initial_share: float = 0.0
    balance: Balance = "none"
    patch_dropout: float = 0.0
    keeps_statistics: bool = False
    clip_norm: float = 0.0

    def stage(self, epoch: int) -> tuple[Recipe, int]:
        """Return the recipe of the stage that contains `epoch`, and the epoch's number within that stage.

        Both numbers count from 0. The returned recipe has no `finish`.
        """
        if self.finish is None:
            return self, epoch
        start = self.epochs - round(self.epochs * self.finish.share)
        if epoch < start:
            return replace(self, epochs=start, finish=None), epoch
        # Pictures and labels as in the evaluation, see `Finish`: weak augmentation, no smoothed labels.
        finish = replace(
            self,
            epochs=self.epochs - start,
            max_lr=self.max_lr * self.finish.lr_share,
            augmentation=self.finish.augmentation,
            label_smoothing=0.0,
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
            raise InputError("the recipe trains prompts, not a net: choose another")
        return self.augmentation

    def learning_rate(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step, as the fields `schedule` and `finish` describe.

        `epoch` and `step` count from 0.
        """
        if self.finish is not None:
            stage, epoch_of_stage = self.stage(epoch)
            return stage.learning_rate(epoch_of_stage, step, steps_per_epoch)
        if self.schedule == "warm-epoch-cosine":
            if epoch == 0:
                return self.warmup_lr
            # The cosine starts after the warm epoch and is as long as all epochs, as in Dassl, the library of CoOp. So
            # the last epoch has a rate above 0.
            return self.max_lr * _cosine_decay((epoch - 1) / self.epochs)
        # Share of all steps, including this one: the last step has the rate 0.
        progress = (epoch * steps_per_epoch + step + 1) / (self.epochs * steps_per_epoch)
        if progress < self.warmup:
            return self.max_lr * progress / self.warmup
        return self.max_lr * _cosine_decay((progress - self.warmup) / (1 - self.warmup))


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
    epochs=8,
    augmentation=Augmentation(crop_px=44, brightness=0.1, contrast=0.2, resized=ResizedCrop(min_area=0.35)),
    batch_size=32,
    max_lr=5e-3,
    weight_decay=1e-4,
    warmup=0.1,
    label_smoothing=0.1,
    ema_decay=0.99,
    keep="last",
    keeps_statistics=True,
    clip_norm=1.0,
)

# For a small CLIP on a trained trunk, which is frozen: its feature maps of the plain images are computed once.
_CLIP_MINI = Recipe(
    epochs=24,
    augmentation=Augmentation(crop_px=48),
    batch_size=128,
    max_lr=6e-4,
    weight_decay=0.1,
    warmup=0.1,
    ema_decay=0.999,
    optimizer="adamw",
    betas=(0.9, 0.98),
    eps=1e-6,
    patch_dropout=0.5,
)


RECIPES = {
    "fer2013": _FER2013,
    "camera": _CAMERA,
    "adapt": _ADAPT,
    # The recipe that `adapt` becomes where the initial weights lack some of the classes.
    "adapt-new-classes": replace(_ADAPT, depth_decay=0.5, initial_share=0.0, keep="best"),
    "fine-tune": _FINE_TUNE,
    "hicropl": _PROMPTS,
    "clip-mini": _CLIP_MINI,
}

# The recipe of a training that starts from random weights.
DEFAULT_RECIPE = "fer2013"
# Recipes whose learning rates are for a trained net.
FROM_TRAINED = ("fine-tune", "camera", "adapt", "adapt-new-classes")


def _cosine_decay(progress: float) -> float:
    """Return a factor that falls from 1 to 0 on a cosine while `progress` rises from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        InputError: The name is not known.
    """
    if name not in RECIPES:
        raise InputError(f"recipe '{name}' is not known: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]


def make_optimizer(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    """Return the recipe's optimiser for the trained parameters of `net`.

    SGD and Adam add weight decay to the gradient. AdamW shrinks the weights directly, except for gains, biases and
    scalars, as in CLIP (arXiv 2103.00020).
    """
    if recipe.optimizer == "adam":
        return torch.optim.Adam(
            net.parameters(), lr=recipe.max_lr, betas=recipe.betas, eps=recipe.eps, weight_decay=recipe.weight_decay
        )
    if recipe.optimizer == "adamw":
        learned = [each for each in net.parameters() if each.requires_grad]
        groups = [
            {"params": [each for each in learned if each.ndim >= 2], "weight_decay": recipe.weight_decay},
            {"params": [each for each in learned if each.ndim < 2], "weight_decay": 0.0},  # gains, biases, scalars
        ]
        # Fused is faster, because it reads each parameter once: a small CLIP has a large token embedding.
        return torch.optim.AdamW(
            groups, lr=recipe.max_lr, betas=recipe.betas, eps=recipe.eps, weight_decay=recipe.weight_decay, fused=True
        )
    return torch.optim.SGD(
        net.parameters() if recipe.depth_decay == 1 else _groups_by_depth(recipe, net),
        lr=recipe.max_lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )


def layer_rates(net: nn.Module, depth_decay: float) -> list[tuple[nn.Module, float]]:
    """Return each layer of `net` that has parameters of its own, with its factor of the learning rate.

    The last layer has the factor 1. The layers before it are cut into four stages of equally many layers, from the
    input to the output, with the factors `depth_decay` to the powers 4, 3, 2 and 1.
    """
    *layers, last = (module for module in net.modules() if list(module.parameters(recurse=False)))
    rates = []
    for index, layer in enumerate(layers):
        stage = index * _STAGES // len(layers)  # 0 to 3, from the input
        rates.append((layer, depth_decay ** (_STAGES - stage)))
    return [*rates, (last, 1.0)]


def freeze(net: nn.Module, depth_decay: float, keeps_statistics: bool = False) -> None:
    """Freeze the layers whose learning rate is 0: they get no gradient, and their BatchNorms use running statistics.

    `depth_decay` decides which layers these are, see `layer_rates`. With `keeps_statistics`, all BatchNorms of `net`
    use the running statistics.
    """
    for module in net.modules():
        if keeps_statistics and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    for layer, rate in layer_rates(net, depth_decay):
        if rate == 0:
            # Not `eval`, which would also apply to the layers that this one contains, maybe the last layer.
            layer.training = False
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(False)


def _groups_by_depth(recipe: Recipe, net: nn.Module) -> list[dict[str, Any]]:
    """Return the optimiser's parameter groups, one per layer, each with its factor of the learning rate, `rate`.

    Layers of factor 0 are left out: `freeze` has frozen them.
    """
    return [
        {"params": list(layer.parameters(recurse=False)), "rate": rate}
        for layer, rate in layer_rates(net, recipe.depth_decay)
        if rate > 0
    ]
