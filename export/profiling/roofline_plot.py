"""The roofline of a board with a net's layers on it."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import InputError
from edgekit.export.profiling.profile import LayerProfile, Profile
from edgekit.export.profiling.roofline import Estimate
from edgekit.files import atomic_path
from edgekit.models.evaluation.plots import check_plot_path

_COLOURS = {"Conv": "tab:blue", "grouped Conv": "tab:orange", "product": "tab:green", "other": "tab:gray"}
_LABELLED = 5
_LONGEST_NAME = 28
_DPI = 130


def save_roofline(path: Path, profile: Profile, estimate: Estimate, title: str) -> None:
    """Draw every layer with arithmetic at its intensity, as large as its share of the estimated time.

    Layers that only move bytes have no place on it; the legend says their share.

    Raises:
        InputError: The file's ending is none matplotlib draws here, or no layer has arithmetic.
        StorageError: The file cannot be written.
    """
    check_plot_path(path)
    import numpy as np
    from matplotlib.figure import Figure

    roofline = estimate.roofline
    compute, bandwidth = 2 * roofline.macs_per_s / 1e9, roofline.bytes_per_s / 1e9
    drawn = [
        (layer, layer.flops_per_byte, ms)
        for layer, ms in zip(profile.layers, estimate.layers_ms, strict=True)
        if layer.macs and layer.flops_per_byte
    ]
    if not drawn:
        raise InputError("no roofline to draw: no layer of the file multiplies")
    silent = 1 - sum(ms for _, _, ms in drawn) / estimate.middle_ms
    least = min(intensity for _, intensity, _ in drawn)
    most = max(intensity for _, intensity, _ in drawn)
    ridge = compute / bandwidth
    x = np.geomspace(min(least, ridge) / 2, max(most, ridge) * 3, 200)
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    axes.loglog(x, np.minimum(compute, x * bandwidth), color="black", linewidth=1.5)
    axes.axvline(ridge, color="black", linewidth=0.8, linestyle=":")
    axes.text(x[-1], compute * 1.06, f"{compute:.1f} GFLOP/s", ha="right", va="bottom", fontsize=9)
    middle = (x[0] * ridge) ** 0.5
    axes.text(middle, middle * bandwidth * 1.35, f"{bandwidth:.2f} GB/s", ha="center", fontsize=9)
    for kind, colour in _COLOURS.items():
        chosen = [(value, ms) for layer, value, ms in drawn if _kind(layer) == kind]
        if chosen:
            share = sum(ms for _, ms in chosen) / estimate.middle_ms
            axes.scatter(
                [value for value, _ in chosen],
                [min(compute, value * bandwidth) for value, _ in chosen],
                s=[20 + 3000 * ms / estimate.middle_ms for _, ms in chosen],
                color=colour,
                alpha=0.45,
                edgecolor="black",
                linewidth=0.5,
                label=f"{kind}: {share:.0%} of the time",
            )
    for index, (layer, value, ms) in enumerate(sorted(drawn, key=lambda entry: -entry[2])[:_LABELLED]):
        axes.annotate(
            f"{_short(layer.name)} ({ms / estimate.middle_ms:.0%})",
            (value, min(compute, value * bandwidth)),
            xytext=(8, -22 - 13 * index),
            textcoords="offset points",
            fontsize=8,
            parse_math=False,  # the file's names may hold dollars
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "gray"},
        )
    axes.scatter([], [], s=20, color="none", label=f"layers that only move bytes: {silent:.0%}")
    axes.set_xlabel("arithmetic intensity (FLOPs a byte, two a multiply-accumulate, no reuse in a cache)")
    axes.set_ylabel("attainable GFLOP/s")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.grid(alpha=0.3, which="both")
    legend = axes.legend(loc="lower right", fontsize=8)
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([40])
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=_DPI)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"


def _kind(layer: LayerProfile) -> str:
    if "Conv" in layer.op_type:
        return "grouped Conv" if layer.groups > 1 else "Conv"
    return "product" if "Gemm" in layer.op_type or "MatMul" in layer.op_type else "other"
