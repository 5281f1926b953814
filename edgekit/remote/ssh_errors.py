"""Explains error messages of ssh and names a cure for each."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise

from edgekit.remote.hosts import Host
from edgekit.text import one_line


def explain(stderr: str, host: Host) -> str:
    """Return one line with the reason why ssh failed, and the cure.

    Args:
        stderr: Error output of ssh.
        host: The host that ssh was called for.
    """
    for pattern, cure in _CURES:
        if re.search(pattern, stderr):
            return cure.format(
                ssh=" ".join(["ssh", *_ssh_arguments(host), shlex.quote(host.address)]),
                copy_id=" ".join(["ssh-copy-id", *_copy_id_arguments(host), shlex.quote(host.address)]),
                keygen=_remove_key(stderr, host),
            )
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    return f"ssh failed: {one_line(lines[-1])[:300]}" if lines else _CLOSED_BEFORE_LOGIN


def not_run(printed: bytes) -> str:
    """Return one line for a shell that did not run its command, with the last line that it printed."""
    lines = printed.decode(errors="replace").strip().splitlines()
    shown = f"it printed '{one_line(lines[-1])[:200]}'" if lines else "it printed nothing"
    return (
        f"the board's shell ended without running the command; {shown}: remove what ends it from ~/.bashrc or "
        "~/.profile, and a forced command from ~/.ssh/authorized_keys"
    )


# With its log level ERROR, ssh prints nothing in this case.
_CLOSED_BEFORE_LOGIN = (
    "the board closed the connection before the login, as its sshd does for a while after rejected logins"
    " (PerSourcePenalties): wait some minutes, then try again"
)


_CURES = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "its host key has changed: either the board was reinstalled or the connection is intercepted."
        " If the board was reinstalled: '{keygen}', then '{ssh}' and compare the fingerprint",
    ),
    (
        r"REVOKED HOST KEY|Host key .* revoked",
        "its host key is marked as revoked in known_hosts: edgekit does not connect",
    ),
    (
        r"Host key verification failed|host key is known for|authenticity of host",
        "its host key is not known on this machine: run '{ssh}' once and compare the fingerprint with the board's",
    ),
    (
        r"UNPROTECTED PRIVATE KEY FILE",
        "ssh ignores the private key, because other users can read it: chmod 600 its file",
    ),
    (
        r"Permission denied|Too many authentication failures",
        "it accepts none of your keys, and edgekit uses no passwords: '{copy_id}' installs your key"
        " (--identity selects another key)",
    ),
    (r"Could not resolve hostname", "the name is unknown in this network: check the spelling, or use the IP address"),
    (r"Connection refused", "the port is closed: enable ssh on the board (raspi-config), or check --port"),
    (
        r"Connection timed out|Operation timed out|No route to host|Network is unreachable|Host is down",
        "no answer: check that the board is on and in the same network",
    ),
    (r"Connection reset|Connection closed|Broken pipe|Timeout, server", "the connection was interrupted: try again"),
    (
        r"no such identity|Load key .*: (?!error in libcrypto)|invalid format",
        "the key given with --identity cannot be read: check its path",
    ),
    (r"command-line: line \d+: |unknown option|usage: ssh", "ssh rejects an option: check --ssh-option"),
)


def _ssh_arguments(host: Host) -> list[str]:
    """Return the options of ssh for a host, quoted for a shell."""
    return [*_port_and_key(host), *map(shlex.quote, host.ssh_options)]


def _copy_id_arguments(host: Host) -> list[str]:
    """Return the options of ssh-copy-id for a host, quoted; of the options of ssh it takes only -o and -F."""
    arguments = _port_and_key(host)
    # Each argument with the next one, which is its value if it is -o or -F.
    for name, value in pairwise(host.ssh_options):
        if name in ("-o", "-F"):
            arguments += [name, shlex.quote(value)]
    return arguments


def _port_and_key(host: Host) -> list[str]:
    port = [] if host.port is None else ["-p", str(host.port)]
    return port if host.identity is None else [*port, "-i", shlex.quote(str(host.identity))]


def _remove_key(stderr: str, host: Host) -> str:
    """Return the command that removes a changed key from known_hosts, with the file and the name that ssh prints.

    The user's configuration of ssh can set another file than ~/.ssh/known_hosts, and another name than the host's.
    """
    file = re.search(r"^Offending .*key in (/.*):\d+\r?$", stderr, re.MULTILINE)
    name = re.search(r"^Host key for (\S+) has changed", stderr, re.MULTILINE)
    words = ["-f", file.group(1)] if file else []
    words += ["-R", name.group(1) if name else _known_hosts_name(host)]
    return one_line(f"ssh-keygen {shlex.join(words)}")


def _known_hosts_name(host: Host) -> str:
    """Return the name of a host in known_hosts."""
    name = host.address.rpartition("@")[2]
    return name if host.port in (None, 22) else f"[{name}]:{host.port}"
