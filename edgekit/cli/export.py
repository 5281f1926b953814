"""`edgekit export`: a checkpoint in, one self-describing ONNX file out."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.common import Output, common_options


@click.command("export", short_help="Export a checkpoint to one ONNX file.")
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .onnx file to write.")
@common_options
def command(out: Output, model: str, output: Path) -> None:
    """Export MODEL, a .safetensors checkpoint or `default`, to one ONNX file that says all about itself.

    The file takes any batch size, has BatchNorm folded into the convolutions, and is written only after it answered as
    the checkpoint does on face crops. The same checkpoint gives the same bytes.

    \b
    Examples:
      edgekit export runs/mine/best.safetensors -o mine.onnx
      edgekit export default -o default.onnx --json
    """
    from dataclasses import asdict

    from edgekit.modelfiles import CHECKPOINT_SUFFIX, resolve_model

    checkpoint = resolve_model(model, (CHECKPOINT_SUFFIX,))
    with out.progress_console.status("exporting"):
        from edgekit.export.to_onnx import export_checkpoint

        exported = export_checkpoint(checkpoint, output)
    verification, cost = exported.verification, exported.cost
    out.say(f"{exported.path}: {exported.size_bytes:,} bytes, opset {exported.opset}, IR {exported.ir_version}")
    out.say(f"sha256 {exported.sha256}")
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
