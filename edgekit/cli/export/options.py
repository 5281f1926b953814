"""The options of `edgekit export` that choose a target, its rewrites and quantisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from edgekit.cli.export.prompted import ENSEMBLE
from edgekit.cli.options import PATH, SEED, NumberRange
from edgekit.export.onnx.targets import GENERIC, PASSES, TARGETS

_Function = TypeVar("_Function", bound=Callable[..., None])

# What says more of --calibrate, and of --eval.
CALIBRATION = ("calibrate_split", "calibration_images", "calibration_method", "seed")
EVALUATION = ("eval_split", "max_drop")


def target_options(function: _Function) -> _Function:
    """Add --engine, --target, --pass and --no-pass."""
    names, parts = click.Choice(list(PASSES)), click.Choice([*PASSES, ENSEMBLE])
    return _added(
        function,
        click.option(
            "--engine",
            type=click.Choice(["onnx", "ncnn"]),
            default="onnx",
            show_default=True,
            help="What the file is for: ONNX Runtime and its like (.onnx), or ncnn (.ncnn, float32).",
        ),
        click.option(
            "--target",
            "board",
            type=click.Choice(list(TARGETS)),
            default=GENERIC,
            show_default=True,
            help="Processor whose rewrites and quantisation are taken.",
        ),
        click.option("--pass", "passes_on", multiple=True, type=names, help="Do this rewrite too. Repeatable."),
        click.option("--no-pass", "passes_off", multiple=True, type=parts, help="Leave this out. Repeatable."),
    )


def quantize_options(function: _Function) -> _Function:
    """Add --quantize and what belongs to it."""
    return _added(
        function,
        click.option(
            "--quantize",
            "quantization",
            type=click.Choice(["int8", "dynamic", "fp16"]),
            help="int8 is calibrated; dynamic and fp16 make a smaller file that is not faster on a CPU.",
        ),
        click.option("--calibrate", type=PATH, metavar="DATA", help="Images that int8 finds its ranges on."),
        click.option("--calibrate-split", default="Training", show_default=True, metavar="NAME"),
        click.option("--calibration-images", type=click.IntRange(1, 10_000), default=500, show_default=True),
        click.option(
            "--calibration-method",
            type=click.Choice(["minmax", "percentile", "entropy"]),
            default="minmax",
            show_default=True,
        ),
        click.option("--seed", type=SEED, default=0, show_default=True, help="Draws the images to calibrate on."),
        click.option(
            "--types", type=click.Choice(["u8s8", "s8s8"]), help="Activations and weights; default: target's."
        ),
        click.option("--form", type=click.Choice(["qdq", "qoperator"]), help="Form of the file; default: target's."),
        click.option("--eval", "evaluate_on", type=PATH, metavar="DATA", help="Measure accuracy before and after."),
        click.option("--eval-split", default="PrivateTest", show_default=True, metavar="NAME"),
        click.option(
            "--max-drop",
            type=NumberRange(0, 100),
            default=0.5,
            show_default=True,
            metavar="POINTS",
            help="With --eval: refuse a file (exit 3) whose accuracy falls by more percentage points.",
        ),
    )


def _added(function: _Function, *options: Callable[[_Function], _Function]) -> _Function:
    for option in reversed(options):
        function = option(function)
    return function
