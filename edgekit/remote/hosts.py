"""Boards from the values of options or an inventory file, validated before they reach ssh."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.text import one_line

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


_NO_HOST = Host("", "")


def ssh_arguments(texts: Sequence[str]) -> tuple[str, ...]:
    """Return arguments for ssh from the values of --ssh-option: `Name=value`, as in ssh_config, or ssh's own arguments.

    Raises:
        InputError: A value has neither form; ssh would read it as the host's name.
    """
    arguments: list[str] = []
    for text in texts:
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
    require_file(path, "inventory")
    try:
        document = tomllib.loads(path.read_text("utf-8-sig"))  # editors of Windows begin a file with a mark
    except OSError as error:
        raise InputError(f"inventory '{path}': {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"inventory '{path}' is not TOML: {one_line(str(error))}") from error
    tables = document.pop("host", None)
    if document or not isinstance(tables, list) or not tables:
        raise InputError(f"inventory '{path}' must contain only [[host]] tables, each with host = \"user@name\"")
    return [
        _from_table(table, f"inventory '{path}', host {number}", path.parent, defaults)
        for number, table in enumerate(tables, 1)
    ]


def check_different(hosts: Sequence[Host]) -> None:
    """Check that each address and each label occurs only once.

    Raises:
        InputError: An address or a label occurs twice.
    """
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
    known = [host.label for host in hosts]
    unknown = next((name for name in names if name not in {*known, *(host.address for host in hosts)}), None)
    if unknown is not None:
        more = ", …" if len(known) > _SHOWN_LABELS else ""
        raise InputError(
            f"no board has the label or address '{one_line(unknown)[:_MAX_LABEL]}': the labels are"
            f" {', '.join(known[:_SHOWN_LABELS])}{more}"
        )
    return [host for host in hosts if not names or host.label in names or host.address in names]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A [[host]] table."""

    host: str
    label: Annotated[str, Meta(min_length=1)] | None = None
    port: Annotated[int, Meta(ge=1, le=_MAX_PORT)] | None = None
    identity: Annotated[str, Meta(min_length=1)] | None = None


def _from_table(table: Any, where: str, folder: Path, defaults: Host) -> Host:
    if isinstance(table, dict) and {"ssh_options", "ssh_option"} & set(table):
        raise InputError(
            f"{where}: an inventory must not set ssh options, which can run programs: use ~/.ssh/config or --ssh-option"
        )
    try:
        entry = msgspec.convert(table, _Entry)
        address = _address(entry.host)
        identity = defaults.identity if entry.identity is None else folder / Path(entry.identity).expanduser()
    except (msgspec.ValidationError, InputError, RuntimeError) as error:  # RuntimeError: the home of an unknown user
        raise InputError(f"{where}: {one_line(str(error))}") from error
    label = entry.label or address
    if len(label) > _MAX_LABEL or not label.isprintable():
        raise InputError(f"{where}: label must be 1 to {_MAX_LABEL} printable characters")
    return replace(defaults, address=address, label=label, port=entry.port or defaults.port, identity=identity)


def _address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise InputError(
            f"host '{one_line(text)[:100]}' is not [user@]name: use a name, an address or an alias of ~/.ssh/config"
            " (and --port for a port)"
        )
    return text
