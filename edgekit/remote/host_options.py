"""Options of the commands that use boards over SSH. The module loads no msgspec, for `--help`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.options import Options, option

if TYPE_CHECKING:
    from edgekit.remote.hosts import Host

_BOARDS = ("--host", "--inventory")


@dataclass(frozen=True, kw_only=True)
class HostOptions(Options):
    """Which boards a command uses; without any, it uses this machine."""

    title = "Boards"
    host: tuple[str, ...] = option("--host", "A board to reach by SSH; repeatable.", default=(), metavar="[USER@]HOST")
    inventory: Path | None = option("--inventory", "TOML file with boards ([[host]] tables).", metavar="FILE.toml")
    only: tuple[str, ...] = option(
        "--only",
        "Use only the board with this label or address; repeatable.",
        default=(),
        metavar="LABEL",
        needs=_BOARDS,
    )
    port: int | None = option(
        "--port", "SSH port; default: ssh's own.", metavar="N", least=1, most=65_535, needs=_BOARDS
    )
    identity: Path | None = option("--identity", "Private key for SSH.", metavar="FILE", needs=_BOARDS)
    ssh_option: tuple[str, ...] = option(
        "--ssh-option",
        "A setting of ssh_config, or an argument of ssh; repeatable.",
        default=(),
        metavar="NAME=VALUE",
        needs=_BOARDS,
    )
    parallel: int = option(
        "--parallel",
        "Number of boards that are processed in parallel.",
        default=4,
        metavar="N",
        least=1,
        most=64,
        needs=_BOARDS,
    )

    def hosts(self) -> tuple[Host, ...]:
        """Return the boards.

        Raises:
            InputError: An address, the inventory or a label cannot be used, or a private key is missing.
        """
        from edgekit.remote.hosts import Host, check_different, parse_host, read_inventory, select, ssh_arguments

        defaults = Host("", "", self.port, self.identity, ssh_arguments(self.ssh_option))
        hosts = [parse_host(each, defaults) for each in self.host]
        if self.inventory is not None:
            hosts += read_inventory(self.inventory, defaults)
        check_different(hosts)
        chosen = tuple(select(hosts, self.only))
        for each in chosen:  # ssh would use another key without a word
            if each.identity is not None:
                require_file(each.identity, f"private key of {each.label}")
        return chosen

    def required_hosts(self) -> tuple[Host, ...]:
        """Return the boards of a command that needs at least one.

        Raises:
            InputError: As `hosts`, or no board is given.
        """
        if not self.host and self.inventory is None:
            raise InputError("no board given: use --host USER@HOST or --inventory FILE.toml")
        return self.hosts()


@dataclass(frozen=True, kw_only=True)
class InstallingHostOptions(HostOptions):
    """Boards on which edgekit is installed first."""

    no_install: bool = option("--no-install", "Use the edgekit installed on the board.", default=False, needs=_BOARDS)
