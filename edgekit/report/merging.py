"""Merges the boards of several reports into one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from edgekit.errors import InputError
from edgekit.report.document import SCHEMA, BenchmarkReport, BoardResult, HostOutcome
from edgekit.report.schema import check_fits


def merge(reports: Sequence[BenchmarkReport], labels: Sequence[str | None] | None = None) -> BenchmarkReport:
    """Return one report with the boards of several, in their order, as `edgekit bench --host A --host B` writes it.

    Args:
        reports: Validated reports.
        labels: The label for the board of each report, also in its outcome; None keeps the label it has.

    Raises:
        InputError: There is no report, a report with several boards is given a label, or there are too many boards.
    """
    if not reports:
        raise InputError("no report to merge: give at least one")
    boards: list[BoardResult] = []
    hosts: list[HostOutcome] = []
    for report, label in zip(reports, labels or [None] * len(reports), strict=True):
        if label is None:
            boards += report.boards
            hosts += report.hosts
        elif len(report.boards) == 1:
            (board,) = report.boards
            boards.append(msgspec.structs.replace(board, label=label))
            hosts += [
                msgspec.structs.replace(host, label=label) if host.label == board.label else host
                for host in report.hosts
            ]
        else:
            raise InputError(f"label '{label}' is for one board, the report has {len(report.boards)}")
    check_fits(boards=max(len(boards), len(hosts)))
    created_utc = datetime.now(UTC).isoformat(timespec="seconds")
    return BenchmarkReport(schema=SCHEMA, created_utc=created_utc, boards=tuple(boards), hosts=tuple(hosts))
