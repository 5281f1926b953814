"""`edgekit inspect`: contract, layers and cost of a model file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.command import Command
from edgekit.cli.output import Output, picked
from edgekit.errors import EdgekitError, InputError
from edgekit.files import sha256_of
from edgekit.text import first_of

if TYPE_CHECKING:
    from edgekit.contract import Contract
    from edgekit.device.engines.ncnn_engine import NcnnFile
    from edgekit.export.profiling.cost import GraphCost, Shape
    from edgekit.models.clip.checkpoint import PromptCheckpoint

# --json has all of them; ImageNet has 1000.
_LABELS = 100
# A row of the results in the card of a shipped model.
_CARD_ROW = re.compile(r"\| (FER\+ \w+|photographs) \| ([^|]+) \| ([\d.]+%) \| (\d+ of \d+) \|")
_FITS = {"square": "central square", "pad": "padded to a square", "stretch": "stretched to a square"}


@click.command("inspect", cls=Command, short_help="Show the contents of a model file.")
@click.argument("model")
def command(out: Output, model: str) -> None:
    """Show the contract, size, layers, parameters and multiply-accumulates of MODEL; --json also shows each layer.

    MODEL is an .onnx or .ncnn file, a .safetensors checkpoint, `default`, `fer2013` or `distilled`. If an .onnx file
    has no contract, only its other properties are shown. Parameters and multiply-accumulates are counted only with the
    extra 'export', and not for .ncnn files.

    If the contract does not fit the graph, the exit code is 1. `run` refuses such a file.

    For a checkpoint, the recipe of its training is also shown; --json shows the whole record, such as the teachers. For
    a file of trained prompts, the CLIP that the prompts need is also shown.

    \b
    Examples:
      edgekit inspect default
      edgekit inspect mine.onnx --json
      edgekit inspect runs/mine/best.safetensors
    """
    from edgekit.model_store import CHECKPOINT_SUFFIX, NCNN_SUFFIX, resolve_model

    path = resolve_model(model)
    if path.suffix == CHECKPOINT_SUFFIX:
        from edgekit.models.clip.checkpoint import is_prompts_file

        contents = _read_prompts(path) if is_prompts_file(path) else _read_checkpoint(out, path)
    elif path.suffix == NCNN_SUFFIX:
        contents = _read_ncnn(path)
    else:
        contents = _read_onnx(path)
    file = {"path": str(path), "size_bytes": path.stat().st_size, "sha256": sha256_of(path)}
    out.fields(
        [
            ("file", f"{path}, {file['size_bytes']:,} bytes"),
            ("sha256", str(file["sha256"])),
            *(_prompts_fields(contents.prompts) if contents.prompts else _contract_fields(contents.contract)),
            *_card_fields(path),
            *_training_fields(contents.training),
            *_cost_fields(contents),
            *(("contradiction", text) for text in contents.contradictions),
        ]
    )
    out.result({**file, **_document(contents)})
    if contents.contradictions:
        raise EdgekitError(f"model '{path}': {contents.contradictions[0]}")


@dataclass(frozen=True)
class _Contents:
    """Contents of a model file; `cost` is None for an .ncnn file, or without the extra `export`.

    `training` is a checkpoint's record of its training. `ncnn` is set for an .ncnn file, `prompts` for trained prompts.
    `contradictions` has one line for each statement of the contract that the graph contradicts.
    """

    contract: Contract | None
    cost: GraphCost | None
    opset: int | None = None
    ir_version: int | None = None
    net_parameters: int | None = None
    ncnn: NcnnFile | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    contradictions: tuple[str, ...] = ()
    prompts: PromptCheckpoint | None = None


def _read_prompts(path: Path) -> _Contents:
    from edgekit.models.clip.checkpoint import load_prompts

    prompts = load_prompts(path)
    return _Contents(contract=None, cost=None, training=prompts.training, prompts=prompts)


def _read_ncnn(path: Path) -> _Contents:
    from edgekit.device.engines.ncnn_engine import read_ncnn

    file = read_ncnn(path)
    return _Contents(file.contract, cost=None, ncnn=file)


def _read_onnx(path: Path) -> _Contents:
    """Return the contents of an .onnx file; without the extra `export`, its layers are not counted."""
    from edgekit.device.engines.session import contradictions, has_contract, open_session, read_contract

    session = open_session(path, intra_op_threads=1, level="none")
    contract = read_contract(session, path) if has_contract(session, path) else None
    found = tuple(contradictions(session, contract)) if contract else ()
    try:
        from edgekit.export.profiling.cost import graph_cost, load_graph
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        return _Contents(contract, cost=None, contradictions=found)
    model = load_graph(path)
    # ONNX's own operators have the domain "" or "ai.onnx"; the other domains are those of extensions.
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    cost = graph_cost(model)
    return _Contents(contract, cost, opset=opset, ir_version=model.ir_version, contradictions=found)


def _read_checkpoint(out: Output, path: Path) -> _Contents:
    """Return the contents of a .safetensors file; its layers are those of the net that it would be exported to."""
    with out.progress_console.status("tracing the net"):
        from edgekit.export.profiling.cost import graph_cost
        from edgekit.export.to_onnx import to_onnx
        from edgekit.models.checkpoint import load_checkpoint
        from edgekit.models.model_loading import build_net
        from edgekit.models.nets.registry import parameter_count

        checkpoint = load_checkpoint(path)
        try:
            net = build_net(checkpoint)
        except InputError as error:
            raise InputError(f"checkpoint '{path}': {error}") from error
        cost = graph_cost(to_onnx(net, checkpoint.contract))
    return _Contents(checkpoint.contract, cost, net_parameters=parameter_count(net), training=checkpoint.training)


def _prompts_fields(prompts: PromptCheckpoint) -> Iterator[tuple[str, str | None]]:
    """Yield the fields of a file of trained prompts; `descriptions` has sentences about each class."""
    config, clip = prompts.config, prompts.clip
    value_count = sum(tensor.numel() for tensor in prompts.state.values())
    sentence_count = sum(map(len, prompts.descriptions.values()))
    yield "prompts", f"hicropl, {config.n_ctx} tokens in each of {config.depth} layers, {value_count:,} values"
    yield "CLIP", f"'{clip.source}' (sha256 {clip.sha256}), not in the file"
    yield "labels", f"{len(prompts.classes)}: {', '.join(prompts.classes)}; {sentence_count} sentences in all"


def _contract_fields(contract: Contract | None) -> Iterator[tuple[str, str | None]]:
    """Yield name and text of each field of a contract; None for a field that is not set."""
    from edgekit.contract import required_fields

    if contract is None:
        yield "contract", f"none: missing {', '.join(required_fields())}"
        return
    labels, output, provenance = contract.labels, contract.output, contract.provenance
    yield "contract", f"version {contract.schema}"
    yield "architecture", contract.architecture
    yield "labels", f"{len(labels)}: {first_of(labels, _LABELS)}" if labels else "none"
    yield from _input_fields(contract)
    yield "output", f"'{output.name}' (N, {len(labels) or 'features'}) {output.meaning}"
    yield "precision", contract.precision + (f", calibrated on {contract.calibration}" if contract.calibration else "")
    is_calibrated = contract.temperature != 1
    yield "temperature", f"{contract.temperature:g}, included in the logits" if is_calibrated else "1 (not calibrated)"
    below, level = contract.uncertain_below, contract.verified_level
    yield "uncertain", f"below a probability of {below:g}" if below else None
    if contract.distance:
        yield "uncertain", f"above the distance {contract.distance.threshold:.3f} (output '{contract.distance.name}')"
    yield "region", ", ".join(f"{side:g}" for side in contract.region) if contract.region else None
    yield "verified at", f"graph optimisation level '{level}'" if level else None
    yield "trained on", provenance.dataset
    for result in provenance.accuracy:
        share = f"{result.correct / result.total:.2%} " if result.total else ""
        where = f"{result.dataset} {result.split}, {result.protocol}"
        yield "accuracy", f"{share}({result.correct} of {result.total}) on {where}"
    checkpoint, version = provenance.checkpoint_sha256, provenance.edgekit_version
    yield "checkpoint", f"sha256 {checkpoint}" if checkpoint else None
    yield "revision", provenance.git_revision or None
    yield "made by", f"edgekit {version}" if version else None


def _card_fields(path: Path) -> Iterator[tuple[str, str]]:
    """Yield a shipped model's accuracies on data that its contract does not state, from its card."""
    from edgekit.model_store import ASSETS

    card = path.with_suffix(".md")
    if path.parent != ASSETS or not card.is_file():
        return
    for line in card.read_text(encoding="utf-8").splitlines():
        if found := _CARD_ROW.match(line):
            data, protocol, share, correct = found.groups()
            yield "accuracy", f"{share} ({correct}) on {data}, {protocol}"


