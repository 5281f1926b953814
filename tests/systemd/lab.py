"""Boots this machine's systemd for one script (boot.sh) and returns the output of the script."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LAB = Path(__file__).parent
ROOT = LAB.parents[1]
SYSTEMD = Path("/lib/systemd/systemd")
PATIENCE_S = 600


def boot(folder: Path, script: str, *arguments: object) -> list[dict[str, Any]]:
    """Run a script of tests/systemd below a systemd and return its JSON lines; both sides share the folder `folder`.

    The test is skipped if no systemd can be booted.
    """
    if os.geteuid() != 0:
        pytest.skip("booting a systemd needs root")
    if not SYSTEMD.exists() or shutil.which("unshare") is None:
        pytest.skip("no systemd to boot: apt-get install systemd util-linux")
    command = shlex.join([sys.executable, str(LAB / script), *map(str, arguments)])
    (folder / "script").write_text(
        f"export PYTHONPATH={shlex.quote(str(ROOT))}\ncd {shlex.quote(str(ROOT))}\n{command}\n"
    )
    namespaces = ["unshare", "--mount", "--pid", "--cgroup", "--ipc", "--uts", "--fork", "--kill-child"]
    machine = subprocess.Popen(
        [*namespaces, "bash", str(LAB / "boot.sh"), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        console = machine.communicate(timeout=PATIENCE_S)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        machine.kill()
        console = machine.communicate()[0].decode(errors="replace")
    output = (folder / "output").read_text() if (folder / "output").exists() else ""
    if not output:
        pytest.skip(f"no systemd can be booted here: {console.strip()[-300:]}")
    print(output)
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]
