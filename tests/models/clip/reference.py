"""A toy CLIP with prompts from seeds, and the figures of the authors' code for it.

`python -m tests.models.clip.reference FOLDER` prints the figures of the files golden.npz and golden.json. Those of the
size "tiny" are stored in tests/fixtures/golden/hicropl-tiny.json.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.sketch import Array, sketch

# Name, shape, mean and standard deviation of a tensor.
Spec = tuple[str, tuple[int, ...], float, float]

SEED = 20250714
LAYERS, PATCH_PX = 12, 16
N_CTX, DEPTH, CROSS_LAYER = 4, 12, 6
LABELS = (3, 0, 5, 6)
DESCRIPTIONS = {
    "angry": (
        "A face with lowered brows and a hard stare.",
        "Lips pressed together, jaw tight, nostrils wide.",
        "An angry person glares with tense eyelids.",
    ),
    "disgust": (
        "A wrinkled nose and a raised upper lip.",
        "A face that recoils with narrowed eyes.",
        "The mouth corners pulled down in distaste.",
    ),
    "fear": (
        "Wide open eyes and raised, drawn together brows.",
        "A frightened face with lips stretched back.",
        "The mouth is slightly open and the forehead is creased.",
    ),
    "happy": (
        "A smiling face with raised cheeks.",
        "Crinkles at the eye corners and visible teeth.",
        "A happy person with lip corners pulled up.",
    ),
    "sad": (
        "Drooping eyelids and downturned mouth corners.",
        "Inner brows raised, gaze cast down.",
        "A sad face with a trembling lower lip.",
    ),
    "surprise": (
        "Eyebrows raised high and the jaw dropped.",
        "A surprised face with round eyes and an open mouth.",
        "The eyelids are wide apart and the forehead is lined.",
    ),
    "neutral": (
        "A relaxed face without any strong expression.",
        "Lips closed, brows level, eyes calm.",
        "A person looks straight ahead with a blank face.",
    ),
}


@dataclass(frozen=True)
class Sizes:
    vision: int
    text: int
    embed: int
    grid: int


SIZES = {"tiny": Sizes(128, 64, 64, 2), "full": Sizes(768, 512, 512, 4)}


def clip_state(sizes: Sizes) -> dict[str, Array]:
    """Return the weights of the toy CLIP under OpenAI's names."""
    return _drawn(1, _clip_specs(sizes)) | {"logit_scale": np.array(math.log(100), np.float32)}


def prompt_state(sizes: Sizes) -> dict[str, Array]:
    """Return the values of the prompt learner under the authors' names."""
    return _drawn(2, _prompt_specs(sizes))


def images(sizes: Sizes) -> Array:
    """Return four normalised images of noise."""
    side = PATCH_PX * sizes.grid
    return _uniform(3, 0, (len(LABELS), 3, side, side), 0, 1)


def _drawn(group: int, specs: Iterator[Spec]) -> dict[str, Array]:
    return {name: _uniform(group, index, *law) for index, (name, *law) in enumerate(specs)}


def _uniform(group: int, index: int, shape: tuple[int, ...], mean: float, std: float) -> Array:
    """Return uniform values with this mean and standard deviation, of the tensor's own generator."""
    values = np.random.default_rng([SEED, group, index]).random(shape, np.float32) - np.float32(0.5)
    return values * np.float32(2 * math.sqrt(3) * std) + np.float32(mean)


def _clip_specs(sizes: Sizes) -> Iterator[Spec]:
    text, vision = sizes.text, sizes.vision
    yield "positional_embedding", (77, text), 0, 0.01
    yield "text_projection", (text, sizes.embed), 0, text**-0.5
    yield "token_embedding.weight", (49408, text), 0, 0.02
    yield from _norm("ln_final.", text)
    yield "visual.class_embedding", (vision,), 0, vision**-0.5
    yield "visual.positional_embedding", (sizes.grid**2 + 1, vision), 0, vision**-0.5
    yield "visual.proj", (vision, sizes.embed), 0, vision**-0.5
    yield "visual.conv1.weight", (vision, 3, PATCH_PX, PATCH_PX), 0, 0.02
    yield from _norm("visual.ln_pre.", vision)
    yield from _norm("visual.ln_post.", vision)
    for tower, width in (("visual.", vision), ("", text)):
        for layer in range(LAYERS):
            yield from _block(f"{tower}transformer.resblocks.{layer}.", width)


