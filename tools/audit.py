"""Checks the installed dependencies: known vulnerabilities, by pip-audit, and licences, by their metadata.

    python tools/audit.py PIP_AUDIT

PIP_AUDIT is the program. Without access to its advisory source the first check is skipped with one line. The exit code
is 1 if a dependency has a known vulnerability, or only licences of strong copyleft.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions

# Strong copyleft: a program that imports the package would have to take the licence over.
_REFUSED = ("AGPL", "GPL-2", "GPL-3", "GPLv2", "GPLv3", "GNU General Public", "Affero")
# Programs that the checks run and no code imports.
_TOOLS = {"codespell"}
_WEAKER = ("LGPL", "Lesser")
_TIMEOUT_S = 300
_UNREACHABLE = ("ConnectionError", "ServiceError", "Max retries", "Temporary failure", "timed out", "HTTPError")


def vulnerabilities(pip_audit: str) -> list[str] | None:
    """Return one line per known vulnerability of this environment; None if the advisory source is not reachable."""
    words = [pip_audit, "--progress-spinner=off", "--format=json", "--path", sysconfig.get_path("purelib")]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S)
        document = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired):
        return None
    except ValueError:
        if any(text in done.stderr for text in _UNREACHABLE):
            return None
        sys.exit(f"pip-audit failed: {done.stderr.strip()[-500:]}")
    return [
        f"{package['name']} {package['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none'}"
        for package in document["dependencies"]
        for found in package.get("vulns", ())
    ]


def licence_of(package: Distribution) -> str:
    """Return what a package's metadata state about its licence, the shortest field first."""
    about = package.metadata
    classifiers = [text for text in about.get_all("Classifier") or () if text.startswith("License")]
    return about.get("License-Expression") or "; ".join(classifiers) or (about.get("License") or "")[:200]


def refused_licences() -> Iterator[str]:
    """Yield one line per package that has only licences of strong copyleft; print packages that state no licence."""
    for package in distributions():
        text = licence_of(package)
        name = package.metadata["Name"]
        if not text:
            print(f"no licence in the metadata: {name}")
        # Of several licences one may be chosen.
        offers = text.replace(" OR ", "; ").split("; ")
        if text and name not in _TOOLS and all(map(_is_strong, offers)):
            yield f"{name} {package.version}: {text}"


def _is_strong(licence: str) -> bool:
    return any(word in licence for word in _REFUSED) and not any(word in licence for word in _WEAKER)


def main(pip_audit: str) -> int:
    """Run both checks, print the result, and return the exit code."""
    found = vulnerabilities(pip_audit)
    if found is None:
        print("vulnerabilities: not checked, because the advisory source cannot be reached")
    else:
        print(f"vulnerabilities: {len(found)} known", *found, sep="\n  ")
    refused = list(refused_licences())
    print(f"licences: {len(refused)} refused", *refused, sep="\n  ")
    return int(bool(found or refused))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
