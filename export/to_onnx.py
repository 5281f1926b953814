"""Export of a checkpoint to one self-describing ONNX file, whose logits are compared with torch's."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from onnx_ir.passes.common import DeduplicateInitializersPass
from onnxscript import ir
from torch import nn

from edgekit import __version__
from edgekit.contract import METADATA_KEY, SCHEMA_VERSION, Contract, GraphLevel, channel_count
from edgekit.errors import EdgekitError, InputError
from edgekit.export.options import ExportOptions
from edgekit.export.passes.table import rewritten
from edgekit.export.profiling.cost import GraphCost, graph_cost
from edgekit.export.relabelling import relabelled
from edgekit.export.targets import GENERIC, TARGETS
from edgekit.export.verification.comparison import ExportCheck, check_export
from edgekit.files import atomic_path, check_writable, sha256_of
from edgekit.model_store import NCNN_SUFFIX, ONNX_SUFFIX
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.clip.text_tower import text_tower_beside
from edgekit.models.model_loading import check_weights
from edgekit.models.nets.grouped import condensed
from edgekit.models.nets.registry import parameter_count

# The opset torch's exporter writes without conversion; every onnxruntime since 1.14 reads it.
OPSET = 18
IR_VERSION = 8

# Graph optimisation level of ONNX Runtime during verification, the same as in the runtime.
VERIFIED_LEVEL: GraphLevel = "all"
_NO_LIMIT = 1 << 62
# torch's exporter would make a batch of one a constant.
_EXAMPLE_BATCH = 2


@dataclass(frozen=True)
class Exported:
    """An exported file.

    `net_parameters` is the number of parameters of the net in training; `cost` is the cost of the exported graph.
    `changed` maps each enabled rewrite to the number of changes that it made. `opset` and `ir_version` are None for an
    .ncnn file.
    """

    path: Path
    sha256: str
    size_bytes: int
    contract: Contract
    verification: ExportCheck
    net_parameters: int
    cost: GraphCost
    changed: Mapping[str, int]
    opset: int | None = None
    ir_version: int | None = None


def open_checkpoint(path: Path, options: ExportOptions) -> tuple[nn.Module, Contract]:
    """Return a checkpoint's net and the contract of its exported file, with the labels that the options state.

    Raises:
        InputError: The checkpoint or the labels cannot be used.
    """
    checkpoint = load_checkpoint(path)
    try:
        check_weights(checkpoint)
    except InputError as error:
        raise InputError(f"checkpoint '{path}': {error}") from error
    net, contract = relabelled(checkpoint, options, text_tower_beside(path))  # which need not exist
    return net, with_origin(contract, path)


def with_origin(contract: Contract, checkpoint: Path) -> Contract:
    """Return the contract with the checkpoint's sha256 and the version of edgekit."""
    origin = replace(contract.provenance, checkpoint_sha256=sha256_of(checkpoint), edgekit_version=__version__)
    return replace(contract, provenance=origin)


def export_net(
    net: nn.Module,
    contract: Contract,
    target: Path,
    passes: Collection[str] = TARGETS[GENERIC].passes,
    tolerance: float | None = None,
    shares_weights: bool = False,
) -> Exported:
    """Export a net to `target` with its contract; equal nets and contracts give equal bytes.

    Args:
        net: Takes the contract's input and returns one logit per label.
        contract: The contract stored in the file.
        target: The .onnx file.
        passes: Names of the rewrites; see `edgekit.export.targets`.
        tolerance: Largest difference of a logit of the file from the net's; None: see `check_export`.
        shares_weights: Whether the net uses some layers twice; the file then stores their weights once.

    Raises:
        InputError: The net does not fit its contract, or `target` does not end in .onnx.
        GateError: The file's logits differ from the net's; `target` is left unchanged.
        StorageError: The file cannot be written.
    """
    check_target(target)
    with atomic_path(target) as temporary:
        # Condensed: learned group convolutions become a gather and a grouped convolution, with the same logits.
        model, changed = convert(condensed(net.eval()), contract, passes, shares_weights)
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        verification = check_export(temporary, net, contract, tolerance)
        size_bytes, sha256 = temporary.stat().st_size, sha256_of(temporary)
    return Exported(
        path=target,
        sha256=sha256,
        size_bytes=size_bytes,
        opset=OPSET,
        ir_version=IR_VERSION,
        contract=contract_of(model),
        verification=verification,
        net_parameters=parameter_count(net),
        cost=graph_cost(model),
        changed=changed,
    )


