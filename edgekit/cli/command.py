"""Commands: options from data classes (`edgekit.options`), help in titled sections, and the options of every command.

    @command("run", short_help="…", stream=StreamOptions, camera=CameraSettings)
    def run(out: Output, stream: StreamOptions, camera: CameraSettings) -> None: ...

`--help` lists the main options, if a command has more options than fit on a screen, and `--help-all` all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import click
from click.core import ParameterSource

from edgekit.cli.option_types import field_value, make_option, parameter_name
from edgekit.cli.output import Output
from edgekit.errors import EXIT_USAGE
from edgekit.options import Option, Options, declared_options, defaults

_OTHERS = "Other options"
_TITLE = "help_section"
_SHOWS_ALL = "edgekit.shows_all"
# click's own limit for the column of flags.
_MAX_COLUMN = 30
# `--help` of a command with more options lists the main ones.
_MOST_LISTED = 24
_COMMON = (
    click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document on stdout, text on stderr."),
    click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
    click.Option(["-q", "--quiet"], is_flag=True, help="Print errors and warnings only."),
)
Classes = type[Options] | Sequence[type[Options]]


class Command(click.Command):
    """A command with --json, --debug and -q; its function gets an `Output` as first argument.

    A `click.argument` with the name of a field of a group's class becomes the value of this field.

    Attributes:
        groups: The classes of options by the argument that receives their instances: one class, or several for a tuple.
        kinds: All these classes.
        declared: The declared options by the name of their parameter.
        is_negatable: Whether each flag has its opposite, --no-FLAG, because a settings file may have set it.
    """

    is_negatable: ClassVar[bool] = False

    def __init__(self, *args: Any, groups: Mapping[str, Classes] | None = None, **kwargs: Any) -> None:
        """Make a command with the options of `groups`; the other arguments are those of `click.Command`."""
        super().__init__(*args, **kwargs)
        self.groups: dict[str, Classes] = dict(groups or {})
        self.kinds: list[type[Options]] = []  # the classes of all groups
        self.declared: dict[str, Option] = {}  # by the name of the parameter
        for group in self.groups.values():
            self._add(_classes(group))

    def complete(self) -> None:
        """Add options that take time to find; called if an option is not known, and before all are listed."""

    def extend(self, name: str, kinds: Sequence[type[Options]]) -> None:
        """Add classes of options to a group."""
        self.groups[name] = (*_classes(self.groups[name]), *kinds)
        self._add(kinds)

    def _add(self, kinds: Sequence[type[Options]]) -> None:
        """Make a click option of each option that these data classes declare."""
        for kind in kinds:
            self.kinds.append(kind)
            for field, declared in declared_options(kind).items():
                option = make_option(kind, field, declared, is_negatable=self.is_negatable)
                setattr(option, _TITLE, declared.section or kind.title)  # its section of the help
                self.params.append(option)
                self.declared[parameter_name(declared)] = declared

    @property
    def _is_long(self) -> bool:
        """Whether the command has more options than fit on a screen, and `--help` lists the main ones."""
        return len(self.declared) > _MOST_LISTED and not all(declared.main for declared in self.declared.values())

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return all parameters, with those of every command and --help."""
        own = super().get_params(ctx)
        return [*own, *_COMMON, *([_HELP_ALL] if self._is_long else [])]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line, and check that each option has what it needs."""
        try:
            rest = super().parse_args(ctx, list(args))  # a copy, because click empties the list
        except click.NoSuchOption:
            self.complete()  # the option may be one of those that take time to find
            rest = super().parse_args(ctx, list(args))
        _reset_overridden(self, ctx)
        _check_dependencies(self, ctx)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command's function with an `Output`, its parameters of click, and the instances of the groups."""
        arguments = dict(ctx.params)
        out = Output(arguments.pop("as_json"), arguments.pop("quiet"))
        del arguments["debug"]  # edgekit.cli reads it, because it also applies when parsing fails
        group_fields = {field for kind in self.kinds for field in _fields(kind)}
        for name in ctx.params:
            if name in self.declared or name in group_fields:
                del arguments[name]  # the instances of the groups contain it
        assert self.callback is not None
        return ctx.invoke(self.callback, out, **arguments, **self.instances(ctx))

    def instances(self, ctx: click.Context) -> dict[str, Any]:
        """Return an instance of each class of options, with the parsed values, by the argument that receives it.

        A group of several classes gives a tuple of instances.

        Raises:
            InputError: The values of a group contradict each other.
        """
        made: dict[str, Any] = {}
        for argument, group in self.groups.items():
            if isinstance(group, type):
                made[argument] = self._instance(group, ctx)
            else:
                made[argument] = tuple(self._instance(kind, ctx) for kind in group)
        return made

    def _instance(self, kind: type[Options], ctx: click.Context) -> Options:
        """Return an instance of a class of options; fields that are not set have their default."""
        options = declared_options(kind)
        argument_names = {each.name for each in self.params if isinstance(each, click.Argument)}
        # Such as MODEL; a field that is neither an option nor an argument keeps its default.
        other_fields = [field for field in _fields(kind) if field not in options]
        given = {field: ctx.params[field] for field in other_fields if field in argument_names}
        for field, declared in options.items():
            name = parameter_name(declared)
            if is_set(ctx, name):
                given[field] = field_value(declared, ctx.params[name])
        return kind(**given)

    def show_all(self, ctx: click.Context) -> None:
        """Let the help of this context list all options."""
        self.complete()
        ctx.meta[_SHOWS_ALL] = True

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list of options per section, all in the same columns.

        If the command has many options, `--help` lists the main ones and the number of the others.
        """
        shows_all = ctx.meta.get(_SHOWS_ALL, False) or not self._is_long
        # By title; a record is (flags, help text).
        sections: dict[str, list[tuple[str, str]]] = {}
        hidden = 0
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is None or parameter is _HELP_ALL:  # an argument or a hidden option; or named below the list
                continue
            declared = self.declared.get(parameter.name or "")
            is_main = declared is None or declared.main
            if is_main or shows_all:
                sections.setdefault(section_of(parameter), []).append(record)
            else:
                hidden += 1
        if _OTHERS in sections:
            sections[_OTHERS] = sections.pop(_OTHERS)  # now the last section
        width = min(_MAX_COLUMN, max(len(flags) for records in sections.values() for flags, _ in records))
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl([(flags.ljust(width), text) for flags, text in records])
        if hidden:
            formatter.write_paragraph()
            formatter.write_text(f"`{ctx.command_path} --help-all` lists {hidden} more options.")


class Group(click.Group):
    """A group of commands; without arguments it prints its help and ends with exit code 2."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Print the help if there are no arguments; click's own exit code depends on its version."""
        if not args and not ctx.resilient_parsing:  # resilient: the shell completes the command line
            click.echo(ctx.get_help(), err=True)
            ctx.exit(EXIT_USAGE)
        return super().parse_args(ctx, args)


