"""Registry of the rewrites in their order, and the function that applies them."""

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
from edgekit.export.onnx.passes.tidy import tidy
from edgekit.export.onnx.passes.uint8_input import uint8_input

# Takes the graph and the contract after the previous rewrites; returns the number of changes and the new contract.
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
    "merge-pool": _graph_only(merge_pool),
    "concat-free": _graph_only(concat_free),
}


def rewritten(model: ir.Model, contract: Contract, names: Collection[str]) -> tuple[Contract, dict[str, int]]:
    """Apply the named rewrites and constant folding in place to a graph from torch's exporter.

    Returns:
        The contract of the rewritten graph, and the number of changes that each rewrite made.
    """
    changed = {name: 0 for name in REWRITES if name in names}
    # BatchNorm is folded before the optimiser, which would fold it in float32, and after constant folding, because a
    # weight may be computed.
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
        # `optimize_ir` always folds BatchNorm, so only its other parts run.
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
