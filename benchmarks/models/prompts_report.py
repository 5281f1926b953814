"""Page of the comparison of prompts: one table per group of trainings and split."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

CHOSEN_ON, TESTED_ON = "PublicTest", "PrivateTest"
BASE = "HiCroPL"
TITLES = {
    "few-shot": "{shots} images per class",
    "all": "All images",
    "base-to-novel": "Base to novel classes, {shots} images per base class",
    "ablations": "Ablations, {shots} images per class",
}
_VARIANTS_TEXT = """\
- **zero-shot**: the CLIP without trained prompts.
- **HiCroPL**: prompts in both towers, with an exchange in both directions ([HiCroPL](../explanation/hicropl.md)).
- **independent prompts**: prompts in both towers, without an exchange.
- **one-way flow (MaPLe)**: the vision prompts are computed from the text prompts in all layers.
- **released code**: HiCroPL as in the code of its authors.
- **Ablations**: HiCroPL with one change. λ is the weight of the consistency loss (12 without a change). k is the last
  layer in which the vision prompts are computed from the text prompts.
"""


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation of accuracies as text, in percent, for a table."""
    mean = f"{statistics.mean(values):.2%}"
    return f"{mean} ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def report(entries: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    """Return the content of prompts.md."""
    lines = ["# Prompts compared", ""]
    lines += [
        f"The CLIP is `{facts['clip']}` (sha256 {facts['clip_sha256'][:12]}). The tables show the mean over the seeds, "
        "and the standard deviation after ±.",
        "",
        _VARIANTS_TEXT,
    ]
    for group, title in TITLES.items():
        of_group = [entry for entry in entries if entry["group"] == group]
        if group == "ablations" and of_group:
            of_group = [e for e in entries if e["group"] == "few-shot" and e["variant"] == BASE] + of_group
        if not of_group:
            continue
        lines += [f"## {title.format(shots=facts['shots'])}", ""]
        if group == "base-to-novel":
            clip = f"The CLIP `{facts['base_clip']}`" if facts["base_clip"] else "The CLIP of this section"
            lines += [
                f"{clip} was pretrained without images and captions of the novel classes. An "
                "image of a novel class is classified only among the novel classes.",
                "",
            ]
        splits = (CHOSEN_ON,) if group == "ablations" else (CHOSEN_ON, TESTED_ON)
        for split in splits:
            measured = [entry for entry in of_group if split in entry["splits"]]
            lines += _table(measured, split) if measured else []
    return "\n".join(lines)


def _table(entries: Sequence[dict[str, Any]], split: str) -> list[str]:
    keys = [key for key in entries[0]["splits"][split] if not key.startswith("zero_shot")]
    first = entries[0]["splits"][split]
    zero_shot = [f"{first[f'zero_shot_{key}'][0]:.2%}" if f"zero_shot_{key}" in first else "" for key in keys]
    rows = [["zero-shot", "", *zero_shot]]
    for entry in entries:
        values = entry["splits"][split]
        rows.append([entry["variant"], str(len(values[keys[0]])), *(spread(values[key]) for key in keys)])
    head = [split, "seeds", *(key.replace("_", " ") for key in keys)]
    return [*(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)), ""]
