"""Time of augmentation on batches of tensors, compared with torchvision on one PIL picture at a time.

    python benchmarks/models/augmentation.py [--images 4096] [--batch 64] [--rounds 7] [--threads N] [--json]

Both sides cut a random 44x44 crop from 48x48 gray pictures, mirror half of them and scale to floats 0..1 of three
channels: edgekit on a batch of uint8 tensors, torchvision on PIL pictures (RandomCrop, RandomHorizontalFlip, ToTensor),
as in the code of EdgeCNN's authors. Both sides use the same pictures and number of threads, in alternating rounds.
Prints time per image and the median of the rounds' ratios.
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
from edgekit.models.training.recipes import RECIPES


def batched(images: torch.Tensor, batch: int, augmentation: Augmentation) -> None:
    generator = torch.Generator().manual_seed(0)
    for part in images.split(batch):
        augment(part, draw(len(part), generator), augmentation).expand(-1, 3, -1, -1).contiguous()


def one_by_one(pictures: list[Image.Image], batch: int) -> None:
    transform = transforms.Compose(
        [transforms.RandomCrop(44), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    for start in range(0, len(pictures), batch):
        torch.stack([transform(picture) for picture in pictures[start : start + batch]])


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
    sides = {
        "batched crop and flip": lambda: batched(images, arguments.batch, RECIPES["paper"].augmentation),
        "batched, recipe fer2013": lambda: batched(images, arguments.batch, RECIPES["fer2013"].augmentation),
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
            f"{figures['times_faster_than_torchvision']:6.1f} x torchvision"
        )


if __name__ == "__main__":
    main()