def _input_fields(contract: Contract) -> Iterator[tuple[str, str]]:
    """Yield the fields about the input of the net, and about what is done to a face or an image before."""
    from edgekit.contract import channel_count

    spec, crop = contract.input, contract.crop
    shape = _shape_text((None, channel_count(spec.channels), *spec.size_hw))  # None: any number of images
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    computed = ", computed in the file" if spec.element_type == "uint8" else ""
    scaling = f"(pixel * {spec.scale:.6g} - [{mean}]) / [{std}]{computed}"
    yield "input", f"'{spec.name}' {spec.element_type} {shape} {spec.channels}: {scaling}"
    if spec.sizes_px:
        yield "sizes", f"{', '.join(map(str, spec.sizes_px))} px"
    yield "classifies", "each face" if contract.subject == "face" else "the whole image"
    resized = f"resized to {_size_text(crop.resize_hw)}, centre {_size_text(crop.center_crop_hw)}"
    then = f"gray, {resized}" if crop.grayscale else resized
    if contract.subject == "face":
        yield "crop", f"face box + {crop.margin:.0%} on every side, {then}"
        yield "without box", _FITS[crop.fit]
    else:
        yield "crop", f"{_FITS[crop.fit]}, {then}"


def _training_fields(training: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a line about the recipe in a checkpoint's record, any part of which may be missing."""
    if "recipe_name" in training:
        recipe, best = training.get("recipe") or {}, training.get("best") or {}
        epoch = f"epoch {best.get('epoch', '?')} of {recipe.get('epochs', '?')}"
        yield "recipe", f"{training['recipe_name']}, {epoch}, seed {training.get('seed', '?')}"


def _cost_fields(contents: _Contents) -> Iterator[tuple[str, str | None]]:
    """Yield the fields about layers, parameters and multiply-accumulates, as far as they are known."""
    cost, ncnn = contents.cost, contents.ncnn
    if ncnn:
        yield "engine", "ncnn"
        yield "layers", _counted_kinds([kind for _, kind in ncnn.layers()])
        yield "weights", f"{len(ncnn.weights):,} bytes"
    elif cost:
        yield "opset", None if contents.opset is None else f"{contents.opset}, IR {contents.ir_version}"
        yield "layers", _counted_kinds([layer.op_type for layer in cost.layers])
        in_net = contents.net_parameters
        before = "" if in_net is None else f"{in_net:,}, exported with BatchNorm folded "
        yield "parameters", f"{before}{cost.parameters:,}"
        macs = "unknown: dynamic shapes" if cost.macs is None else f"{cost.macs:,} at batch size 1"
        yield "MACs", macs + (f", without those of {', '.join(cost.uncounted)}" if cost.uncounted else "")
    elif not contents.prompts:
        from edgekit.install_hint import install_command

        yield "layers", f"not counted: {install_command('export')}"


def _document(contents: _Contents) -> dict[str, Any]:
    """Return the document of --json, without the fields of the file itself."""
    if prompts := contents.prompts:
        found = {"config": asdict(prompts.config), "clip": asdict(prompts.clip), "descriptions": prompts.descriptions}
        return {"prompts": found, "training": contents.training or None}
    cost, ncnn = contents.cost, contents.ncnn
    document = {
        "contract": asdict(contents.contract) if contents.contract else None,
        "training": contents.training or None,
        **picked(contents, "contradictions", "opset", "ir_version", "net_parameters"),
        **picked(cost, "weight_bytes", "read_bytes", "written_bytes", "moved_bytes"),
        **picked(cost, "uncounted", "parameters", "macs"),
        "layers": [asdict(layer) for layer in cost.layers] if cost else None,
    }
    if ncnn:  # its `cost` is None
        document["weight_bytes"] = len(ncnn.weights)
        document["layers"] = [{"name": name, "kind": kind} for name, kind in ncnn.layers()]
    return document


def _counted_kinds(kinds: list[str]) -> str:
    """Return the number of layers, and of each kind of layer, such as "3: 2 Conv, 1 Relu"."""
    counts = [f"{count} {kind}" for kind, count in Counter(kinds).most_common()]
    return f"{len(kinds)}: {', '.join(counts)}"


def _shape_text(shape: Shape) -> str:
    return f"({', '.join('N' if dimension is None else str(dimension) for dimension in shape)})"


def _size_text(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"
