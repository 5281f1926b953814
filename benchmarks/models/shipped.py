"""Train the shipped models again, each step in its own folder below -o; a step that is finished is not repeated.

    python benchmarks/models/shipped.py fer2013 --data fer2013.tar.gz --ferplus ferplus_votes.csv -o runs
    python benchmarks/models/shipped.py default --data fer2013.tar.gz --ferplus ferplus_votes.csv --teachers O1 O2 -o r
    python benchmarks/models/shipped.py distilled --data fer2013.tar.gz --ferplus ferplus_votes.csv -o runs

`default` starts from `fer2013`, and `distilled` from `default`. The teachers O1 and O2 of `default` are two nets whose
trainings started from other weights (repository's history, commit 4976ba8c, folder `models/teachers`). --epochs sets
the number of epochs of every training, for a trial. The command prints the file of the model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from average import average
from embed import embed
from prior import adjust_and_calibrate
from votes import keep_targets

from edgekit.models.clip.train_prompts import train_prompts
from edgekit.models.data.augment import Augmentation
from edgekit.models.distill.distillation import distill
from edgekit.models.train import train
from edgekit.models.train_clip import train_clip
from edgekit.models.training.options import DistillOptions, TrainOptions
from edgekit.models.training.recipes import RECIPES

# The two stages of `fer2013` as separate recipes, for another teacher in each; the second starts from trained weights.
RECIPES["fer2013-start"] = replace(RECIPES["fer2013"], epochs=60, finish=None)
RECIPES["fer2013-finish"] = replace(
    RECIPES["fer2013"], epochs=36, max_lr=0.015, augmentation=Augmentation(crop_px=44), label_smoothing=0.0, finish=None
)


class Steps:
    """Trainings with common options, which return the paths of their checkpoints."""

    def __init__(self, data: Path, ferplus: Path, output: Path, epochs: int | None, precision: str) -> None:
        self.data, self.ferplus, self.output = data, ferplus, output
        self._common = {"data": data, "precision": precision, "resume": True, "notify": print}
        self._epochs = {} if epochs is None else {"epochs": epochs}

    def train(self, name: str, prior_strength: float = 0.0, **options: Any) -> str:
        arguments = self._options(name, options)
        path = train(**arguments, calibrate=not prior_strength).checkpoint
        if prior_strength:
            adjust_and_calibrate(path, TrainOptions(**arguments), prior_strength)
        return str(path)

    def distill(self, name: str, teachers: Sequence[str], prior_strength: float = 0.0, **options: Any) -> str:
        arguments = self._options(name, options) | {"teachers": teachers}
        path = distill(**arguments, calibrate=not prior_strength).training.checkpoint
        if prior_strength:
            adjust_and_calibrate(path, DistillOptions(**arguments), prior_strength)
        return str(path)

    def distill_with_votes(self, name: str, teachers: Sequence[str], **options: Any) -> str:
        keep_targets(self.output / name, self.data, self.ferplus, teachers)
        return self.distill(name, teachers, temperature=1.0, **options)

    def clip(self, name: str, **options: Any) -> str:
        return str(train_clip(**self._options(name, options)).checkpoint)

    def prompts(self, name: str, **options: Any) -> str:
        return str(train_prompts(**self._options(name, options)).training.checkpoint)

    def _options(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        return self._common | options | self._epochs | {"output": self.output / name}


def fer2013(steps: Steps) -> Path:
    """Net, student of the net and the FER+ votes, wide student of the student, and a student of both, fine-tuned."""
    start = {"recipe": "fer2013-start", "kl_weight": 0.75, "ce_weight": 0.25}
    first = steps.train("first", recipe="fer2013-start")
    second = steps.distill_with_votes("second", [first], **start)
    wide = steps.distill_with_votes("wide", [second], **start, student="edgecnn-wide", epochs=36, batch_size=128)
    finish = {"recipe": "fer2013-finish", "max_lr": 0.012}
    finished = steps.train("finished", **finish, init=second, epochs=24)
    wide_finished = steps.train("wide-finished", **finish, model="edgecnn-wide", init=wide, epochs=8)
    both = {"recipe": "fer2013-finish", "kl_weight": 0.6, "ce_weight": 0.4}
    return Path(steps.distill_with_votes("fer2013", [finished, wide_finished], **both, init=second))


def default(steps: Steps, teachers: Sequence[str]) -> Path:
    """Average of an average of four nets, trained for cameras, and of two students of it and other nets."""
    votes = {"ferplus": steps.ferplus, "label_weight": 0.15, "recipe": "camera"}
    a = steps.train("a", **votes, init="fer2013", prior_strength=0.1)
    b = steps.train("b", **votes, init=a, prior_strength=0.1, epochs=36, seed=5)
    c = steps.train("c", **votes, init=a, prior_strength=0.1, epochs=36, seed=6)
    d = steps.train("d", **votes, init="fer2013", seed=1)
    first = steps.output / "first.safetensors"
    average([a, d, b, c], first, steps.data, steps.ferplus, notify=print)
    both = {**votes, "init": str(first), "prior_strength": 0.1, "kl_weight": 1.0, "temperature": 1.0, "epochs": 20}
    sources = [str(first), *teachers]
    p = steps.distill("p", sources, **both, ce_weight=0.3, seed=71, precision="fp32")
    q = steps.distill("q", sources, **both, ce_weight=0.1, seed=72, precision="fp32")
    output = steps.output / "default.safetensors"
    average([str(first), p, q], output, steps.data, steps.ferplus, prior_strength=-0.1, notify=print)
    return output


def distilled(steps: Steps) -> Path:
    """`default` in the space of a small CLIP with prompts."""
    teachers = ["default", "fer2013", "fer2013"]
    clip = steps.clip("clip", trunk="default", ferplus=steps.ferplus, teacher=teachers, epochs=6, max_lr=1e-3)
    prompts = steps.prompts("prompts", clip=clip)
    output = steps.output / "distilled.safetensors"
    embed("default", prompts, steps.data, output, clip)
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["fer2013", "default", "distilled"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ferplus", type=Path, required=True)
    parser.add_argument("--teachers", nargs="*", default=[])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--precision", default="bf16")
    given = parser.parse_args()
    steps = Steps(given.data, given.ferplus, given.output, given.epochs, given.precision)
    made = {"fer2013": fer2013, "distilled": distilled}
    print(default(steps, given.teachers) if given.model == "default" else made[given.model](steps))


if __name__ == "__main__":
    main()
