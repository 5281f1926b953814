"""Results of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.contract import Contract
from edgekit.export.profiling.cost import GraphCost
from edgekit.export.verification.comparison import ExportCheck


@dataclass(frozen=True)
class EnsembleForm:
    """Size, MACs per image and, if measured, accuracy (0..1) of a prompted CLIP with or without its frozen tower."""

    size_bytes: int
    macs: int | None
    accuracy: float | None


@dataclass(frozen=True)
class EnsembleComparison:
    """A prompted CLIP exported with and without its frozen tower, for comparison."""

    with_ensemble: EnsembleForm
    without_ensemble: EnsembleForm


@dataclass(frozen=True)
class Exported:
    """An exported file.

    `net_parameters` is the number of parameters of the net in training; `cost` is the cost of the exported graph.
    `changed` maps each enabled rewrite to the number of changes that it made. `opset` and `ir_version` are None for an
    .ncnn file. `ensemble` is set if a prompted CLIP was exported without its frozen tower.
    """

    path: Path
    sha256: str
    size_bytes: int
    opset: int | None
    ir_version: int | None
    contract: Contract
    verification: ExportCheck
    net_parameters: int
    cost: GraphCost
    changed: Mapping[str, int]
    ensemble: EnsembleComparison | None = None
