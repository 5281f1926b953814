"""Metrics of a training, one record per epoch: `metrics.jsonl` and TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgekit.files import write_atomic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

METRICS_NAME = "metrics.jsonl"


class MetricsLog:
    """Context manager that writes one record per epoch to `metrics.jsonl` and TensorBoard events in a folder."""

    def __init__(self, folder: Path, history: Sequence[DataclassInstance]) -> None:
        """Start with the records of the finished epochs."""
        self._path = folder / METRICS_NAME
        self._records = [asdict(record) for record in history]
        self._folder = folder
        self._writer: Any = None

    def __enter__(self) -> Self:
        """Return the log; the first new record opens the event file.

        An epoch whose training was killed between its state and its record is in the history only.
        """
        if self._records:
            self._write_lines()
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the event file."""
        if self._writer:
            self._writer.close()

    def write(self, record: DataclassInstance) -> None:
        """Add the record of one epoch; the JSON lines are rewritten atomically, so none is duplicated or truncated."""
        values = asdict(record)
        self._records.append(values)
        self._write_lines()
        if self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            # TensorBoard hides earlier events of the epochs that a resumed training repeats.
            self._writer = SummaryWriter(str(self._folder), purge_step=len(self._records))
        for name, value in values.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, values["epoch"])
        self._writer.flush()

    def _write_lines(self) -> None:
        write_atomic(self._path, "".join(f"{json.dumps(item)}\n" for item in self._records))
