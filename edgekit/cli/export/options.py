"""Option groups of `edgekit export`, and the rules for combining them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import section
from edgekit.cli.options import PATH, SEED, NumberRange, combined, refuse_unused
from edgekit.errors import InputError
from edgekit.export.onnx.targets import GENERIC, PASSES, TARGETS

if TYPE_CHECKING:
    from edgekit.export.onnx.relabelling import NewClasses

# The frozen tower of trained prompts, which --no-pass can leave out.
ENSEMBLE = "ensemble"
# Options that need --quantize, --calibrate, and --eval.
_QUANTIZATION = ("calibrate", "types", "form", "max_drop_points")
_CALIBRATION = ("calibrate_split", "calibration_images", "calibration_method", "seed")
_EVALUATION = ("evaluation_split", "max_drop_points")


# --engine, --precision, --target, --pass and --no-pass.
target_options = combined(
    section(
        "File",
        click.option(
            "--engine",
            type=click.Choice(["onnx", "ncnn"]),
            default="onnx",
            show_default=True,
            help="Engine of the file: ONNX Runtime (.onnx) or ncnn (.ncnn).",
        ),
        click.option(
            "--precision",
            type=click.Choice(["fp32", "fp16", "auto"]),
            default="fp32",
            show_default=True,
            help="With --engine ncnn, fp16 computes in half floats on processors that support half floats, such as "
            "that of a Pi 5. auto: fp16 if --target is a76, else fp32.",
        ),
    ),
    section(
        "Rewrites",
        click.option(
            "--target",
            type=click.Choice(list(TARGETS)),
            default=GENERIC,
            show_default=True,
            help="Processor on which the file will run: a53 (Pi 3B+, Zero 2 W), a72 (Pi 4), a76 (Pi 5), x86 (PC), or "
            "generic (any). It determines the rewrites and the form of int8.",
        ),
        click.option(
            "--pass",
            "passes",
            multiple=True,
            type=click.Choice(list(PASSES)),
            metavar="REWRITE",
            help=f"Add a rewrite: {', '.join(PASSES)}. Repeatable.",
        ),
        click.option(
            "--no-pass",
            "passes_off",
            multiple=True,
            type=click.Choice([*PASSES, ENSEMBLE]),
            metavar="REWRITE",
            help=f"Leave out a rewrite or, for trained prompts, the {ENSEMBLE}. Repeatable.",
        ),
    ),
)
# --quantize, the options of quantisation, and those of the accuracy limit for the quantised file.
quantize_options = combined(
    section(
        "Quantisation",
        click.option(
            "--quantize",
            "method",
            type=click.Choice(["int8", "dynamic", "fp16"]),
            help="int8: 8-bit weights and activations; needs --calibrate. dynamic: 8-bit weights, without "
            "calibration. fp16: half floats, for a Pi 5.",
        ),
        click.option("--calibrate", type=PATH, metavar="DATA", help="Data set with the images for int8 calibration."),
        click.option(
            "--calibrate-split",
            default="Training",
            metavar="NAME",
            help="Split of the calibration images. Default: Training or train.",
        ),
        click.option(
            "--calibration-images",
            type=click.IntRange(1, 10_000),
            default=500,
            show_default=True,
            metavar="N",
            help="Number of calibration images.",
        ),
        click.option(
            "--calibration-method",
            type=click.Choice(["minmax", "percentile", "entropy"]),
            default="minmax",
            show_default=True,
            help="Method that derives the range of an activation from its values.",
        ),
        click.option(
            "--seed",
            type=SEED,
            default=0,
            show_default=True,
            metavar="N",
            help="Determines the choice of calibration images.",
        ),
        click.option(
            "--types",
            type=click.Choice(["u8s8", "s8s8"]),
            help="Types of activations and weights in int8. Default: the target's.",
        ),
        click.option(
            "--form", type=click.Choice(["qdq", "qoperator"]), help="Form of the int8 file. Default: the target's."
        ),
    ),
    section(
        "Evaluation",
        click.option(
            "--eval",
            "evaluate_on",
            type=PATH,
            metavar="DATA",
            help="Your images. The exported file is verified with these images, from image file to label. With "
            "--quantize, the accuracy is measured before and after quantisation.",
        ),
        click.option(
            "--eval-split",
            "evaluation_split",
            default="PrivateTest",
            metavar="NAME",
            help="Split of --eval. Default: PrivateTest or test.",
        ),
        click.option(
            "--max-drop",
            "max_drop_points",
            type=NumberRange(0, 100),
            default=0.5,
            show_default=True,
            metavar="POINTS",
            help="With --quantize and --eval: largest drop of the accuracy in percentage points. With a larger drop, "
            "the file is refused (exit code 3).",
        ),
    ),
)


def check_combination(context: click.Context, options: Mapping[str, Any], is_prompts: bool) -> None:
    """Check what `edgekit.export` and `edgekit.quantize` do not check, because they do not get all of the options.

    Args:
        context: The context of `edgekit export`.
        options: The command's options by parameter name.
        is_prompts: Whether the model is a file of trained prompts.

    Raises:
        InputError: An option does not fit the others or the model.
        click.UsageError: An option needs another one.
    """
    method, is_ncnn, without_ensemble = (
        options["method"],
        options["engine"] == "ncnn",
        ENSEMBLE in options["passes_off"],
    )
    if options["class_names"] and options["classes_file"]:
        raise InputError("--class and --classes both set the labels: give one of them")
    if method is None:
        refuse_unused(context, _QUANTIZATION, "has no effect without --quantize")
    if options["calibrate"] is None:
        refuse_unused(context, _CALIBRATION, "has no effect without --calibrate")
    if options["evaluate_on"] is None:
        refuse_unused(context, _EVALUATION, "has no effect without --eval")
    if options["precision"] != "fp32" and not is_ncnn:
        raise InputError("--precision is for --engine ncnn: leave it out (--quantize fp16 is for ONNX Runtime)")
    if method is not None and (is_ncnn or is_prompts):
        raise InputError("--quantize is for nets on ONNX Runtime: leave it out (for ncnn, see --precision fp16)")
    if is_prompts and is_ncnn:
        raise InputError("trained prompts run on ONNX Runtime only: leave --engine out")
    if is_prompts and options["evaluate_on"] and not without_ensemble:
        raise InputError(f"--eval of prompts needs --no-pass {ENSEMBLE}: add it, or run 'edgekit eval FILE'")
    if without_ensemble and not is_prompts:
        raise InputError(f"--no-pass {ENSEMBLE} is for trained prompts: leave it out")


# Parameters with the names of arguments of `edgekit.export` or `edgekit.quantize`.
_OF_ALL = ("target", "passes", "merges", "clip", "prompts", "uncertain_below")
_OF_NETS = ("evaluate_on", "evaluation_split", "precision")
_OF_QUANTIZE = (
    "method", "calibrate", "calibrate_split", "calibration_images", "calibration_method", "seed", "types", "form",
    "evaluate_on", "evaluation_split", "max_drop_points",
)  # fmt: skip


def export_arguments(options: Mapping[str, Any], classes: NewClasses, is_prompts: bool) -> dict[str, Any]:
    """Return the arguments of `edgekit.quantize` with --quantize, else those of `edgekit.export`."""
    own = _OF_QUANTIZE if options["method"] else () if is_prompts else _OF_NETS
    arguments: dict[str, Any] = {name: options[name] for name in (*_OF_ALL, *own)}
    if is_prompts:
        arguments |= {
            "ensemble": ENSEMBLE not in options["passes_off"],
            "compare_on": options["evaluate_on"],
            "compare_split": options["evaluation_split"],
        }
    return arguments | {"without": [name for name in options["passes_off"] if name != ENSEMBLE], "classes": classes}
