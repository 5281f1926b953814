"""Merges the boards of several reports into one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from edgekit.errors import InputError
from edgekit.report.document import SCHEMA, BenchmarkReport, BoardResult, HostOutcome
from edgekit.report.schema import check_fits


def merge(reports: Sequence[BenchmarkReport], labels: Sequence[Sequence[str | None]] | None = None) -> BenchmarkReport:
    """Return one report with the boards of several, in their order, as `edgekit bench --host A --host B` writes it.

    Args:
        reports: Validated reports.
        labels: For each report, the label of each board, also in the board's outcome; default: the label it has.

    Raises:
        InputError: There is no report, or there are too many boards.
    """
    if not reports:
        raise InputError("no report to merge: give at least one")
    boards: list[BoardResult] = []
    hosts: list[HostOutcome] = []
    labels = labels or [[board.label for board in report.boards] for report in reports]
    for report, names in zip(reports, labels, strict=True):
        named = list(zip(report.boards, names, strict=True))
        for board, name in named:
            measured_utc = board.measured_utc or report.created_utc
            boards.append(msgspec.structs.replace(board, label=name, measured_utc=measured_utc))
        changed = {board.label: name for board, name in named if name is not None}
        hosts += [msgspec.structs.replace(host, label=changed.get(host.label, host.label)) for host in report.hosts]
    check_fits(boards=max(len(boards), len(hosts)))
    created_utc = datetime.now(UTC).isoformat(timespec="seconds")
    return BenchmarkReport(schema=SCHEMA, created_utc=created_utc, boards=tuple(boards), hosts=tuple(hosts))
