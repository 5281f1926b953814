"""Check of the face detector's file."""

from __future__ import annotations

from edgekit.doctor.probe import Finding, Probe
from edgekit.pinned_files import YUNET


def detector(probe: Probe) -> Finding:
    """Check that YuNet's file, which the first run downloads, is in the user's cache or in the deployed releases."""
    carriers = [release.name for release in probe.releases().values() if (release / "detector.onnx").is_file()]
    if carriers:
        return Finding("detector", "ok", f"YuNet in release {', '.join(carriers)}")
    path = probe.cache_dir() / YUNET.name
    if (probe.root / path.relative_to("/")).is_file():
        return Finding("detector", "ok", f"YuNet in '{path.parent}'")
    cure = f"run edgekit once with internet, or copy {YUNET.url} to '{path}'"
    return Finding("detector", "warning", f"'{path}' is missing: without it and without internet Haar is used", cure)