def command(name: str, *, short_help: str, cls: type[Command] = Command, **groups: Classes) -> Callable[..., Command]:
    """Return a decorator that makes a command of a function; each further argument is a group of options."""

    def decorate(function: Callable[..., None]) -> Command:
        # The list to which `click.argument` and `click.option` add; decorators apply from the last to the first.
        params = list(reversed(getattr(function, "__click_params__", [])))
        return cls(name, callback=function, params=params, help=function.__doc__, short_help=short_help, groups=groups)

    return decorate


def subcommand(group: click.Group, name: str, *, short_help: str, **groups: Classes) -> Callable[..., Command]:
    """Return a decorator as `command`, for a command of a group such as `edgekit service`."""

    def decorate(function: Callable[..., None]) -> Command:
        made = command(name, short_help=short_help, cls=Command, **groups)(function)
        group.add_command(made)
        return made

    return decorate


def command_named(name: str) -> click.Command:
    """Return another command of the running program, such as "run", because commands do not import each other."""
    ctx = click.get_current_context().find_root()
    assert isinstance(ctx.command, click.Group)
    found = ctx.command.get_command(ctx, name)
    assert found is not None
    return found


def is_set(ctx: click.Context, name: str) -> bool:
    """Return whether the command line or the settings file has the option with this parameter name."""
    return ctx.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)


