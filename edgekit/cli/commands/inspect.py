"""`edgekit inspect`: contract, layers and cost of a model file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import Command
from edgekit.cli.output import Output
from edgekit.cli.render.provenance import limited, training_lines
from edgekit.errors import EdgekitError, InputError

if TYPE_CHECKING:
    from edgekit.contract import Contract
    from edgekit.device.engines.ncnn_file import NcnnFile
    from edgekit.export.profiling.cost import GraphCost
    from edgekit.export.tensors import Shape

_line = partial(Output.field, label_width=13)
_FITS = {"square": "central square", "pad": "padded to a square", "stretch": "stretched to a square"}


@click.command("inspect", cls=Command, short_help="Show the contents of a model file.")
@click.argument("model")
@click.option("--layers", "show_layers", is_flag=True, help="Also show each layer and its cost.")
def command(out: Output, model: str, show_layers: bool) -> None:
    """Show the contract, size, layers, parameters, multiply-accumulates and bytes moved of MODEL.

    MODEL is an .onnx or .ncnn file, a .safetensors checkpoint, `default`, `fer2013` or `distilled`. If an .onnx file
    has no contract, only its other properties are shown. Parameters, multiply-accumulates and bytes are counted only
    with the extra 'export', and not for .ncnn files.

    If the contract does not fit the graph, the exit code is 1. `run` refuses such a file.

    For a checkpoint, the training and the teachers are also shown. For a file of trained prompts, the CLIP that the
    prompts need is also shown.

    \b
    Examples:
      edgekit inspect default
      edgekit inspect mine.onnx --layers
      edgekit inspect runs/mine/best.safetensors --json
    """
    from edgekit.model_store import CHECKPOINT_SUFFIX, NCNN_SUFFIX, resolve_model

    path = resolve_model(model)
    if path.suffix == CHECKPOINT_SUFFIX:
        from edgekit.models.clip.checkpoint import is_prompts_file

        if is_prompts_file(path):
            _inspect_prompts(out, path)
            return
        contents = _read_checkpoint(out, path)
    else:
        contents = _read_ncnn(path) if path.suffix == NCNN_SUFFIX else _read_onnx(path)
    file = _show_file(out, path)
    _show_contract(out, contents)
    for label, text in training_lines(contents.training):
        _line(out, label, text)
    if contents.ncnn:
        _show_ncnn(out, contents.ncnn)
    else:
        _show_cost(out, contents)
    if show_layers:
        _show_layers(out, contents)
    for text in contents.contradictions:
        _line(out, "contradiction", text)
    out.result({**file, **_document(contents)})
    if contents.contradictions:
        raise EdgekitError(f"model '{path}': {contents.contradictions[0]}")


@dataclass(frozen=True)
class _Contents:
    """Contents of a model file; `cost` is None for an .ncnn file, or without the extra `export`.

    `training` is a checkpoint's record of its training. `ncnn` is set for an .ncnn file. `contradictions` has one line
    for each statement of the contract that the graph contradicts.
    """

    contract: Contract | None
    cost: GraphCost | None
    opset: int | None = None
    ir_version: int | None = None
    net_parameters: int | None = None
    ncnn: NcnnFile | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    contradictions: tuple[str, ...] = ()


def _show_file(out: Output, path: Path) -> dict[str, Any]:
    from edgekit.files import sha256_of

    size_bytes, sha256 = path.stat().st_size, sha256_of(path)
    _line(out, "file", f"{path}, {size_bytes:,} bytes")
    _line(out, "sha256", sha256)
    return {"path": str(path), "size_bytes": size_bytes, "sha256": sha256}


def _inspect_prompts(out: Output, path: Path) -> None:
    from edgekit.models.clip.checkpoint import load_prompts

    prompts = load_prompts(path)
    training = limited(prompts.training, out.warn)
    file, config, clip = _show_file(out, path), prompts.config, prompts.clip
    values = sum(tensor.numel() for tensor in prompts.state.values())
    described = sum(map(len, prompts.descriptions.values()))
    lines = [
        ("prompts", f"{config.flow}, {config.n_ctx} tokens in each of {config.depth} layers, {values:,} values"),
        ("CLIP", f"'{clip.source}' (sha256 {clip.sha256}), not in the file"),
        ("labels", f"{len(prompts.classes)}: {', '.join(prompts.classes)}; {described} sentences in all"),
    ]
    for label, text in (*lines, *training_lines(training)):
        _line(out, label, text)
    document = {"config": asdict(config), "clip": asdict(clip), "descriptions": prompts.descriptions}
    out.result({**file, "prompts": document, "training": training or None})


def _read_ncnn(path: Path) -> _Contents:
    from edgekit.device.engines.ncnn_file import read_ncnn

    file = read_ncnn(path)
    return _Contents(file.contract, None, ncnn=file)


def _read_onnx(path: Path) -> _Contents:
    from edgekit.device.engines.onnxruntime_engine import contradictions
    from edgekit.device.engines.session import has_contract, open_session, read_contract

    session = open_session(path, intra_op_threads=1, level="none")
    contract = read_contract(session, path) if has_contract(session, path) else None
    found = tuple(contradictions(session, contract)) if contract else ()
    try:
        from edgekit.export.profiling.cost import graph_cost, load_graph
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        return _Contents(contract, None, contradictions=found)
    model = load_graph(path)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    return _Contents(contract, graph_cost(model), opset, model.ir_version, contradictions=found)


def _read_checkpoint(out: Output, path: Path) -> _Contents:
    with out.progress_console.status("tracing the net"):
        from edgekit.export.onnx.to_onnx import to_onnx
        from edgekit.export.profiling.cost import graph_cost
        from edgekit.models.checkpoints.checkpoint import load_checkpoint
        from edgekit.models.model_loading import build_net
        from edgekit.models.nets.registry import parameter_count

        checkpoint = load_checkpoint(path)
        try:
            net = build_net(checkpoint)
        except InputError as error:
            raise InputError(f"checkpoint '{path}': {error}") from error
        cost = graph_cost(to_onnx(net, checkpoint.contract))
    training = limited(checkpoint.training, out.warn)
    return _Contents(checkpoint.contract, cost, net_parameters=parameter_count(net), training=training)


def _show_contract(out: Output, contents: _Contents) -> None:
    from edgekit.contract import channel_count, required_fields

    contract = contents.contract
    if contract is None:
        _line(out, "contract", f"none: missing {', '.join(required_fields())}")
        return
    spec, crop, provenance = contract.input, contract.crop, contract.provenance
    shape = _shape_text((None, channel_count(spec.channels), *spec.size_hw))
    _line(out, "contract", f"version {contract.schema}")
    _line(out, "architecture", contract.architecture)
    _line(out, "labels", f"{len(contract.labels)}: {', '.join(contract.labels)}")
    inside = ", computed in the file" if spec.element_type == "uint8" else ""
    scaling = _scaling_text(contract) + inside
    _line(out, "input", f"'{spec.name}' {spec.element_type} {shape} {spec.channels}: {scaling}")
    _line(out, "classifies", "each face" if contract.subject == "face" else "the whole image")
    resized = f"resized to {_size_text(crop.resize_hw)}, centre {_size_text(crop.center_crop_hw)}"
    then = f"{'gray, ' * crop.grayscale}{resized}"
    if contract.subject == "face":
        _line(out, "crop", f"face box + {crop.margin:.0%} on every side, {then}")
        _line(out, "without box", _FITS[crop.fit])
    else:
        _line(out, "crop", f"{_FITS[crop.fit]}, {then}")
    _line(out, "output", f"'{contract.output.name}' (N, {len(contract.labels)}) {contract.output.meaning}")
    _line(
        out, "precision", contract.precision + (f", calibrated on {contract.calibration}" * bool(contract.calibration))
    )
    calibrated = f"{contract.temperature:g}, included in the logits"
    _line(out, "temperature", "1 (not calibrated)" if contract.temperature == 1 else calibrated)
    if contract.uncertain_below:
        _line(out, "uncertain", f"below a probability of {contract.uncertain_below:g}")
    if contract.verified_level:
        _line(out, "verified at", f"graph optimisation level '{contract.verified_level}'")
    _line(out, "trained on", provenance.dataset)
    for result in provenance.accuracy:
        share = f"{result.correct / result.total:.2%} " if result.total else ""
        _line(
            out,
            "accuracy",
            f"{share}({result.correct} of {result.total}) on {result.dataset} {result.split}, {result.protocol}",
        )
    for label, value in (
        ("checkpoint", provenance.checkpoint_sha256 and f"sha256 {provenance.checkpoint_sha256}"),
        ("revision", provenance.git_revision),
        ("made by", provenance.edgekit_version and f"edgekit {provenance.edgekit_version}"),
    ):
        if value:
            _line(out, label, value)


def _show_ncnn(out: Output, file: NcnnFile) -> None:
    _line(out, "engine", "ncnn")
    _line(out, "layers", _counted_kinds([kind for _, kind in file.layers()]))
    _line(out, "weights", f"{len(file.weights):,} bytes")


def _show_cost(out: Output, contents: _Contents) -> None:
    cost = contents.cost
    if cost is None:
        from edgekit.install_hint import install_command

        _line(out, "layers", f"not counted: {install_command('export')}")
        return
    if contents.opset is not None:
        _line(out, "opset", f"{contents.opset}, IR {contents.ir_version}")
    _line(out, "layers", _counted_kinds([layer.op_type for layer in cost.layers]))
    if contents.net_parameters is None:
        _line(out, "parameters", f"{cost.parameters:,}")
    else:
        _line(out, "parameters", f"{contents.net_parameters:,}, exported with BatchNorm folded {cost.parameters:,}")
    macs = "unknown: dynamic shapes" if cost.macs is None else f"{cost.macs:,} at batch size 1"
    uncounted = f", without those of {', '.join(cost.uncounted)}" if cost.uncounted else ""
    _line(out, "MACs", macs + uncounted)
    _line(out, "bytes moved", _traffic_text(cost))
    if cost.flops_per_byte is not None:
        _line(out, "intensity", f"{cost.flops_per_byte:.1f} FLOPs (two per MAC) per byte, without reuse in a cache")


def _traffic_text(cost: GraphCost) -> str:
    if cost.moved_bytes is None or cost.peak_activation_bytes is None:
        return "unknown: dynamic shapes"
    moves = "moves" if len(cost.moveless) == 1 else "move"
    moveless = f"; {', '.join(cost.moveless)} {moves} none" if cost.moveless else ""
    return (
        f"{cost.moved_bytes:,}: {cost.weight_bytes:,} of weights, {cost.read_bytes:,} of activations read, "
        f"{cost.written_bytes:,} written{moveless}; peak {cost.peak_activation_bytes:,} of activations"
    )


def _show_layers(out: Output, contents: _Contents) -> None:
    if contents.ncnn:
        out.table(("layer", "kind"), (), contents.ncnn.layers())
    elif contents.cost:
        rows = []
        for layer in contents.cost.layers:
            shape = _shape_text(layer.output_shape) if layer.output_shape is not None else "?"
            counts = ("?" if count is None else f"{count:,}" for count in (layer.macs, layer.moved_bytes))
            rows.append((layer.name, layer.op_type, shape, f"{layer.parameters:,}", *counts))
        out.table(("layer", "kind", "output"), ("parameters", "MACs", "bytes"), rows)


def _document(contents: _Contents) -> dict[str, Any]:
    cost, ncnn = contents.cost, contents.ncnn
    layers: list[dict[str, Any]] | None = None
    if ncnn:
        layers = [{"name": name, "kind": kind} for name, kind in ncnn.layers()]
    elif cost:
        layers = [asdict(layer) for layer in cost.layers]
    return {
        "contract": asdict(contents.contract) if contents.contract else None,
        "contradictions": list(contents.contradictions),
        "training": contents.training or None,
        "opset": contents.opset,
        "ir_version": contents.ir_version,
        "net_parameters": contents.net_parameters,
        "weight_bytes": cost.weight_bytes if cost else len(ncnn.weights) if ncnn else None,
        "read_bytes": cost.read_bytes if cost else None,
        "written_bytes": cost.written_bytes if cost else None,
        "moved_bytes": cost.moved_bytes if cost else None,
        "peak_activation_bytes": cost.peak_activation_bytes if cost else None,
        "flops_per_byte": cost.flops_per_byte if cost else None,
        "uncounted": list(cost.uncounted) if cost else None,
        "moveless": list(cost.moveless) if cost else None,
        "parameters": cost.parameters if cost else None,
        "macs": cost.macs if cost else None,
        "layers": layers,
    }


def _scaling_text(contract: Contract) -> str:
    spec = contract.input
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    return f"(pixel * {spec.scale:.6g} - [{mean}]) / [{std}]"


def _counted_kinds(kinds: list[str]) -> str:
    return f"{len(kinds)}: {', '.join(f'{count} {kind}' for kind, count in Counter(kinds).most_common())}"


def _shape_text(shape: Shape) -> str:
    return f"({', '.join('N' if dimension is None else str(dimension) for dimension in shape)})"


def _size_text(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"
