"""Boards of a command: the options that name them, and their addresses, validated before they reach ssh.

The module loads no msgspec, for `--help`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.options import Options, option
from edgekit.text import first_of, one_line

_BOARDS = ("--host", "--inventory")
_MAX_PORT = 65_535
_MAX_LABEL = 64
_SHOWN_LABELS = 20

# A name is an alias of ssh's configuration, a DNS name, or an IPv4 or IPv6 address (two colons or more; one colon would
# be a port). It has no characters with a meaning to a shell, a terminal or ssh's command line, because a ProxyCommand
# with %h passes the name to a shell.
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
_NAME = r"(?![^:]*:[^:]*$)[A-Za-z0-9_:][A-Za-z0-9_.:-]{0,252}(?:%[A-Za-z0-9_.-]{1,32})?"
# _TAKES_VALUE: an option of ssh whose value is the next argument. _SETTING: a setting of ssh's configuration.
_TAKES_VALUE = re.compile("-[BbcDEeFIiJLlmOoPpQRSWw]")
_SETTING = re.compile("[A-Za-z]+=")
_ADDRESS = re.compile(rf"(?:{_USER}@)?{_NAME}")


@dataclass(frozen=True)
class Host:
    """One board: `address` is `[user@]host` for ssh, `label` its name in reports.

    `ssh_options` are raw arguments for ssh, for example `-J` and `bastion`. They can run programs on this machine, so
    they come from the command line only, never from an inventory.
    """

    address: str
    label: str
    port: int | None = None
    identity: Path | None = None
    ssh_options: tuple[str, ...] = ()


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
        "--port", "SSH port; default: ssh's own.", metavar="N", least=1, most=_MAX_PORT, needs=_BOARDS
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
        ssh_options = ssh_arguments(self.ssh_option)
        # Address and label are set for each board.
        defaults = Host(address="", label="", port=self.port, identity=self.identity, ssh_options=ssh_options)
        hosts = [parse_host(each, defaults) for each in self.host]
        if self.inventory is not None:
            hosts += read_inventory(self.inventory, defaults)
        check_different(hosts)
        chosen = tuple(select(hosts, self.only))
        for each in chosen:  # if the key were missing, ssh would use another one, without a warning
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

    no_install: bool = option(
        "--no-install", "Use the edgekit that is installed on the board.", default=False, needs=_BOARDS
    )


_NO_HOST = Host("", "")


def ssh_arguments(texts: Sequence[str]) -> tuple[str, ...]:
    """Return arguments for ssh from the values of --ssh-option: `Name=value`, as in ssh_config, or ssh's own arguments.

    Raises:
        InputError: A value has neither form; ssh would read it as the host's name.
    """
    arguments: list[str] = []
    for text in texts:
        # Whether the argument before it is one such as -J, whose value is the next argument.
        is_value = bool(arguments) and _TAKES_VALUE.fullmatch(arguments[-1]) is not None
        if text.startswith("-") or is_value:
            arguments.append(text)
        elif _SETTING.match(text):
            arguments += ["-o", text]
        else:
            raise InputError(f"--ssh-option '{one_line(text)[:100]}' is neither Name=value nor an option of ssh")
    if arguments and _TAKES_VALUE.fullmatch(arguments[-1]):
        raise InputError(f"--ssh-option '{arguments[-1]}' needs a value: give it with a second --ssh-option")
    return tuple(arguments)


def parse_host(text: str, defaults: Host = _NO_HOST) -> Host:
    """Return the host of a --host option, with the other values of `defaults`; its address is also its label.

    Raises:
        InputError: The text is not `[user@]host`, or is too long for a label.
    """
    address = _address(text)
    if len(address) > _MAX_LABEL:
        raise InputError(
            f"host '{address[:_MAX_LABEL]}…' is longer than {_MAX_LABEL} characters: give it a label in an inventory"
        )
    return replace(defaults, address=address, label=address)


def read_inventory(path: Path, defaults: Host = _NO_HOST) -> list[Host]:
    """Return the hosts of a TOML file: `[[host]]` tables with `host` and optionally `label`, `port`, `identity`.

    A relative `identity` is relative to the file's folder. `defaults` has the values that a table does not have.

    Raises:
        InputError: The file cannot be read, or a field is unknown or not valid.
    """
    import tomllib

    require_file(path, "inventory")
    try:
        document = tomllib.loads(path.read_text("utf-8-sig"))  # editors of Windows begin a file with a mark
    except OSError as error:
        raise InputError(f"inventory '{path}': {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"inventory '{path}' is not TOML: {one_line(str(error))}") from error
    tables = document.pop("host", None)
    if document or not isinstance(tables, list) or not tables:  # what is left in `document` is something else
        raise InputError(f"inventory '{path}' must contain only [[host]] tables, each with host = \"user@name\"")
    return [
        _from_table(table, f"inventory '{path}', host {number}", path.parent, defaults)
        for number, table in enumerate(tables, start=1)
    ]


def check_different(hosts: Sequence[Host]) -> None:
    """Check that each address and each label occurs only once.

    Raises:
        InputError: An address or a label occurs twice.
    """
    # With the port, because one address can forward several ports to several boards.
    addresses = [f"{host.address} (port {host.port or 22})" for host in hosts]
    for what, values in (("host", addresses), ("label", [host.label for host in hosts])):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise InputError(f"{what} given twice: {one_line(twice)}: leave one out")


def select(hosts: Sequence[Host], names: Sequence[str]) -> list[Host]:
    """Return the hosts with these labels or addresses, in the order of `hosts`; without names, all hosts.

    Raises:
        InputError: No host has one of the labels or addresses.
    """
    labels = [host.label for host in hosts]
    addresses = [host.address for host in hosts]
    if unknown := [name for name in names if name not in labels and name not in addresses]:
        raise InputError(
            f"no board has the label or address '{one_line(unknown[0])[:_MAX_LABEL]}': the labels are "
            f"{first_of(labels, _SHOWN_LABELS)}"
        )
    return [host for host in hosts if not names or host.label in names or host.address in names]


@dataclass(frozen=True)
class _Entry:
    """A [[host]] table."""

    host: str
    label: str | None = None
    port: int | None = None
    identity: str | None = None


def _from_table(table: Any, where: str, folder: Path, defaults: Host) -> Host:
    """Return the host of a [[host]] table; `where` begins error messages, `folder` is that of the inventory."""
    from edgekit.typed_json import convert

    entry = convert(table, _Entry, f"{where}: field")
    if {"ssh_options", "ssh_option"} & set(table):
        raise InputError(
            f"{where}: an inventory must not set ssh options, which can run programs: use ~/.ssh/config or --ssh-option"
        )
    if unknown := sorted(set(table) - {field.name for field in fields(_Entry)}):
        raise InputError(f"{where}: unknown field '{one_line(unknown[0])}'")
    try:
        address = _address(entry.host)
        identity = defaults.identity if entry.identity is None else folder / Path(entry.identity).expanduser()
    except (InputError, RuntimeError) as error:  # RuntimeError: the home of an unknown user
        raise InputError(f"{where}: {one_line(str(error))}") from error
    label = address if entry.label is None else entry.label
    if not 1 <= len(label) <= _MAX_LABEL or not label.isprintable():
        raise InputError(f"{where}: label must be 1 to {_MAX_LABEL} printable characters")
    port = defaults.port if entry.port is None else entry.port
    if port is not None and not 1 <= port <= _MAX_PORT:
        raise InputError(f"{where}: port must be 1 to {_MAX_PORT}")
    return replace(defaults, address=address, label=label, port=port, identity=identity)


def _address(text: str) -> str:
    """Return an address, checked."""
    if not _ADDRESS.fullmatch(text):
        raise InputError(
            f"host '{one_line(text)[:100]}' is not [user@]name: use a name, an address or an alias of ~/.ssh/config"
            " (and --port for a port)"
        )
    return text