def check_target(target: Path, suffix: str = ONNX_SUFFIX) -> None:
    """Check that an exported file can be written to `target`.

    Raises:
        InputError: `target` does not end in `suffix`, or is a folder.
        StorageError: Its folder is not writable.
    """
    if target.suffix != suffix:
        engine = {ONNX_SUFFIX: "onnx", NCNN_SUFFIX: "ncnn"}.get(target.suffix)
        other_cure = f", or choose engine {engine} for '{target.suffix}'" if engine else ""
        raise InputError(f"output '{target}' must end in '{suffix}': rename it{other_cure}")
    check_writable(target)


def to_onnx(net: nn.Module, contract: Contract, passes: Collection[str] = TARGETS[GENERIC].passes) -> onnx.ModelProto:
    """Return `net` as a checked ONNX model with `contract` in its metadata and a dynamic batch size.

    Learned group convolutions are first replaced by equal ones that infer faster, see `condensed`.

    Raises:
        InputError: The net does not take the contract's input or does not return one logit per label.
    """
    model, _changed = convert(condensed(net.eval()), contract, passes)
    return model


def convert(
    net: nn.Module, contract: Contract, passes: Collection[str], shares_weights: bool = False
) -> tuple[onnx.ModelProto, dict[str, int]]:
    """Export a net to ONNX and apply rewrites; return the checked model, and how often each rewrite changed it.

    `shares_weights` is that of `export_net`. Raises as `to_onnx`.
    """
    model = _exported_graph(net.eval(), contract)
    contract, changed = rewritten(model, contract, passes)
    if shares_weights:
        # Constant folding has stored a transposed copy of a weight for each of its uses.
        DeduplicateInitializersPass(size_limit=_NO_LIMIT)(model)
    contract = replace(contract, schema=SCHEMA_VERSION, verified_level=VERIFIED_LEVEL)
    return finished(ir.to_proto(model), contract), changed


def contract_of(model: onnx.ModelProto) -> Contract:
    """Return the contract in a model's metadata.

    Raises:
        InputError: The model has no contract, or the contract is not valid.
    """
    documents = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if not documents:
        raise InputError("the model has no edgekit contract: create the file with 'edgekit export'")
    return Contract.from_json(documents[0])


def _exported_graph(net: nn.Module, contract: Contract) -> ir.Model:
    """Return the graph that torch exports of a net, with a dynamic batch size, before all rewrites.

    Raises:
        InputError: The net does not fit the contract.
    """
    spec = contract.input
    example = torch.zeros(_EXAMPLE_BATCH, channel_count(spec.channels), *spec.size_hw)
    _check_fit(net, example, contract)
    # torch warns about its own use of LeafSpec, and logs decisions that the user cannot change.
    with only_errors("torch.onnx"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        program = torch.onnx.export(
            net,
            (example,),
            dynamo=True,
            verbose=False,
            optimize=False,  # `rewritten` does, after it has folded BatchNorm in float64
            opset_version=OPSET,
            input_names=[spec.name],
            output_names=[contract.output.name],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    return program.model


def _check_fit(net: nn.Module, example: torch.Tensor, contract: Contract) -> None:
    """Run a net on an example batch; raise InputError if its input or its output does not fit the contract.

    The net must return one logit per label. `example` is (_EXAMPLE_BATCH, channels, H, W).
    """
    shape = list(example.shape[1:])
    try:
        with torch.no_grad():
            logits = net(example)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{contract.architecture} does not take the contract's input {shape} (channels, height, width): {reason}"
        ) from error
    expected = [_EXAMPLE_BATCH, len(contract.labels)]
    if list(logits.shape) != expected:
        raise InputError(
            f"{contract.architecture} returns {list(logits.shape)} for a batch of {_EXAMPLE_BATCH}, "
            f"the contract's labels need {expected}"
        )


def finished(model: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    """Set the contract of a model as its only metadata, check the model with `onnx.checker`, and return it."""
    model.ir_version = IR_VERSION
    model.producer_name = "edgekit"
    model.producer_version = __version__
    model.graph.name = contract.architecture
    del model.graph.value_info[:]  # shapes of intermediate tensors, which every reader infers again
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EdgekitError(f"the exported graph is invalid: {error}") from error
    return model


@contextmanager
def only_errors(logger_name: str | None = None) -> Iterator[None]:
    """Let a logger log errors only, within the context; default: the root logger."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
