"""Table, JSON document and plot of the study of nets, from the results of `architectures.py` and `cores/count.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

from edgekit.files import write_atomic
from edgekit.models.evaluation.plots import save_figure

BASE = "edgecnn"
_MISSING = "-"
_GAP_PX = 5
# Possible places of a label relative to its point: (right, up) in steps of its own size.
_PLACES = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 2), (0, -2), (1, 2), (1, -2)]


def write_report(measured: Sequence[dict[str, Any]], latency: dict[str, Any], counts: Path, output: Path) -> None:
    """Write study.md, study.json and study.png into `output`.

    Args:
        measured: Results of `architectures.evaluate_net`, one per net.
        latency: Result of `architectures.latencies`, or empty.
        counts: Folder of `cores/count.py`'s results; a result is used if its graph has the same structure.
        output: Folder.

    Raises:
        click.ClickException: The nets were trained with different budgets.
    """
    budgets = {json.dumps(net["budget"], sort_keys=True) for net in measured if net["accuracy"]}
    if len(budgets) > 1:
        raise click.ClickException(f"the nets were trained with {len(budgets)} different budgets: train all with one")
    nets = [
        {
            **net,
            "a53": _counted(counts / f"{net['name']}.json", net["structure_sha256"]),
            "latency": latency.get("nets", {}).get(net["name"])
            if latency.get("structures", {}).get(net["name"]) == net["structure_sha256"]
            else None,
        }
        for net in measured
    ]
    document = {
        "budget": json.loads(budgets.pop()) if budgets else None,
        "latency_method": {key: value for key, value in latency.items() if key not in ("nets", "structures")} or None,
        "nets": nets,
    }
    write_atomic(output / "study.json", json.dumps(document, indent=2) + "\n")
    write_atomic(output / "study.md", _table(document))
    _draw(nets, output / "study.png")


def _counted(path: Path, structure_sha256: str) -> dict[str, Any] | None:
    if not path.exists():
        return None
    document: dict[str, Any] = json.loads(path.read_text())
    return document if document["structure_sha256"] == structure_sha256 else None


_COLUMNS = (
    "net",
    "accuracy on PrivateTest, centre crop",
    "parameters",
    "multiply-accumulates, millions",
    "MB moved (of these, weights)",
    "latency on a PC with 1 thread, ms (ratio to edgecnn)",
    "instructions on the A53, millions",
    "L2 misses on the A53, thousands",
)


def _table(document: dict[str, Any]) -> str:
    budget = document["budget"]
    lines = [
        "# Study of small nets",
        "",
        "[EdgeCNN and the memory claim](../explanation/edgecnn.md) explains this table, which "
        f"`benchmarks/models/architectures.py --report` made. {_budget_text(budget, document['nets'])}",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'|'.join([' --- ', *[' ---: '] * (len(_COLUMNS) - 1)])}|",
    ]
    lines += [f"| {' | '.join(_cells(net))} |" for net in document["nets"]]
    return "\n".join(lines) + "\n"


def _budget_text(budget: dict[str, Any] | None, nets: Sequence[dict[str, Any]]) -> str:
    if budget is None:
        return "No net is trained."
    trained: dict[str, list[str]] = {}
    for net in nets:
        if net["accuracy"]:
            trained.setdefault(net["precision"], []).append(net["name"])
    precisions = " ".join(f"Trained in {precision}: {', '.join(names)}." for precision, names in trained.items())
    return (
        f"The nets were trained for {budget['epochs']} epochs (recipe `{budget['recipe']}`, batch size "
        f"{budget['batch_size']}, seed {budget['seed']}). The best epoch was chosen on PublicTest. {precisions} "
        "edgecnn-g-condensed is the net that an export of a trained edgecnn-g-learned contains. Only its cost was "
        "measured, with random weights."
    )


def _cells(net: dict[str, Any]) -> list[str]:
    return [
        net["name"],
        f"{_percent(net):.2f} %" if net["accuracy"] else _MISSING,
        f"{net['parameters']:,}",
        f"{net['macs'] / 1e6:.2f}",
        f"{net['moved_bytes'] / 1e6:.2f} ({net['weight_bytes'] / 1e6:.2f})",
        f"{net['latency']['ms']:.2f} ({net['latency']['ratio']:.2f})" if net["latency"] else _MISSING,
        *(
            f"{net['a53']['median'][key] / unit:.{digits}f}" if net["a53"] else _MISSING
            for key, unit, digits in (
                ("instructions", 1e6, 1),
                ("l2_misses", 1e3, 0),
            )
        ),
    ]


def _percent(net: dict[str, Any]) -> float:
    result = net["accuracy"]["center-crop"]
    return 100 * float(result["correct"]) / float(result["total"])


def _draw(nets: Sequence[dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(6, 11), layout="constrained", dpi=120)
    trained = [net for net in nets if net["accuracy"]]
    counted = [(net, net["a53"]["median"]) for net in trained if net["a53"]]
    panels = {
        "instructions per inference on the A53, millions": [(net, a53["instructions"] / 1e6) for net, a53 in counted],
        "L2 misses per inference on the A53, thousands": [(net, a53["l2_misses"] / 1e3) for net, a53 in counted],
        "multiply-accumulates per inference, millions": [(net, net["macs"] / 1e6) for net in trained],
    }
    # Below each other, so that the text is legible at the width of a phone.
    all_axes = figure.subplots(len(panels), 1)
    for axes, (title, costs) in zip(all_axes, panels.items(), strict=True):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(title)
        axes.grid(alpha=0.3)
        axes.margins(x=0.25, y=0.15)
        for net, cost in costs:
            color = "tab:orange" if net["name"].startswith(BASE) else "tab:blue"
            axes.scatter(cost, _percent(net), s=45, color=color, zorder=3)
    figure.supylabel("accuracy on PrivateTest, centre crop, %", fontsize=10)
    figure.suptitle("Accuracy after equal training\nagainst cost of one inference")
    # Positions in pixels are known after the layout.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, costs in zip(all_axes, panels.values(), strict=True):
        _label(axes, [(cost, _percent(net), net["name"]) for net, cost in costs])
    save_figure(figure, path)


def _label(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write the name of each point next to it, at the first position that overlaps no name and no point."""
    at_px = [tuple(axes.transData.transform((x, y))) for x, y, _ in points]
    taken = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in at_px]
    frame = axes.get_window_extent()
    for (x, y, name), (x_px, y_px) in zip(points, at_px, strict=True):
        text = axes.annotate(name, (x, y), xytext=(0, 0), textcoords="offset pixels", fontsize=9)
        width, height = text.get_window_extent().size
        boxes = []
        for right, up in _PLACES:
            centre_x = x_px + right * (width / 2 + 2 * _GAP_PX)
            centre_y = y_px + up * (height / 2 + 2 * _GAP_PX)
            boxes.append(Bbox.from_bounds(centre_x - width / 2, centre_y - height / 2, width, height))
        inside = [box for box in boxes if frame.x0 < box.x0 and box.x1 < frame.x1] or boxes
        free = [box for box in inside if not any(box.padded(1).overlaps(other) for other in taken)]
        chosen = (free or inside)[0]
        taken.append(chosen)
        text.set_position((chosen.x0 - x_px, chosen.y0 - y_px + height * 0.2))
