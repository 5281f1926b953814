"""What ssh's complaints mean, and what to do about them."""

from __future__ import annotations

import re
import shlex

from edgekit.remote.hosts import Host
from edgekit.text import one_line


def explain(told: str, host: Host) -> str:
    """Return one line for people about why ssh gave up.

    Args:
        told: What ssh wrote to stderr.
        host: Whom it was to reach.
    """
    for pattern, cure in _CURES:
        if re.search(pattern, told):
            return cure.format(
                ssh=" ".join(["ssh", *_arguments(host), shlex.quote(host.address)]),
                copy_id=" ".join(["ssh-copy-id", *_port(host), shlex.quote(host.address)]),
                keygen=f"ssh-keygen -R {shlex.quote(_known_as(host))}",
            )
    lines = [line for line in told.strip().splitlines() if line.strip()]
    return f"ssh says: {one_line(lines[-1])[:300]}" if lines else "ssh ended without a word"


_CURES = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "its host key is another one than the known one: either the board was set up anew or somebody stands between."
        " If you know it was set up anew: '{keygen}', then '{ssh}' and compare the fingerprint",
    ),
    (
        r"REVOKED HOST KEY|Host key .* revoked",
        "its host key is marked as revoked in known_hosts: edgekit does not connect",
    ),
    (
        r"Host key verification failed|host key is known for|authenticity of host",
        "its host key is not known here yet: run '{ssh}' once and compare the fingerprint with the board's",
    ),
    (
        r"Permission denied|Too many authentication failures",
        "it takes none of your keys, and edgekit uses no passwords: '{copy_id}' puts your key there"
        " (--identity names another key)",
    ),
    (r"Could not resolve hostname", "no such name in the network: check the spelling, or give the address"),
    (r"Connection refused", "nothing listens there: is ssh enabled on the board (raspi-config), and --port right?"),
    (
        r"Connection timed out|Operation timed out|No route to host|Network is unreachable|Host is down",
        "it does not answer: is it on, and in the same network?",
    ),
    (r"Connection reset|Connection closed|Broken pipe|Timeout, server", "the connection broke: try again"),
    (
        r"no such identity|Load key .*: (?!error in libcrypto)|invalid format",
        "the key given with --identity cannot be read: check its path",
    ),
    (r"command-line: line \d+: |unknown option|usage: ssh", "ssh does not understand an option: check --ssh-option"),
)


def _arguments(host: Host) -> list[str]:
    identity = [] if host.identity is None else ["-i", shlex.quote(str(host.identity))]
    return [*_port(host), *identity, *(shlex.quote(option) for option in host.ssh_options)]


def _port(host: Host) -> list[str]:
    return [] if host.port is None else ["-p", str(host.port)]


def _known_as(host: Host) -> str:
    name = host.address.rpartition("@")[2]
    return name if host.port in (None, 22) else f"[{name}]:{host.port}"
