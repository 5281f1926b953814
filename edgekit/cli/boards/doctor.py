"""`edgekit doctor --host`: checks boards in parallel and prints the findings of one board after the other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.cli.boards.hosts import BoardReporter, raise_failures
from edgekit.cli.output import Output
from edgekit.text import counted

if TYPE_CHECKING:
    from edgekit.remote.doctor import Examined
    from edgekit.remote.host_options import InstallingHostOptions
    from edgekit.remote.hosts import Host
    from edgekit.remote.parallel import HostResult

_SCHEMA = "edgekit.doctor-hosts/1.0"
_ENDING = ".tar.gz"
# Parts of addresses that identify neither a user nor a board.
_GENERIC_NAMES = {"root", "local", "localhost", "raspberrypi"}


def doctor_on_hosts(out: Output, chosen: InstallingHostOptions, hosts: Sequence[Host], bundle: Path | None) -> None:
    """Check boards, print their findings, and write a bundle for each board if `bundle` is given.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the findings of the finished boards are printed before.
        HostError: A board could not be checked; the findings of the others are printed before.
        EdgekitError: A board has faults.
    """
    from edgekit.cli.render.doctor import show_findings
    from edgekit.doctor.examination import faults
    from edgekit.errors import EdgekitError
    from edgekit.remote.doctor import examine_host
    from edgekit.remote.parallel import run_on_hosts

    with BoardReporter(out, len(hosts)) as reporter:
        work = partial(examine_host, reporter=reporter, capture=bundle is not None, install=not chosen.no_install)
        examined = run_on_hosts(hosts, work, chosen.parallel, reporter.finished)
    for done in examined:
        if done.result is None:
            continue  # `raise_failures` prints the error
        python = f", with {done.result.python}" if done.result.python else ""
        out.say(f"{done.host.label}{python}")
        show_findings(out, done.result.findings)
    out.result({"schema": _SCHEMA, "hosts": [_as_document(done) for done in examined]})
    if bundle is not None:  # after the document, because an error of the disk must not lose the findings
        for path, done in zip(bundle_paths(bundle, hosts), examined, strict=True):
            if done.result is not None:
                _write_bundle(path, done.host, done.result)
                out.say(f"bundle: {path}")
    raise_failures(examined)
    by_host = {done.host.label: faults(done.result.findings) for done in examined if done.result is not None}
    texts = [f"{label}: {', '.join(finding.check for finding in found)}" for label, found in by_host.items() if found]
    if texts:
        raise EdgekitError(f"{counted(sum(map(len, by_host.values())), 'fault')}: {'; '.join(texts)}")


def bundle_paths(bundle: Path, hosts: Sequence[Host]) -> list[Path]:
    """Return the bundle's path for each board: `bundle` for one board, else `NAME-LABEL.tar.gz` beside it."""
    if len(hosts) == 1:
        return [bundle]
    stem = bundle.name.removesuffix(_ENDING)
    paths: list[Path] = []
    for host in hosts:
        label = re.sub(r"[^A-Za-z0-9._-]+", "_", host.label)
        path = bundle.with_name(f"{stem}-{label}{_ENDING}")
        paths.append(bundle.with_name(f"{stem}-{label}-{len(paths) + 1}{_ENDING}") if path in paths else path)
    return paths


def _write_bundle(target: Path, host: Host, examined: Examined) -> None:
    from edgekit.doctor.bundle import own_names, write_bundle
    from edgekit.doctor.examination import as_document

    # Short names, such as "pi", occur in too many words.
    address = [name for name in re.split(r"[@.]", host.address) if len(name) > 2 and name not in _GENERIC_NAMES]
    names = [*examined.names, *own_names(), *address]
    write_bundle(target, as_document(examined.findings), examined.seen, names)


def _as_document(done: HostResult[Examined]) -> dict[str, Any]:
    from edgekit.doctor.examination import as_document

    findings = {} if done.result is None else {**as_document(done.result.findings), "python": done.result.python}
    return {"label": done.host.label, "error": done.error, **findings}
