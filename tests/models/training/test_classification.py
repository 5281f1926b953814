"""`NetTask`, the base of classification and distillation: label loss and finishing stage."""

from __future__ import annotations

import torch

from edgekit.models.data import DataSet
from edgekit.models.data.augment import Augmentation
from edgekit.models.model_loading import contract_for
from edgekit.models.training.recipes import Finish, Recipe
from edgekit.models.training.task import ClassificationTask


def test_the_finish_shows_pixels_unmoved_and_labels_as_they_are(bars: DataSet) -> None:
    moved = Augmentation(crop_px=48, flip=False, rotation_deg=20, brightness=0.5)
    still = Augmentation(crop_px=48, flip=False)
    recipe = Recipe(epochs=4, augmentation=moved, label_smoothing=0.7, finish=Finish(0.5, 0.1, still))
    contract = contract_for("edgecnn", bars.classes, bars.name, gray=True)
    task = ClassificationTask(contract, recipe, bars.splits["Training"], bars.splits["PublicTest"])
    net = task.build(torch.device("cpu"))
    indices, generator = torch.arange(4), torch.Generator().manual_seed(0)
    pixels = torch.from_numpy(bars.splits["Training"].images[:4]).permute(0, 3, 1, 2) / 255
    sure = torch.nn.functional.one_hot(task.examples.labels[indices], 7) * 100.0
    for epoch, is_still in ((0, False), (1, False), (2, True), (3, True)):
        task.start_epoch(net, epoch)
        shown = task.augmented(indices, task.draw(4, generator))
        assert torch.allclose(shown[:, :1], pixels, atol=1e-6) == is_still
        assert bool(task.label_loss(sure, indices).max() < 1e-3) == is_still
