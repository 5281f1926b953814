"""What `edgekit export` does for trained prompts: the CLIP they belong to goes into the file with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cli.output import Output
from edgekit.text import one_line

if TYPE_CHECKING:
    from edgekit.export.onnx.prompted import Form

# What --no-pass may leave out of them.
ENSEMBLE = "ensemble"


def refuse_foreign(given: Mapping[str, object], target: str, passes_off: Sequence[str]) -> None:
    """Refuse options that mean nothing for trained prompts.

    Args:
        given: Values by flag.
        target: The target asked for.
        passes_off: What is to be left out.

    Raises:
        InputError: There is one.
    """
    from edgekit.errors import InputError
    from edgekit.export.onnx.targets import GENERIC

    others = [name for name in passes_off if name != ENSEMBLE]
    foreign = [flag for flag, value in given.items() if value]
    foreign += ["--target"] * (target != GENERIC) + [f"--no-pass {name}" for name in others]
    if foreign:
        raise InputError(f"{foreign[0]} means nothing for trained prompts: leave it out")


def export_prompted(
    out: Output,
    prompts: Path,
    target: Path,
    clip: str | None,
    descriptions: Mapping[str, Sequence[str]] | None,
    ensemble: bool,
    measured_on: tuple[Path, str] | None,
) -> None:
    """Export trained prompts with their CLIP's image tower and say what came out.

    Args:
        out: Where to say it.
        prompts: The file of prompts.
        target: The .onnx file.
        clip: Their CLIP, by name or file.
        descriptions: Of other classes than those they were trained with.
        ensemble: Whether the tower without prompts goes in too.
        measured_on: A data set and its split, to measure both forms on where the ensemble is left out.

    Raises:
        InputError: The prompts, their CLIP, the descriptions or the data do not fit.
        GateError: The file answers otherwise than the prompted CLIP.
    """
    from dataclasses import asdict

    from edgekit.errors import InputError
    from edgekit.export.onnx.prompted import export_prompts, open_prompts, prompts_contract
    from edgekit.models.data import DataSet
    from edgekit.models.data.readers import load_dataset

    if measured_on and ensemble:
        raise InputError(f"--eval says what --no-pass {ENSEMBLE} costs: give both, or 'edgekit eval' the file")
    net = open_prompts(prompts, clip, descriptions)
    data = None
    if measured_on:
        path, split = measured_on
        whole = load_dataset(path, net.clip.image_size, notify=out.say, fit="center")
        data = DataSet(whole.name, whole.classes, {split: whole.split(split)})
    with out.progress_console.status("exporting"):
        result = export_prompts(net, prompts_contract(prompts, net), target, ensemble, data)
    exported, verification = result.exported, result.exported.verification
    out.say(f"{target}: {exported.size_bytes:,} bytes, opset {exported.opset}, IR {exported.ir_version}")
    out.say(f"sha256 {exported.sha256}")
    out.say(one_line(f"labels: {', '.join(exported.contract.labels)}"))
    out.say(
        f"verified on {verification.crops} face crops: max abs difference of logits to torch "
        f"{verification.max_abs_difference:.1e} (allowed: below {verification.tolerance:.0e})"
    )
    out.say(f"{exported.cost.parameters:,} parameters, {exported.cost.macs:,} multiply-accumulates")
    comparison = {}
    if result.whole and result.reduced:
        out.say(f"with {ENSEMBLE}: {_described(result.whole)}; without: {_described(result.reduced)}")
        comparison = {"with_ensemble": asdict(result.whole), "without_ensemble": asdict(result.reduced)}
    out.result(
        {
            "path": str(target),
            "checkpoint": str(prompts),
            "sha256": exported.sha256,
            "size_bytes": exported.size_bytes,
            "opset": exported.opset,
            "ir_version": exported.ir_version,
            "verification": asdict(verification),
            "net_parameters": exported.net_parameters,
            "parameters": exported.cost.parameters,
            "macs": exported.cost.macs,
            "contract": asdict(exported.contract),
            **comparison,
        }
    )


def _described(form: Form) -> str:
    macs = "unknown" if form.macs is None else f"{form.macs:,}"
    accuracy = "" if form.accuracy is None else f", accuracy {form.accuracy:.2%}"
    return f"{form.size_bytes:,} bytes, {macs} multiply-accumulates{accuracy}"
