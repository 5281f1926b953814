"""From a checkpoint to one self-describing ONNX file: exported, folded, checked, and verified against torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from onnxscript import ir, optimizer
from torch import nn

from edgekit import __version__
from edgekit.contract import METADATA_KEY, Contract, channel_count
from edgekit.errors import EdgekitError, InputError
from edgekit.export.cost import GraphCost, graph_cost
from edgekit.export.passes.fold_batchnorm import fold_batchnorm
from edgekit.export.passes.tidy import tidy
from edgekit.export.verify import Verification, portrait_crops, verify
from edgekit.files import atomic_path, sha256_of
from edgekit.modelfiles import ONNX_SUFFIX
from edgekit.models.checkpoint import Checkpoint, build_net, load_checkpoint
from edgekit.models.registry import parameter_count

# What the exporter writes without converting, and old enough for every onnxruntime since 1.14.
OPSET = 18
IR_VERSION = 8

_NO_LIMIT = 1 << 62
# A batch of one would be taken for a constant.
_EXAMPLE_BATCH = 2


@dataclass(frozen=True)
class Exported:
    """An exported file; `net_parameters` are those of the net in training, `cost` is the file's own."""

    path: Path
    sha256: str
    size_bytes: int
    opset: int
    ir_version: int
    contract: Contract
    verification: Verification
    net_parameters: int
    cost: GraphCost


def export_checkpoint(
    checkpoint_path: Path, target: Path, relabel: Callable[[Checkpoint], Checkpoint] | None = None
) -> Exported:
    """Export a checkpoint to `target`; the same checkpoint gives the same bytes.

    Args:
        checkpoint_path: A .safetensors file.
        target: The .onnx file.
        relabel: Gives a student other labels first; see `edgekit.models.distill.relabel`.

    Raises:
        InputError: The checkpoint cannot be used, or `target` does not end in .onnx.
        GateError: The exported file answers otherwise than the checkpoint; `target` is left as it was.
        StorageError: The file cannot be written.
    """
    if target.suffix != ONNX_SUFFIX:
        raise InputError(f"output '{target}' must end in '{ONNX_SUFFIX}': every command knows a model by it")
    checkpoint = load_checkpoint(checkpoint_path)
    if relabel:
        checkpoint = relabel(checkpoint)
    try:
        net = build_net(checkpoint)
    except InputError as error:
        raise InputError(f"checkpoint '{checkpoint_path}': {error}") from error
    provenance = replace(
        checkpoint.contract.provenance, checkpoint_sha256=sha256_of(checkpoint_path), edgekit_version=__version__
    )
    contract = replace(checkpoint.contract, provenance=provenance)
    with atomic_path(target) as temporary:
        model = to_onnx(net, contract)
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        verification = verify(temporary, net, contract, portrait_crops(contract))
        size_bytes, sha256 = temporary.stat().st_size, sha256_of(temporary)
    return Exported(
        path=target,
        sha256=sha256,
        size_bytes=size_bytes,
        opset=OPSET,
        ir_version=IR_VERSION,
        contract=contract,
        verification=verification,
        net_parameters=parameter_count(net),
        cost=graph_cost(model),
    )


def to_onnx(net: nn.Module, contract: Contract) -> onnx.ModelProto:
    """Return `net` as an ONNX model that carries `contract`: any batch size, BatchNorm folded, fully checked.

    Raises:
        InputError: The net does not take the contract's input or does not give one logit a label.
    """
    model = _exported_graph(net.eval(), contract)
    # Before the optimiser, which would fold too, in float32; after constants, since a weight may be computed.
    optimizer.fold_constants(model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    fold_batchnorm(model)
    optimizer.optimize(model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    tidy(model)
    return _finished(ir.to_proto(model), contract)


def _exported_graph(net: nn.Module, contract: Contract) -> ir.Model:
    spec = contract.input
    example = torch.zeros(_EXAMPLE_BATCH, channel_count(spec.channels), *spec.size_hw)
    _check_fit(net, example, contract)
    with _quiet_exporter():
        program = torch.onnx.export(
            net,
            (example,),
            dynamo=True,
            verbose=False,
            optimize=False,
            opset_version=OPSET,
            input_names=[spec.name],
            output_names=[contract.output.name],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    return program.model


def _check_fit(net: nn.Module, example: torch.Tensor, contract: Contract) -> None:
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
            f"{contract.architecture} gives {list(logits.shape)} for a batch of {_EXAMPLE_BATCH}, "
            f"the contract's labels ask for {expected}"
        )


def _finished(model: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    model.ir_version = IR_VERSION
    model.producer_name = "edgekit"
    model.producer_version = __version__
    model.graph.name = contract.architecture
    # Every reader infers these again.
    del model.graph.value_info[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EdgekitError(f"the exported graph is invalid: {error}") from error
    return model


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    # torch copies a class of its own in a way it deprecates, and its logger speaks of what it decided by itself.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            yield
    finally:
        logger.setLevel(level)
