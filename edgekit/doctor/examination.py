"""Runs all checks, and returns their findings as a JSON document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgekit import __version__
from edgekit.doctor import cameras, libraries, machine
from edgekit.doctor.probe import Finding, Probe

SCHEMA = "edgekit.doctor/1.0"

CHECKS: tuple[Callable[[Probe], Finding | None], ...] = (
    machine.board,
    machine.system,
    machine.python,
    libraries.numpy,
    libraries.onnxruntime,
    libraries.opencv,
    libraries.picamera2,
    libraries.detector,
    cameras.libcamera,
    cameras.v4l2,
    cameras.holders,
    cameras.groups,
    machine.memory,
    machine.disk,
    machine.governor,
    machine.temperature,
    machine.power,
    machine.network_time,
    machine.service,
    machine.releases,
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


def as_document(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the document that `edgekit doctor --json` prints."""
    return {
        "schema": SCHEMA,
        "edgekit": __version__,
        "healthy": not faults(findings),
        "findings": [vars(finding) for finding in findings],
    }
