"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgekit.options import Options, option

if TYPE_CHECKING:
    from edgekit.device.service.unit import Scope


class _NamedPath(click.Path):
    """click's Path that rejects the empty text, which pathlib would read as the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty: name a file or a folder", param, ctx)
        return super().convert(value, param, ctx)


# A file or folder that need not exist; the value is a `pathlib.Path`.
PATH = _NamedPath(path_type=Path)


def refuse_unused(context: click.Context, parameters: Collection[str], reason: str) -> None:
    """Check that none of the options is given, because they would have no effect.

    Args:
        context: The parsed command.
        parameters: Names of the options' parameters.
        reason: Completes the message "--option …", such as "has no effect without --eval".

    Raises:
        click.UsageError: One of the options is given.
    """
    for each in context.command.params:
        if each.name in parameters and context.get_parameter_source(each.name) is not ParameterSource.DEFAULT:
            negated = each.secondary_opts and context.params[each.name] is False
            name = (each.secondary_opts if negated else each.opts)[0]
            raise click.UsageError(f"{name} {reason}: leave it out", context)


@dataclass(frozen=True, kw_only=True)
class ServiceOptions(Options):
    """Which systemd service a command is about."""

    title = "Service"
    name: str = option("--name", "Name of the service.", default="edgekit", metavar="NAME")
    user: bool = option("--user", "A user service. Default for all users except root.", default=False)
    system: bool = option(
        "--system",
        "A system service, which only root can change. Default for root.",
        default=False,
        excludes="--user",
    )

    @property
    def scope(self) -> Scope | None:
        """The given one of user and system; None: the default of the user."""
        return "user" if self.user else "system" if self.system else None
