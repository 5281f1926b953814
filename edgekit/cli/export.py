"""`edgekit export`: a checkpoint in, one self-describing ONNX file out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.common import Output, common_options
from edgekit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgekit.models.checkpoint import Checkpoint


@click.command("export", short_help="Export a checkpoint to one ONNX file.")
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .onnx file to write.")
@click.option("--class", "class_names", multiple=True, metavar="NAME", help="A label of its own, for a CLIP's student.")
@click.option(
    "--classes",
    "classes_file",
    type=click.Path(path_type=Path),
    metavar="JSON",
    help='Several at once, with descriptions: {"NAME": ["A sentence.", …], …}.',
)
@click.option("--clip", metavar="FILE|NAME", help="The teacher's CLIP, for --class and --classes.")
@click.option(
    "--prompts", type=click.Path(path_type=Path), metavar="FILE", help="The teacher's prompts, if it had some."
)
@click.option("--merge", "merges", multiple=True, metavar="NEW=OLD,OLD", help="A label in the place of old ones.")
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
) -> None:
    """Export MODEL, a .safetensors checkpoint or `default`, to one ONNX file that says all about itself.

    The file takes any batch size, has BatchNorm folded into the convolutions, and is written only after it answered as
    the checkpoint does on face crops. The same checkpoint gives the same bytes.

    A student of a CLIP can be given other labels, without training: new ones by text, which the teacher's text tower
    encodes here and the file needs no more, or old ones put together. Labels that --merge does not name are left out.

    \b
    Examples:
      edgekit export runs/mine/best.safetensors -o mine.onnx
      edgekit export default -o default.onnx --json
      edgekit export runs/student/best.safetensors --class "smiling face" --class "other face" --clip clip.pt -o s.onnx
      edgekit export runs/student/best.safetensors --merge positive=happy --merge negative=angry,sad -o merged.onnx
    """
    from dataclasses import asdict

    from edgekit.modelfiles import CHECKPOINT_SUFFIX, resolve_model

    given = [
        flag for flag, value in (("--class", class_names), ("--classes", classes_file), ("--merge", merges)) if value
    ]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} both say the labels: give one of them")
    if (clip or prompts) and not (class_names or classes_file):
        raise InputError("--clip and --prompts are for new classes: give some with --class or --classes")
    checkpoint = resolve_model(model, (CHECKPOINT_SUFFIX,))
    with out.progress_console.status("exporting"):
        from edgekit.export.to_onnx import export_checkpoint

        relabel: Callable[[Checkpoint], Checkpoint] | None = None
        if merges:
            relabel = _merging(merges)
        elif class_names or classes_file:
            relabel = _describing(out, class_names, classes_file, clip, prompts)
        exported = export_checkpoint(checkpoint, output, relabel)
    verification, cost = exported.verification, exported.cost
    out.say(f"{exported.path}: {exported.size_bytes:,} bytes, opset {exported.opset}, IR {exported.ir_version}")
    out.say(f"sha256 {exported.sha256}")
    if relabel:
        out.say(f"labels: {', '.join(exported.contract.labels)}")
    out.say(
        f"verified on {verification.crops} face crops: max abs difference of logits to torch "
        f"{verification.max_abs_difference:.1e} (allowed: below {verification.tolerance:.0e})"
    )
    out.say(
        f"{exported.net_parameters:,} parameters in the net, {cost.parameters:,} in the file with BatchNorm folded, "
        f"{cost.macs:,} multiply-accumulates"
    )
    out.result(
        {
            "path": str(exported.path),
            "checkpoint": str(checkpoint),
            "sha256": exported.sha256,
            "size_bytes": exported.size_bytes,
            "opset": exported.opset,
            "ir_version": exported.ir_version,
            "verification": asdict(verification),
            "net_parameters": exported.net_parameters,
            "parameters": cost.parameters,
            "macs": cost.macs,
            "contract": asdict(exported.contract),
        }
    )


def _merging(texts: tuple[str, ...]) -> Callable[[Checkpoint], Checkpoint]:
    from edgekit.models.data.merging import parse_merges
    from edgekit.models.distill.relabel import merged

    return lambda checkpoint: merged(checkpoint, parse_merges(texts, checkpoint.contract.labels))


def _describing(
    out: Output, names: tuple[str, ...], file: Path | None, clip: str | None, prompts: Path | None
) -> Callable[[Checkpoint], Checkpoint]:
    from edgekit.models.clip.descriptions import descriptions_for, read_descriptions
    from edgekit.models.distill.relabel import described

    descriptions = read_descriptions(file) if file else descriptions_for(names, notify=out.say)
    return lambda checkpoint: described(checkpoint, descriptions, clip, prompts)
