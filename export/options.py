"""Options of `edgekit.export` and `edgekit.quantize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from edgekit.export.targets import GENERIC, TARGETS
from edgekit.models.callbacks import Notify, StageProgress, ignore_message, ignore_progress
from edgekit.options import Options, option
from edgekit.shared_options import merges

if TYPE_CHECKING:
    from edgekit.models.data import DataSet

Quantization: TypeAlias = Literal["int8", "fp16"]
# Names of new labels; a mapping also has the sentences that describe each label.
NewClasses: TypeAlias = Sequence[str] | Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class ExportOptions(Options):
    """Options of `edgekit.export`.

    Attributes:
        model: A .safetensors checkpoint, a shipped model's name, or a file of trained prompts.
        progress: Called with (stage, done, total or None).
        notify: Called with one line for the user.
    """

    title = "File"
    model: str | Path
    output: str | Path = option(
        "--output", "The .onnx or .ncnn file to write.", short="-o", metavar="FILE", required=True
    )
    _: KW_ONLY
    engine: Literal["onnx", "ncnn"] | None = option(
        "--engine", "Engine of the file: ONNX Runtime or ncnn. Default: by the suffix, .onnx or .ncnn."
    )
    precision: Literal["fp32", "fp16", "auto"] = option(
        "--precision",
        "For an .ncnn file: fp16 computes in half floats on processors that support half floats, such as that of a Pi "
        "5. auto: fp16 if --target is a76, else fp32.",
        default="fp32",
    )
    target: str = option(
        "--target",
        "Processor on which the file will run: a53 (Pi 3B+, Zero 2 W), a72 (Pi 4), a76 (Pi 5), x86 (PC), or generic "
        "(any). It determines the rewrites and the types of int8.",
        default=GENERIC,
        metavar="|".join(TARGETS),
    )
    card: bool = option(
        "--card",
        "Also write README.md, a model card for the Hugging Face Hub, config.json and preprocessor_config.json beside "
        "the file.",
        default=False,
    )
    classes: NewClasses = option(
        "--class",
        "New label for a student of a CLIP or for trained prompts. Repeatable.",
        default=(),
        metavar="NAME",
        parse=str,
        several=True,
        section="Labels",
    )
    classes_file: str | Path | None = option(
        "--classes",
        'New labels with descriptions: {"NAME": ["A sentence.", …], …}.',
        metavar="JSON",
        excludes="--class",
        section="Labels",
    )
    clip: str | None = option(
        "--clip",
        "For --class and --classes: the teacher's CLIP. Default: the file NAME.text.safetensors beside MODEL. For "
        "trained prompts: their CLIP.",
        metavar="FILE|DIR|NAME",
        section="Labels",
    )
    prompts: str | Path | None = option(
        "--prompts", "Prompts of the teacher, if it has prompts.", metavar="FILE|DIR", section="Labels"
    )
    without_ensemble: bool = option(
        "--no-ensemble",
        "For trained prompts: leave out the image tower without prompts.",
        default=False,
        section="Labels",
    )
    merges: Sequence[str] = merges(section="Labels")
    uncertain_below: float | None = option(
        "--uncertain-below",
        "Threshold that is written into the file: with a smaller probability, the label is 'uncertain'. `edgekit eval` "
        "prints the effect of several thresholds. Default: the checkpoint's; 0 with new or merged labels.",
        metavar="P",
        least=0,
        most=1,
        section="Labels",
    )
    evaluate_on: str | Path | DataSet | None = option(
        "--eval",
        "Your images, with which the file is verified. With --quantize, the accuracy is measured before and after.",
        metavar="DATA",
        parse=Path,
        section="Evaluation",
    )
    evaluation_split: str = option(
        "--eval-split",
        "Split of --eval. Default: PrivateTest or test.",
        default="PrivateTest",
        metavar="NAME",
        default_text="",
        needs="--eval",
        section="Evaluation",
    )
    progress: StageProgress = ignore_progress
    notify: Notify = ignore_message


@dataclass(frozen=True, kw_only=True)
class QuantizationOptions(Options):
    """How a file is quantised.

    Attributes:
        calibration_images: Number of calibration images, drawn at random.
    """

    title = "Quantisation"
    method: Quantization | None = option(
        "--quantize",
        "int8: 8-bit weights and activations; needs --calibrate. fp16: half floats, for a Pi 5.",
    )
    calibrate: str | Path | DataSet | None = option(
        "--calibrate", "Data set with the images for int8 calibration.", metavar="DATA", parse=Path, needs="--quantize"
    )
    calibrate_split: str = option(
        "--calibrate-split",
        "Split of the calibration images. Default: Training or train.",
        default="Training",
        metavar="NAME",
        needs="--calibrate",
        default_text="",
    )
    calibration_images: int = 500
    max_drop_points: float = option(
        "--max-drop",
        "With --quantize and --eval: largest drop of the accuracy in percentage points. With a larger drop, the file "
        "is refused (exit code 3).",
        default=0.5,
        metavar="POINTS",
        least=0,
        most=100,
        needs="--quantize",
        section="Evaluation",
    )


@dataclass(frozen=True)
class QuantizeOptions(QuantizationOptions, ExportOptions):
    """Options of `edgekit.quantize`: those of `edgekit.export` and of the quantisation.

    `model` can also be an exported float32 .onnx file, for which `target` only chooses the types of int8.
    """

    method: Quantization = "int8"
