"""Help in titled sections for commands with many options.

    @click.command("run", cls=SectionedCommand)
    @section("Camera", click.option("--camera-size"), click.option("--camera-fps"))
    @section("Settings", config_options(ALTERNATIVES))
    @common_options
    def command(...): ...

Sections appear in the order of their first option. Options without a section come last, under "Other options".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Decorator = Callable[..., Any]

_ATTRIBUTE = "help_section"
_OTHERS = "Other options"
# click's own limit for the column of flags.
_MAX_COLUMN = 30


def section(title: str, *options: _Decorator) -> Callable[[_Function], _Function]:
    """Return a decorator that adds `options` to a command and lists them under `title` in its help.

    Each of `options` is a decorator that adds one option or several, such as `click.option(...)`. An option that
    already has a section keeps it.
    """

    def decorate(function: _Function) -> _Function:
        decorated, before = function, list(_parameters(function))
        for option in reversed(options):
            decorated = option(decorated)
        for parameter in _parameters(decorated):
            if parameter not in before and not hasattr(parameter, _ATTRIBUTE):
                setattr(parameter, _ATTRIBUTE, title)
        return decorated

    return decorate


class SectionedCommand(click.Command):
    """A command whose help lists its options under the titles of their sections, all in the same columns."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one definition list per section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(section_of(parameter), []).append(record)
        if _OTHERS in sections:
            sections[_OTHERS] = sections.pop(_OTHERS)
        width = min(_MAX_COLUMN, max(len(flags) for records in sections.values() for flags, _ in records))
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl([(flags.ljust(width), text) for flags, text in records])


def section_of(parameter: click.Parameter) -> str:
    """Return the title of the section that lists a parameter."""
    return getattr(parameter, _ATTRIBUTE, _OTHERS)


def _parameters(function: Callable[..., Any]) -> list[click.Parameter]:
    """Return the parameters that click's decorators have collected on a function."""
    return getattr(function, "__click_params__", [])
