"""Runs all checks, and reads and writes their findings as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from edgekit import __version__
from edgekit.doctor import accelerators, cameras, detector, libraries, machine, service
from edgekit.doctor.probe import Finding, Probe, Status
from edgekit.errors import InputError
from edgekit.text import one_line

SCHEMA = "edgekit.doctor/1.0"
_SCHEMA_PREFIX = "edgekit.doctor/1."
_MAX_BYTES = 1 << 20
_MAX_FINDINGS = 100
_MAX_TEXT = 500

CHECKS: tuple[Callable[[Probe], Finding | None], ...] = (
    machine.board,
    machine.system,
    machine.python,
    libraries.numpy,
    libraries.onnxruntime,
    libraries.opencv,
    libraries.picamera2,
    detector.detector,
    cameras.libcamera,
    cameras.v4l2,
    cameras.holders,
    cameras.groups,
    accelerators.accelerators,
    machine.memory,
    machine.disk,
    machine.governor,
    machine.temperature,
    machine.power,
    machine.network_time,
    service.service,
)


def examine(probe: Probe, progress: Callable[[int, int | None], None] = lambda _, __: None) -> list[Finding]:
    """Return the findings of all checks that apply to the machine; `progress` receives (done, total)."""
    findings = []
    for index, check in enumerate(CHECKS):
        try:
            found = check(probe)
        except Exception as error:  # one check that fails must not hide the findings of the others
            found = Finding(check.__name__, "unknown", f"the check failed: {type(error).__name__}: {error}"[:200])
        if found is not None:
            findings.append(found)
        progress(index + 1, len(CHECKS))
    return findings


def faults(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that prevent edgekit from working."""
    return [finding for finding in findings if finding.status == "fault"]


def parse_findings(content: bytes, name: str) -> list[Finding]:
    """Return the findings in the output of another machine's `edgekit doctor --json`, with control characters escaped.

    `name` is the subject of the error message.

    Raises:
        InputError: The output is not a document of `edgekit doctor --json`.
    """
    try:
        document = json.loads(content[: _MAX_BYTES + 1])
        if len(content) > _MAX_BYTES or not str(document["schema"]).startswith(_SCHEMA_PREFIX):
            raise ValueError("unknown schema")
        entries = list(document["findings"])[:_MAX_FINDINGS]
        return [_finding(entry) for entry in entries]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{name} printed no findings of edgekit doctor: {one_line(str(error))[:100]}") from error


def _finding(entry: Mapping[str, Any]) -> Finding:
    check, status, text, cure = (entry[key] for key in ("check", "status", "text", "cure"))
    if status not in get_args(Status):
        raise ValueError(f"unknown status {status!r}")
    texts = [one_line(str(value))[:_MAX_TEXT] for value in (check, text)]
    return Finding(texts[0], status, texts[1], None if cure is None else one_line(str(cure))[:_MAX_TEXT])


def as_document(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the document that `edgekit doctor --json` prints."""
    return {
        "schema": SCHEMA,
        "edgekit": __version__,
        "healthy": not faults(findings),
        "findings": [vars(finding) for finding in findings],
    }
