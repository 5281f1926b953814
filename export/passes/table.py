"""Registry of the rewrites of a preset in their order, and the function that applies them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias

from onnxscript import ir, optimizer
from onnxscript.ir.passes import common

from edgekit.contract import Contract
from edgekit.export.passes.concat_free import concat_free
from edgekit.export.passes.folding import fold_batchnorm, fold_class_vectors
from edgekit.export.passes.gray_stem import gray_stem
from edgekit.export.passes.merge_pool import merge_pool
from edgekit.export.passes.tidy import tidy

# Takes the graph and the contract after the previous rewrites; returns the number of changes and the new contract.
Rewrite: TypeAlias = Callable[[ir.Model, Contract], tuple[int, Contract]]

_NO_LIMIT = 1 << 62


def _graph_only(rewrite: Callable[[ir.Model], int]) -> Rewrite:
    """Return a `Rewrite` that leaves the contract unchanged."""
    return lambda model, contract: (rewrite(model), contract)


REWRITES: dict[str, Rewrite] = {
    "gray-stem": gray_stem,
    "merge-pool": _graph_only(merge_pool),
    "concat-free": _graph_only(concat_free),
}


def rewritten(model: ir.Model, contract: Contract, names: Collection[str]) -> tuple[Contract, dict[str, int]]:
    """Fold constants and BatchNorm of a graph from torch's exporter, and apply the named rewrites, in place.

    Returns:
        The contract of the rewritten graph, and the number of changes that each named rewrite made.
    """
    # Class vectors and BatchNorm are folded in float64, before the optimiser would fold them in float32. BatchNorm is
    # folded after the constants, because a weight may be computed.
    fold_class_vectors(model)
    optimizer.fold_constants(model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    fold_batchnorm(model)
    optimizer.optimize_ir(model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    changed = {name: 0 for name in REWRITES if name in names}  # in the order in which they are applied
    for name in changed:
        changed[name], contract = REWRITES[name](model, contract)
    common.RemoveUnusedNodesPass()(model)
    tidy(model)
    return contract, changed
