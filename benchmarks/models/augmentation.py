"""Time of augmentation on batches of tensors, compared with torchvision on one PIL picture at a time.

    python benchmarks/models/augmentation.py [--images 4096] [--batch 64] [--rounds 7] [--threads N] [--json]

Both sides cut a random 44x44 crop from 48x48 gray pictures, mirror half of them and scale to floats 0..1 of three
channels: edgekit on a batch of uint8 tensors, torchvision on PIL pictures (RandomCrop, RandomHorizontalFlip, ToTensor),
as in the code of EdgeCNN's authors. All use the same pictures and number of threads, in alternating rounds. Prints time
per image, the median of the rounds' ratios, and the share of a training step of EdgeCNN in float32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from edgekit.models.data.augment import Augmentation, augment, draw
from edgekit.models.nets.registry import create_model
from edgekit.models.training.recipes import RECIPES


def batched(images: torch.Tensor, batch: int, augmentation: Augmentation) -> None:
    generator = torch.Generator().manual_seed(0)
    for part in images.split(batch):
        augment(part, draw(len(part), generator, augmentation), augmentation).expand(-1, 3, -1, -1).contiguous()


def one_by_one(pictures: list[Image.Image], batch: int) -> None:
    transform = transforms.Compose(
        [transforms.RandomCrop(44), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    for start in range(0, len(pictures), batch):
        torch.stack([transform(picture) for picture in pictures[start : start + batch]])


class TrainingStep:
    """Steps of EdgeCNN on random images, as the training loop takes them."""

    def __init__(self, batch: int) -> None:
        self._net = create_model("edgecnn", 7).to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.SGD(self._net.parameters(), lr=0.0, momentum=0.9)
        self._images = torch.rand(batch, 3, 44, 44).contiguous(memory_format=torch.channels_last)
        self._labels = torch.arange(batch) % 7

    def __call__(self, images: int) -> None:
        for _ in range(images // len(self._labels)):
            loss = torch.nn.functional.cross_entropy(self._net(self._images), self._labels)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pixels = np.random.default_rng(0).integers(0, 256, (arguments.images, 48, 48), dtype=np.uint8)
    images = torch.from_numpy(pixels)[:, None]
    pictures = [Image.fromarray(image).convert("RGB") for image in pixels]
    step = TrainingStep(arguments.batch)
    sides = {
        "batched crop and flip": lambda: batched(images, arguments.batch, RECIPES["paper"].augmentation),
        "batched, recipe fer2013": lambda: batched(images, arguments.batch, RECIPES["fer2013"].augmentation),
        "batched, recipe camera": lambda: batched(images, arguments.batch, RECIPES["camera"].augmentation),
        "training step of edgecnn": lambda: step(arguments.images),
        "torchvision on PIL": lambda: one_by_one(pictures, arguments.batch),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(arguments.rounds + 1):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if round_number:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    result = {
        name: {
            "us_per_image": statistics.median(times) / arguments.images * 1e6,
            "times_faster_than_torchvision": statistics.median(
                reference / own for reference, own in zip(seconds["torchvision on PIL"], times, strict=True)
            ),
            "share_of_a_training_step": statistics.median(
                own / reference for reference, own in zip(seconds["training step of edgecnn"], times, strict=True)
            ),
        }
        for name, times in seconds.items()
    }
    if arguments.json:
        print(json.dumps({"threads": arguments.threads, "batch": arguments.batch, "sides": result}, indent=2))
        return
    print(f"{arguments.images} images, batches of {arguments.batch}, {arguments.threads} threads")
    for name, figures in result.items():
        print(
            f"{name:26} {figures['us_per_image']:8.1f} us/image  "
            f"{figures['times_faster_than_torchvision']:6.1f} x torchvision  "
            f"{figures['share_of_a_training_step']:6.1%} of a training step"
        )


if __name__ == "__main__":
    main()
