"""All rewrites that can be chosen, in the order they run, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias

from onnxscript import ir, optimizer
from onnxscript.ir.passes import common

from edgekit.contract import Contract
from edgekit.export.onnx.passes.concat_free import concat_free
from edgekit.export.onnx.passes.fold_batchnorm import fold_batchnorm
from edgekit.export.onnx.passes.fold_class_vectors import class_vector_nodes, fold_class_vectors
from edgekit.export.onnx.passes.gray_stem import gray_stem
from edgekit.export.onnx.passes.merge_pool import merge_pool
from edgekit.export.onnx.passes.pack_channels import pack_channels
from edgekit.export.onnx.passes.tidy import tidy
from edgekit.export.onnx.passes.uint8_input import uint8_input

# Takes the graph and the contract as the passes before left it; returns the number of places changed and the contract.
Rewrite: TypeAlias = Callable[[ir.Model, Contract], tuple[int, Contract]]

_NO_LIMIT = 1 << 62


def _graph_only(rewrite: Callable[[ir.Model], int]) -> Rewrite:
    return lambda model, contract: (rewrite(model), contract)


_CLASS_VECTORS, _BATCHNORM = "fold-class-vectors", "fold-batchnorm"
REWRITES: dict[str, Rewrite] = {
    _CLASS_VECTORS: _graph_only(fold_class_vectors),
    _BATCHNORM: _graph_only(fold_batchnorm),
    "gray-stem": gray_stem,
    "uint8-input": uint8_input,
    "pack-channels": _graph_only(pack_channels),
    "merge-pool": _graph_only(merge_pool),
    "concat-free": _graph_only(concat_free),
}


def rewritten(model: ir.Model, contract: Contract, names: Collection[str]) -> tuple[Contract, dict[str, int]]:
    """Simplify a graph as torch exported it, in place, with the named rewrites.

    Returns:
        The contract of the rewritten graph, and how many places each rewrite changed.
    """
    changed = {name: 0 for name in REWRITES if name in names}
    # Normalisations before the optimiser, which would fold them too, in float32; after constants, since a weight may be
    # computed.
    if _CLASS_VECTORS in names:
        changed[_CLASS_VECTORS] = fold_class_vectors(model)
        kept: set[ir.Node] = set()
    else:
        kept = set(class_vector_nodes(model))
    _fold_constants(model, kept)
    if _BATCHNORM in names:
        changed[_BATCHNORM] = fold_batchnorm(model)
    _optimize(model, kept, folds_batchnorm=_BATCHNORM in names)
    for name in [name for name in changed if name not in (_CLASS_VECTORS, _BATCHNORM)]:
        changed[name], contract = REWRITES[name](model, contract)
    common.RemoveUnusedNodesPass()(model)
    tidy(model)
    return contract, changed


def _fold_constants(model: ir.Model, kept: Collection[ir.Node]) -> None:
    optimizer.fold_constants(
        model,
        input_size_limit=_NO_LIMIT,
        output_size_limit=_NO_LIMIT,
        should_fold=lambda node: False if node in kept else None,
    )


def _optimize(model: ir.Model, kept: Collection[ir.Node], folds_batchnorm: bool) -> None:
    if not folds_batchnorm:
        # The optimiser's rules, which cannot be chosen, include one for normalisations.
        for tidying in (
            common.RemoveUnusedNodesPass(),
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.CommonSubexpressionEliminationPass(),
        ):
            tidying(model)
        return
    optimizer.optimize_ir(
        model,
        input_size_limit=_NO_LIMIT,
        output_size_limit=_NO_LIMIT,
        should_fold=lambda node: False if node in kept else None,
    )
