"""Roofline plot of a profile for one board."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekit.errors import InputError
from edgekit.export.profiling.profile import Profile
from edgekit.export.profiling.roofline import Estimate
from edgekit.files import atomic_path
from edgekit.models.evaluation.plots import check_plot_path

_LABELLED = 5
_DPI = 130


def save_roofline(path: Path, profile: Profile, estimate: Estimate, title: str) -> None:
    """Plot each layer that has multiplications as a disc at its arithmetic intensity and attainable speed.

    The area of the disc is the layer's share of the estimated time; the largest ones have names. Layers that only move
    bytes are not drawn; the legend shows their share.

    Raises:
        InputError: The file's suffix is not supported, or no layer multiplies.
        StorageError: The file cannot be written.
    """
    check_plot_path(path)
    from matplotlib.figure import Figure

    compute, bandwidth = 2 * estimate.roofline.macs_per_s / 1e9, estimate.roofline.bytes_per_s / 1e9
    shares = [ms / estimate.middle_ms for ms in estimate.layers_ms]
    drawn = sorted(
        (-share, layer.name, layer.flops_per_byte)
        for layer, share in zip(profile.layers, shares, strict=True)
        if layer.macs and layer.flops_per_byte
    )
    if not drawn:
        raise InputError("no roofline to draw: no layer of the file multiplies")
    areas = np.array([-share for share, _, _ in drawn])
    intensities = np.array([intensity for _, _, intensity in drawn])
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    ridge = compute / bandwidth
    x = np.geomspace(min(intensities.min(), ridge) / 2, max(intensities.max(), ridge) * 3, 200)
    axes.loglog(
        x, np.minimum(compute, x * bandwidth), color="black", label=f"{compute:.1f} GFLOP/s, {bandwidth:.2f} GB/s"
    )
    axes.axvline(ridge, color="black", linewidth=0.8, linestyle=":")
    speeds = np.minimum(compute, intensities * bandwidth)
    axes.scatter(intensities, speeds, s=20 + 3000 * areas, alpha=0.45, edgecolor="black", linewidth=0.5)
    for index, (share, name, intensity) in enumerate(drawn[:_LABELLED]):
        axes.annotate(
            f"{name[-28:]} ({-share:.0%})",
            (intensity, speeds[index]),
            xytext=(8, -22 - 13 * index),
            textcoords="offset points",
            fontsize=8,
            parse_math=False,  # a layer's name may contain dollar signs
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "gray"},
        )
    axes.plot([], [], " ", label=f"layers that only move bytes: {max(0, 1 - areas.sum()):.0%} of the time")
    axes.legend(loc="lower right", fontsize=8)
    axes.set_xlabel("arithmetic intensity (FLOPs per byte, two per multiply-accumulate, without reuse in a cache)")
    axes.set_ylabel("attainable GFLOP/s")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.grid(alpha=0.3, which="both")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=_DPI)
