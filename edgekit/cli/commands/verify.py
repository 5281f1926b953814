"""`edgekit verify`: whether an exported file answers on a device as its source does in training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import PATH, contempt_option, threads_option
from edgekit.cli.output import Output, common_options, one_line
from edgekit.errors import GateError, InputError

if TYPE_CHECKING:
    from edgekit.contract import Contract
    from edgekit.export.verification.first_difference import LayerDifference
    from edgekit.export.verification.parity import Agreement, Tolerance

_TRACED_IMAGES = 8


@click.command("verify", short_help="Check that a file answers as its source does.")
@click.argument("model")
@click.option("--against", required=True, metavar="MODEL", help="The .safetensors or .onnx file MODEL is made from.")
@click.option("--data", type=PATH, required=True, help="Folders, .tar.gz, fer2013.csv or .h5.")
@click.option("--split", default="PrivateTest", show_default=True, help="Name of the split to take.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N images, evenly over the split.")
@click.option("--layers", "show_layers", is_flag=True, help="Show the difference of every layer both sides have.")
@contempt_option
@threads_option
@common_options
def command(
    out: Output,
    model: str,
    against: str,
    data: Path,
    split: str,
    limit: int | None,
    show_layers: bool,
    contempt: str,
    threads: int | None,
) -> None:
    """Send the same images through training code and device code, from file to label, and compare.

    MODEL is an exported file. Its crops must be those of training, to the pixel. Logits of a float32 file may differ by
    1e-4, for ncnn by 1e-3 (or 1e-5 of the largest); those of an int8 file by 0.15 of their root mean square, with the
    same answer on 95 % of the images and half a point of accuracy lost at most. Where answers differ by more, the first
    layer to differ is named.

    Refused too: an operator, operator set or input that the oldest supported onnxruntime or edgekit's runtime cannot
    take, and a contract that does not fit the graph. Exit code 3 says that MODEL was refused.

    \b
    Examples:
      edgekit verify mine.onnx --against runs/mine/best.safetensors --data fer2013.tar.gz
      edgekit verify int8.onnx --against mine.onnx --data folders --split test --limit 500 --json
      edgekit verify mine.ncnn --against runs/mine/best.safetensors --data fer2013.tar.gz
      edgekit verify default --against default --data fer2013.tar.gz --layers
    """
    from edgekit.model_store import CHECKPOINT_SUFFIX, DEVICE_SUFFIXES, NCNN_SUFFIX, ONNX_SUFFIX, resolve_model

    path = resolve_model(model, DEVICE_SUFFIXES)
    if show_layers and path.suffix == NCNN_SUFFIX:
        raise InputError("--layers: a file for ncnn does not name its layers after its source's: leave it out")
    source = resolve_model(against, (CHECKPOINT_SUFFIX, ONNX_SUFFIX))
    document: dict[str, Any] = {"model": str(path), "against": str(source), "data": str(data), "split": split}
    faults = [] if path.suffix == NCNN_SUFFIX else _in_oldest_runtime(out, path, document)
    if not faults:
        faults += _compare(out, path, source, data, split, limit, show_layers, contempt, threads, document)
    out.result({**document, "passed": not faults, "faults": faults})
    if faults:
        raise GateError(f"'{path}' is refused: {'; '.join(faults)}")
    out.say("verified")


def _in_oldest_runtime(out: Output, path: Path, document: dict[str, Any]) -> list[str]:
    from edgekit.export.profiling.cost import load_graph
    from edgekit.export.verification.deployable import device_faults, load_in_oldest_runtime, oldest_runtime

    faults = device_faults(load_graph(path))
    loaded_by, refusal = load_in_oldest_runtime(path)
    faults += [refusal] if refusal else []
    document["oldest_runtime"] = {"version": oldest_runtime().version, "loaded_by": loaded_by}
    if not faults:
        how = f"loads in {loaded_by}" if loaded_by else "by its list of operators"
        out.say(f"onnxruntime {oldest_runtime().version}, the oldest supported: can run the file ({how})")
    return faults


def _compare(
    out: Output,
    path: Path,
    source: Path,
    data: Path,
    split: str,
    limit: int | None,
    show_layers: bool,
    contempt: str,
    threads: int | None,
    document: dict[str, Any],
) -> list[str]:
    from edgekit.cli.progress import counted, progress_bar
    from edgekit.device.engines.classifier import Classifier
    from edgekit.device.engines.engine import contract_in, engine_of
    from edgekit.export.verification.parity import compare, faults_of, tolerance_for
    from edgekit.models.clip.checkpoint import is_prompts_file
    from edgekit.models.evaluation.evaluate import open_classifier
    from edgekit.models.torch_threads import set_torch_threads

    if threads:
        set_torch_threads(threads)
    if is_prompts_file(source):
        raise InputError(
            f"'{source}' holds trained prompts: name a net's checkpoint (export compares prompts with torch)"
        )
    engine = engine_of(path)
    contract_in(path)  # what cannot be read at all is bad input, not refused
    try:
        device = Classifier(path, threads)
    except InputError as error:
        if engine == "ncnn":  # whose files are checked while they are read
            raise
        return [str(error)]
    reference = open_classifier(source, threads)
    with progress_bar(out) as progress:
        found = compare(
            reference,
            device,
            data,
            split,
            limit,
            contempt=contempt,
            say=out.say,
            bars=lambda description: counted(progress, description),
        )
    tolerance = tolerance_for(device.contract.precision, engine)
    faults = faults_of(found, tolerance)
    _say(out, found, tolerance, device.contract)
    document |= {"engine": engine, **_document(found, tolerance, device.contract)}
    answers_differ = any(not fault.startswith("preprocessing") for fault in faults)
    if show_layers or (answers_differ and engine == "onnxruntime"):
        layers, first = _layers(source, path, found, device.contract)
        _say_layers(out, layers, first, show_layers)
        document["layers"] = [vars(layer) for layer in layers]
        document["first_difference"] = first and vars(first)
        if faults and first:
            faults.append(f"the first layer that differs is '{one_line(first.name)}' ({first.op_type})")
    return faults


def _layers(
    source: Path, path: Path, found: Agreement, contract: Contract
) -> tuple[list[LayerDifference], LayerDifference | None]:
    from edgekit.export.verification import first_difference as tracing
    from edgekit.model_store import ONNX_SUFFIX
    from edgekit.models.checkpoints.checkpoint import load_checkpoint
    from edgekit.models.model_loading import build_net
    from edgekit.preprocess import to_tensor

    crops = found.crops[found.worst[:_TRACED_IMAGES]]
    if source.suffix == ONNX_SUFFIX:
        reference = tracing.file_results(source, crops)
    else:
        checkpoint = load_checkpoint(source)
        tensor = to_tensor(crops, checkpoint.contract.input)
        reference = tracing.by_layer(tracing.net_results(build_net(checkpoint), tensor), path)
    layers = tracing.layer_differences(reference, path, crops)
    same = tracing.SAME_FLOAT32 if contract.precision == "float32" else tracing.SAME_INT8
    return layers, tracing.first_difference(layers, same)


def _say(out: Output, found: Agreement, tolerance: Tolerance, contract: Contract) -> None:
    from edgekit.export.verification.parity import allowed_difference

    allowed = allowed_difference(found, tolerance)
    limit = "" if allowed is None else f"allowed: {allowed:.1e}"
    out.say(f"images          {found.images}, through both sides from file to label")
    out.say(f"crops           {found.crops_different} differ, by at most {found.crop_difference} of 255 (allowed: 0)")
    if tolerance.relative is not None:
        limit = f"{found.relative_difference:.3f} of their root mean square, allowed: {tolerance.relative:g}"
    out.say(
        f"logits          differ by at most {found.logits_difference:.2e} ({limit}; largest {found.largest_logit:.1f})"
    )
    out.say(f"one or many     differ by at most {found.batch_difference:.2e}")
    out.say(f"top-1           the same on {found.same_answers} (at least {tolerance.agreement:.0%} asked for)")
    if found.reference is None or found.device is None:
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("class", box=None, pad_edge=False)
    table.add_column("training side", justify="right")
    table.add_column("device side", justify="right")
    sides = (found.reference.per_class, found.device.per_class)
    for label in contract.labels:
        cells = ("-" if share is None else f"{share:.2%}" for share in (side[label] for side in sides))
        table.add_row(escape(one_line(label)), *cells)
    table.add_row("all", f"{found.reference.accuracy:.2%}", f"{found.device.accuracy:.2%}")
    out.console.print(table)


def _say_layers(out: Output, layers: list[LayerDifference], first: LayerDifference | None, show: bool) -> None:
    if show:
        from rich.table import Table
        from rich.text import Text

        table = Table("layer", "kind", box=None, pad_edge=False)
        table.add_column("relative difference", justify="right")
        table.add_column("largest", justify="right")
        for layer in layers:
            cells = (layer.name, layer.op_type, f"{layer.relative:.1e}", f"{layer.max_abs:.1e}")
            table.add_row(*(Text(one_line(cell), overflow="fold") for cell in cells))
        out.console.print(table)
    if first is not None:
        out.say(f"first to differ {one_line(first.name)} ({first.op_type}), by {first.relative:.1e} of its values")
    elif layers:
        out.say(f"layers          none of {len(layers)} compared ones differs on the device's pixels")


def _document(found: Agreement, tolerance: Tolerance, contract: Contract) -> dict[str, Any]:
    from edgekit.export.verification.parity import allowed_difference

    def finite(value: float) -> float | None:
        return value if value == value and abs(value) != float("inf") else None

    sides = {"training": found.reference, "device": found.device}
    return {
        "precision": contract.precision,
        "images": found.images,
        "crops": {
            "different": found.crops_different,
            "max_abs_difference": found.crop_difference,
            "first": found.first_different,
        },
        "logits": {
            "max_abs_difference": finite(found.logits_difference),
            "batch_difference": finite(found.batch_difference),
            "tolerance": allowed_difference(found, tolerance),
            "relative_difference": finite(found.relative_difference),
            "relative_tolerance": tolerance.relative,
        },
        "top1": {
            "same": found.same_answers,
            "agreement": found.same_answers / found.images,
            "tolerance": tolerance.agreement,
        },
        "accuracy": {
            side: result and {"accuracy": result.accuracy, "correct": result.correct, "per_class": result.per_class}
            for side, result in sides.items()
        },
    }
