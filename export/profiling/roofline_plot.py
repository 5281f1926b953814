"""Roofline plot of a profile for one board."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import InputError
from edgekit.export.profiling.profile import LayerProfile, Profile
from edgekit.export.profiling.roofline import Estimate
from edgekit.files import atomic_path
from edgekit.models.evaluation.plots import check_plot_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"Conv": "tab:blue", "grouped Conv": "tab:orange", "product": "tab:green", "other": "tab:gray"}
_LABELLED = 5
_LONGEST_NAME = 28
_DPI = 130


@dataclass(frozen=True)
class _Point:
    """A layer on the plot: FLOPs per byte, attainable GFLOP/s, share of the estimated time."""

    layer: LayerProfile
    intensity: float
    gflops: float
    share: float


def save_roofline(path: Path, profile: Profile, estimate: Estimate, title: str) -> None:
    """Plot each layer that has multiplications as a disc at its arithmetic intensity and attainable speed.

    The area of the disc is the layer's share of the estimated time. Layers that only move bytes are not drawn; the
    legend shows their share.

    Raises:
        InputError: The file's suffix is not supported, or no layer multiplies.
        StorageError: The file cannot be written.
    """
    check_plot_path(path)
    from matplotlib.figure import Figure

    compute = 2 * estimate.roofline.macs_per_s / 1e9
    bandwidth = estimate.roofline.bytes_per_s / 1e9
    points = [
        _Point(
            layer,
            layer.flops_per_byte,
            min(compute, layer.flops_per_byte * bandwidth),
            ms / estimate.middle_ms,
        )
        for layer, ms in zip(profile.layers, estimate.layers_ms, strict=True)
        if layer.macs and layer.flops_per_byte
    ]
    if not points:
        raise InputError("no roofline to draw: no layer of the file multiplies")
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    _draw_roof(axes, [point.intensity for point in points], compute, bandwidth)
    _draw_layers(axes, points)
    axes.set_xlabel("arithmetic intensity (FLOPs per byte, two per multiply-accumulate, without reuse in a cache)")
    axes.set_ylabel("attainable GFLOP/s")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.grid(alpha=0.3, which="both")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=_DPI)


def _draw_roof(axes: Axes, intensities: list[float], compute: float, bandwidth: float) -> None:
    import numpy as np

    ridge = compute / bandwidth
    x = np.geomspace(min(*intensities, ridge) / 2, max(*intensities, ridge) * 3, 200)
    axes.loglog(x, np.minimum(compute, x * bandwidth), color="black", linewidth=1.5)
    axes.axvline(ridge, color="black", linewidth=0.8, linestyle=":")
    axes.text(x[-1], compute * 1.06, f"{compute:.1f} GFLOP/s", ha="right", va="bottom", fontsize=9)
    middle = (x[0] * ridge) ** 0.5
    axes.text(middle, middle * bandwidth * 1.35, f"{bandwidth:.2f} GB/s", ha="center", fontsize=9)


def _draw_layers(axes: Axes, points: list[_Point]) -> None:
    for kind, colour in _COLOURS.items():
        chosen = [point for point in points if _kind(point.layer) == kind]
        if chosen:
            axes.scatter(
                [point.intensity for point in chosen],
                [point.gflops for point in chosen],
                s=[20 + 3000 * point.share for point in chosen],
                color=colour,
                alpha=0.45,
                edgecolor="black",
                linewidth=0.5,
                label=f"{kind}: {sum(point.share for point in chosen):.0%} of the time",
            )
    for index, point in enumerate(sorted(points, key=lambda point: -point.share)[:_LABELLED]):
        axes.annotate(
            f"{_short(point.layer.name)} ({point.share:.0%})",
            (point.intensity, point.gflops),
            xytext=(8, -22 - 13 * index),
            textcoords="offset points",
            fontsize=8,
            parse_math=False,  # a layer's name may contain dollar signs
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "gray"},
        )
    moving = 1 - sum(point.share for point in points)
    axes.scatter([], [], s=20, color="none", label=f"layers that only move bytes: {moving:.0%}")
    legend = axes.legend(loc="lower right", fontsize=8)
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([40])


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"


def _kind(layer: LayerProfile) -> str:
    if "Conv" in layer.op_type:
        return "grouped Conv" if layer.groups > 1 else "Conv"
    return "product" if "Gemm" in layer.op_type or "MatMul" in layer.op_type else "other"
