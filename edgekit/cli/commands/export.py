"""`edgekit export`: a checkpoint in, one self-describing file out, ONNX or for ncnn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.export.options import CALIBRATION, EVALUATION, quantize_options, target_options
from edgekit.cli.export.prompted import ENSEMBLE, export_prompted, refuse_foreign
from edgekit.cli.options import PATH, refuse_unused
from edgekit.cli.output import Output, common_options
from edgekit.errors import InputError
from edgekit.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgekit.export.onnx.to_onnx import Exported, Relabel
    from edgekit.export.quantization.gate import QuantizedExport
    from edgekit.models.checkpoints.checkpoint import Checkpoint
    from edgekit.models.clip.descriptions import Descriptions
    from edgekit.models.data.merging import Merges


@click.command("export", short_help="Export a checkpoint to one file.")
@click.argument("model")
@click.option("-o", "--output", type=PATH, required=True, help="The .onnx or .ncnn file to write.")
@click.option("--class", "class_names", multiple=True, metavar="NAME", help="A label of its own, for a CLIP's student.")
@click.option(
    "--classes",
    "classes_file",
    type=PATH,
    metavar="JSON",
    help='Several at once, with descriptions: {"NAME": ["A sentence.", …], …}.',
)
@click.option("--clip", metavar="FILE|NAME", help="The teacher's CLIP, for --class and --classes.")
@click.option("--prompts", type=PATH, metavar="FILE", help="The teacher's prompts, if it had some.")
@click.option("--merge", "merges", multiple=True, metavar="NEW=OLD,OLD", help="One label in the place of old ones.")
@target_options
@quantize_options
@common_options
def command(
    out: Output,
    model: str,
    output: Path,
    class_names: tuple[str, ...],
    classes_file: Path | None,
    clip: str | None,
    prompts: Path | None,
    merges: tuple[str, ...],
    engine: str,
    board: str,
    passes_on: tuple[str, ...],
    passes_off: tuple[str, ...],
    quantization: str | None,
    **quantizing: Any,
) -> None:
    """Export MODEL, a .safetensors checkpoint, `default` or `distilled`, to one file that says all about itself.

    The file takes any batch size, is rewritten without changing its answers as the target or --pass say, and is written
    only after it answered as the checkpoint does on face crops. The same checkpoint and options give the same bytes.

    With --quantize int8 --calibrate DATA weights and activations get eight bits. --eval DATA then measures both files
    with the runtime's code; where accuracy falls by more than --max-drop the file is kept under another name, exit 3.

    With --engine ncnn the file is one for ncnn, converted from the same ONNX file by pnnx.

    --merge puts labels together without training: the probability of the new one is the sum of theirs. Labels that
    no --merge names are left out. A student of a CLIP can also be given new labels by text (--class), which the
    teacher's text tower encodes here and the file needs no more.

    MODEL may also be a file of trained prompts (--clip): its image tower with the prompts baked in, the tower without
    them for the ensemble, and the text side as a matrix. --no-pass ensemble leaves the second tower out and says what
    that costs, with --eval in accuracy too.

    \b
    Examples:
      edgekit export runs/mine/best.safetensors -o mine.onnx
      edgekit export default -o default.onnx --json
      edgekit export default -o a53.onnx --target a53
      edgekit export default -o small.onnx --target x86 --no-pass uint8-input
      edgekit export default -o mine.ncnn --engine ncnn
      edgekit export default -o int8.onnx --target a53 --quantize int8 --calibrate fer2013.tar.gz --eval fer2013.tar.gz
      edgekit export runs/student/best.safetensors --class "smiling face" --class "other face" --clip clip.pt -o s.onnx
      edgekit export default --merge positive=happy --merge negative=angry,disgust,fear,sad -o moods.onnx
      edgekit export runs/prompts/best.safetensors --clip ViT-B-16.pt -o clip.onnx
      edgekit export runs/prompts/best.safetensors --clip clip.pt --no-pass ensemble --eval faces -o clip.onnx
    """
    from dataclasses import asdict

    from edgekit.files import remove_leftovers, sha256_of
    from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
    from edgekit.models.clip.checkpoint import is_prompts_file

    labelling = [
        flag for flag, value in (("--class", class_names), ("--classes", classes_file), ("--merge", merges)) if value
    ]
    if len(labelling) > 1:
        raise InputError(f"{' and '.join(labelling)} both say the labels: give one of them")
    context = click.get_current_context()
    if quantizing["calibrate"] is None:
        refuse_unused(context, CALIBRATION, "goes with --calibrate")
    if quantizing["evaluate_on"] is None:
        refuse_unused(context, EVALUATION, "goes with --eval")
    checkpoint = resolve_model(model, (CHECKPOINT_SUFFIX,))
    remove_leftovers(output)
    if is_prompts_file(checkpoint):
        foreign: dict[str, object] = {
            "--merge": merges,
            "--prompts": prompts,
            "--pass": passes_on,
            "--quantize": quantization,
        }
        foreign |= {f"--{name}": quantizing[name] for name in ("calibrate", "types", "form")}
        foreign["--engine ncnn"] = engine == "ncnn"
        refuse_foreign(foreign, board, passes_off)
        descriptions = _descriptions(out, class_names, classes_file) if class_names or classes_file else None
        measured_on = (quantizing["evaluate_on"], quantizing["eval_split"]) if quantizing["evaluate_on"] else None
        export_prompted(out, checkpoint, output, clip, descriptions, ENSEMBLE not in passes_off, measured_on)
        return
    if ENSEMBLE in passes_off:
        raise InputError(f"--no-pass {ENSEMBLE} is for trained prompts: leave it out")
    if (clip or prompts) and not (class_names or classes_file):
        raise InputError("--clip and --prompts are for new classes: give some with --class or --classes")
    _check_quantizing(quantization, quantizing)
    if engine == "ncnn" and quantization is not None:
        raise InputError("--engine ncnn makes float32 files: leave --quantize out")
    from edgekit.export.onnx.targets import chosen_passes

    passes = chosen_passes(board, passes_on, passes_off, quantization is not None, engine == "ncnn")
    relabel: Relabel | None = None
    if merges:
        relabel = _merging(merges, out)
    elif class_names or classes_file:
        relabel = _describing(_descriptions(out, class_names, classes_file), clip, prompts)
    quantized: QuantizedExport | None = None
    if quantization is None:
        with out.progress_console.status("exporting"):
            exported = _exporter(engine)(checkpoint, output, relabel, passes)
    else:
        given = {**quantizing, "merges": merges}
        exported, quantized = _quantized(out, checkpoint, output, relabel, passes, board, quantization, given)
    verification, cost = exported.verification, exported.cost
    size_bytes = quantized.size_bytes if quantized else exported.size_bytes
    sha256 = sha256_of(output)
    form = "for ncnn" if exported.opset is None else f"opset {exported.opset}, IR {exported.ir_version}"
    out.say(f"{output}: {size_bytes:,} bytes, {form}")
    out.say(f"sha256 {sha256}")
    if relabel:
        out.say(one_line(f"labels: {', '.join(exported.contract.labels)}"))
    out.say(
        f"{'in float32 ' * (quantized is not None)}verified on {verification.crops} face crops: max abs difference of "
        f"logits to torch {verification.max_abs_difference:.1e} (allowed: below {verification.tolerance:.0e})"
    )
    folded = " with BatchNorm folded" * ("fold-batchnorm" in passes)
    macs = "unknown" if cost.macs is None else f"{cost.macs:,}"
    out.say(
        f"{exported.net_parameters:,} parameters in the net, {cost.parameters:,} in the file{folded}, "
        f"{macs} multiply-accumulates"
    )
    if set(passes) != set(chosen_passes("generic")):
        out.say(f"rewrites: {', '.join(f'{name} ({count})' for name, count in exported.changed.items())}")
    if quantized:
        _say_gated(out, quantized, exported)
    out.result(
        {
            "path": str(output),
            "checkpoint": str(checkpoint),
            "engine": engine,
            "target": board,
            "rewrites": dict(exported.changed),
            "sha256": sha256,
            "size_bytes": size_bytes,
            "opset": exported.opset,
            "ir_version": exported.ir_version,
            "verification": asdict(verification),
            "net_parameters": exported.net_parameters,
            "parameters": cost.parameters,
            "macs": cost.macs,
            "quantization": None if quantized is None else _document(quantized, exported),
            "contract": asdict(quantized.contract if quantized else exported.contract),
        }
    )


def _exporter(engine: str) -> Callable[..., Exported]:
    if engine == "ncnn":
        from edgekit.export.ncnn.to_ncnn import export_to_ncnn

        return export_to_ncnn
    from edgekit.export.onnx.to_onnx import export_checkpoint

    return export_checkpoint


def _check_quantizing(quantization: str | None, given: dict[str, Any]) -> None:
    if quantization is None and (given["calibrate"] or given["evaluate_on"]):
        raise InputError("--calibrate and --eval are for a quantised file: choose one with --quantize")
    if quantization == "int8" and given["calibrate"] is None:
        raise InputError("--quantize int8 finds its ranges on real images: name a data set with --calibrate")
    if quantization in ("dynamic", "fp16") and given["calibrate"]:
        raise InputError(f"--quantize {quantization} needs no images: leave --calibrate out")
    if quantization != "int8" and (given["types"] or given["form"]):
        raise InputError("--types and --form are for --quantize int8: leave them out")


def _quantized(
    out: Output,
    checkpoint: Path,
    output: Path,
    relabel: Relabel | None,
    passes: frozenset[str],
    board: str,
    quantization: Any,
    given: dict[str, Any],
) -> tuple[Exported, QuantizedExport]:
    import tempfile

    from edgekit.cli.progress import counted, progress_bar
    from edgekit.export.onnx.targets import TARGETS
    from edgekit.export.onnx.to_onnx import check_target, export_checkpoint
    from edgekit.export.quantization.gate import calibration_crops, quantize_file
    from edgekit.export.quantization.quantize import StaticSettings
    from edgekit.models.checkpoints.checkpoint import load_checkpoint
    from edgekit.models.data.merging import merge_classes, parse_merges
    from edgekit.models.data.readers import load_dataset

    check_target(output)
    side_px = load_checkpoint(checkpoint).contract.crop.resize_hw[0]
    preset = TARGETS[board]
    settings = StaticSettings(given["types"] or preset.types, given["form"] or preset.form, given["calibration_method"])
    with tempfile.TemporaryDirectory() as folder, progress_bar(out) as progress:
        uses = ((given["calibrate"], given["calibrate_split"]), (given["evaluate_on"], given["eval_split"]))
        data = {}
        for path in dict.fromkeys(path for path, _ in uses if path):
            data[path] = load_dataset(path, side_px, counted(progress, f"reading {path.name}"))
            for used, split in uses:
                if used == path:
                    data[path].split(split)  # one that is not there is said before anything else is done
        exporting = counted(progress, "exporting")
        exported = export_checkpoint(checkpoint, Path(folder) / "float32.onnx", relabel, passes)
        exporting(1, 1)
        calibration = None
        if given["calibrate"]:
            calibration = calibration_crops(
                data[given["calibrate"]],
                given["calibrate_split"],
                exported.contract,
                given["calibration_images"],
                given["seed"],
            )
        evaluation = None
        if given["evaluate_on"]:
            measured_on = data[given["evaluate_on"]]
            if given["merges"]:
                measured_on = merge_classes(measured_on, parse_merges(given["merges"], measured_on.classes))
            evaluation = (measured_on, given["eval_split"])
        quantized = quantize_file(
            exported.path,
            output,
            quantization,
            settings,
            calibration,
            evaluation,
            given["max_drop"],
            lambda description: counted(progress, description),
        )
    return exported, quantized


def _say_gated(out: Output, quantized: QuantizedExport, exported: Exported) -> None:
    share = quantized.size_bytes / exported.size_bytes
    out.say(f"{quantized.contract.precision}: {share:.1%} of the float32 file's size")
    if quantized.contract.calibration:
        out.say(f"calibration: {quantized.contract.calibration}")
    if quantized.contract.precision == "float16" or quantized.error is None:
        out.say("no gain in speed was found for this on a CPU: it saves space")
    if quantized.error is not None:
        alone = ", ".join(f"{error:.3f} with {name} in float32" for name, error in quantized.error_without.items())
        out.say(f"logits change by {quantized.error:.3f} of their root mean square ({alone})")
    if quantized.reference and quantized.own:
        out.say(
            f"accuracy {quantized.own.accuracy:.2%}, float32 {quantized.reference.accuracy:.2%} "
            f"({quantized.own.correct} and {quantized.reference.correct} of {quantized.own.total}): "
            f"{quantized.drop_points:+.2f} points of drop, at graph optimisation level '{quantized.contract.verified_level}'"
        )


def _document(quantized: QuantizedExport, exported: Exported) -> dict[str, Any]:
    measured = quantized.reference and quantized.own and (quantized.reference, quantized.own)
    return {
        "size_share": quantized.size_bytes / exported.size_bytes,
        "error": quantized.error,
        "error_without": quantized.error_without,
        "kept_in_float32": list(quantized.kept),
        "accuracy": measured[1].accuracy if measured else None,
        "accuracy_float32": measured[0].accuracy if measured else None,
        "drop_points": quantized.drop_points,
    }


def _merging(texts: tuple[str, ...], out: Output) -> Relabel:
    from edgekit.models.data.merging import parse_merges, report_removed
    from edgekit.models.model_loading import build_merged_net

    def merges_of(checkpoint: Checkpoint) -> Merges:
        labels = checkpoint.contract.labels
        merges = parse_merges(texts, labels)
        if len(merges) < 2:
            raise InputError(f"--merge '{texts[0]}' alone leaves one label: telling apart takes two")
        report_removed(merges, labels, out.say)
        return merges

    return lambda checkpoint: build_merged_net(checkpoint, merges_of(checkpoint))


def _describing(descriptions: Descriptions, clip: str | None, prompts: Path | None) -> Relabel:
    from edgekit.models.distill.relabel import described

    return lambda checkpoint: described(checkpoint, descriptions, clip, prompts)


def _descriptions(out: Output, names: tuple[str, ...], file: Path | None) -> Descriptions:
    from edgekit.models.clip.descriptions import descriptions_for, read_descriptions

    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"--class '{twice}' is there twice: give each label once")
    return read_descriptions(file) if file else descriptions_for(names, notify=out.say)