def in_effect(command: Command, ctx: click.Context) -> set[str]:
    """Return the flags of the options that have another value than their default.

    An option that is given with its default value excludes nothing, and needs nothing.
    """
    default_of = _defaults(command)
    # The parameter of an option that is not set can be None in place of the default.
    return {
        declared.flag
        for name, declared in command.declared.items()
        if is_set(ctx, name) and ctx.params[name] != default_of[declared.flag]
    }


def section_of(parameter: click.Parameter) -> str:
    """Return the title of the section that lists a parameter."""
    return getattr(parameter, _TITLE, _OTHERS)


def _fields(kind: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _classes(group: Classes) -> tuple[type[Options], ...]:
    return (group,) if isinstance(group, type) else tuple(group)


def _defaults(command: Command) -> dict[str, Any]:
    """Return the default of each option, by flag; None if it has none."""
    found = {}
    for kind in command.kinds:
        default_of = defaults(kind)
        for field, declared in declared_options(kind).items():
            found[declared.flag] = default_of.get(field)
    return found


def _reset_overridden(command: Command, ctx: click.Context) -> None:
    """Reset options of the settings file that the command line excludes, and those that lack what they need.

    An option that is reset counts as not given; see `is_set`.
    """
    source = ctx.get_parameter_source
    options = command.declared.items()
    in_file = {name: declared for name, declared in options if source(name) is ParameterSource.DEFAULT_MAP}
    given = [declared for name, declared in options if source(name) is ParameterSource.COMMANDLINE]
    given_flags = {declared.flag for declared in given}
    excluded_flags = {flag for declared in given for flag in declared.excludes}
    for name, declared in in_file.items():
        excludes_given = not given_flags.isdisjoint(declared.excludes)
        if excludes_given or declared.flag in excluded_flags:
            ctx.set_parameter_source(name, ParameterSource.DEFAULT)
    # Repeated, because an option that is reset may be what another one needs.
    while lacking := _lacking(command, ctx, in_file):
        for name in lacking:
            ctx.set_parameter_source(name, ParameterSource.DEFAULT)


def _lacking(command: Command, ctx: click.Context, options: Mapping[str, Option]) -> list[str]:
    """Return the names of those of `options` that are in effect although nothing that they need is."""
    effective = in_effect(command, ctx)
    used = [(name, declared) for name, declared in options.items() if declared.flag in effective]
    return [name for name, declared in used if declared.needs and effective.isdisjoint(declared.needs)]


def _check_dependencies(command: Command, ctx: click.Context) -> None:
    """Check `needs` and `excludes` of the options in effect.

    Raises:
        click.UsageError: Two options exclude each other, or one has no effect.
    """
    effective = in_effect(command, ctx)
    for option in command.declared.values():
        if option.flag not in effective:
            continue
        if excluded := [flag for flag in option.excludes if flag in effective]:
            raise click.UsageError(f"{option.flag} and {excluded[0]} exclude each other: give one of them", ctx)
        if option.needs and effective.isdisjoint(option.needs):  # one of them is enough
            raise click.UsageError(f"{option.flag} has no effect without {' or '.join(option.needs)}", ctx)


def _print_all(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    """Print the help with all options and exit: click's callback of --help-all."""
    del option
    if value and not ctx.resilient_parsing:  # resilient: the shell completes the command line
        assert isinstance(ctx.command, Command)
        ctx.command.show_all(ctx)
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


_HELP_ALL = click.Option(
    ["--help-all"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_all,
    help="Show all options and exit.",
)
