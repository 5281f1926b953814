"""Functions that call the command line in this process."""

from __future__ import annotations

import io
import subprocess
from contextlib import redirect_stderr, redirect_stdout

from edgekit.cli import run as run_command_line

from .conftest import Sshd


def call(*words: object) -> subprocess.CompletedProcess[str]:
    """Return exit code, stdout and stderr of `edgekit WORDS`."""
    stdout, stderr = io.StringIO(), io.StringIO()
    arguments = [str(word) for word in words]
    with redirect_stdout(stdout), redirect_stderr(stderr):
        code = run_command_line(arguments)
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


def ssh_words(sshd: Sshd) -> list[str]:
    """Return the options of a command that reach a board, except --host."""
    host = sshd.host()
    options = [f"--ssh-option={option}" for option in host.ssh_options]
    return ["--port", str(host.port), "--identity", str(host.identity), *options]