def _block(name: str, width: int) -> Iterator[Spec]:
    residual = width**-0.5 * (2 * LAYERS) ** -0.5
    yield f"{name}attn.in_proj_weight", (3 * width, width), 0, width**-0.5
    yield f"{name}attn.in_proj_bias", (3 * width,), 0, 0.02
    yield f"{name}attn.out_proj.weight", (width, width), 0, residual
    yield f"{name}attn.out_proj.bias", (width,), 0, 0.02
    yield from _norm(f"{name}ln_1.", width)
    yield f"{name}mlp.c_fc.weight", (4 * width, width), 0, (2 * width) ** -0.5
    yield f"{name}mlp.c_fc.bias", (4 * width,), 0, 0.02
    yield f"{name}mlp.c_proj.weight", (width, 4 * width), 0, residual
    yield f"{name}mlp.c_proj.bias", (width,), 0, 0.02
    yield from _norm(f"{name}ln_2.", width)


def _prompt_specs(sizes: Sizes) -> Iterator[Spec]:
    text, vision = sizes.text, sizes.vision
    proxies = {"text": (text, CROSS_LAYER), "visual": (vision, DEPTH - CROSS_LAYER)}
    for side, width in (("text", text), ("visual", vision)):
        for layer in range(DEPTH):
            yield f"cross_prompts_{side}.{layer}", (N_CTX, width), 0, 0.02
    for side, (width, count) in proxies.items():
        for layer in range(count):
            yield f"{side}_proxy_token.{layer}", (1, width), 0, 1.0
    for name, width, other in (("text2visual_net.", vision, text), ("visual2text_net.", text, vision)):
        yield from _attention(f"{name}attn.", width)
        for part, columns in (("q", width), ("k", other), ("v", other)):
            yield from _linear(f"{name}linear_{part}.", width, columns)
        yield from _norm(f"{name}ln_1.", width)
        yield from _linear(f"{name}ffn.c_fc.", 4 * width, width)
        yield from _linear(f"{name}ffn.c_proj.", width, 4 * width)
        yield from _norm(f"{name}ln_2.", width)
    for side, (width, count) in proxies.items():
        for layer in range(count):
            name = f"attn_pooling_{side}_nets.{layer}."
            yield from _attention(f"{name}attn.", width)
            yield from _norm(f"{name}ln_1.", width)
            yield from _norm(f"{name}ln_2.", width)


def _attention(name: str, width: int) -> Iterator[Spec]:
    yield f"{name}in_proj_weight", (3 * width, width), 0, (2 / (4 * width)) ** 0.5
    yield f"{name}in_proj_bias", (3 * width,), 0, 0.02
    yield f"{name}out_proj.weight", (width, width), 0, (3 * width) ** -0.5
    yield f"{name}out_proj.bias", (width,), 0, 0.02


def _norm(name: str, width: int) -> Iterator[Spec]:
    yield f"{name}weight", (width,), 1, 0.1
    yield f"{name}bias", (width,), 0, 0.05


def _linear(name: str, rows: int, columns: int) -> Iterator[Spec]:
    yield f"{name}weight", (rows, columns), 0, (3 * columns) ** -0.5
    yield f"{name}bias", (rows,), 0, 0.02


def figures_of(folder: Path) -> dict[str, Any]:
    """Return the figures of a folder with golden.npz and golden.json; gradients are the same at both learning rates."""
    facts = json.loads((folder / "golden.json").read_text())
    norms = facts["paper_lr/grad_norm"]
    with np.load(folder / "golden.npz") as file:
        arrays = {name: file[name] for name in file if _is_compared(name)}
    return {
        "trained_values": facts["n_trainable"],
        "losses": {run: facts[f"{run}/losses"] for run in ("paper_warmup", "paper_lr")},
        # In the order of the names; 0: no gradient.
        "gradient_norms": [float(f"{norms[name] or 0:.6g}") for name in sorted(norms)],
        "projections": {name.replace("_lr/grad/", "/grad/"): sketch(array) for name, array in arrays.items()},
    }


def _is_compared(name: str) -> bool:
    """Return whether an array of golden.npz is of the paper's method; others are of the authors' released code."""
    others = ("upstream", "logits_eval_2", "logits_eval_5", "logits_prompted_only_1", "images", "labels")
    return not name.startswith(others) and "_warmup/grad/" not in name


if __name__ == "__main__":
    print(json.dumps(figures_of(Path(sys.argv[1]))))
