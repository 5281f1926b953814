"""Settings of a command from a TOML file: every option is a key under its flag's name, and flags override."""

from __future__ import annotations

import difflib
import functools
import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from edgekit.errors import InputError
from edgekit.files import require_file

_Function = TypeVar("_Function", bound=Callable[..., None])

# Options that say how this one call speaks or where its settings are: they are no settings themselves.
_NOT_SETTINGS = frozenset({"config", "print_config", "as_json", "debug", "quiet"})


def config_options(*alternatives: Mapping[str, Sequence[str]]) -> Callable[[_Function], _Function]:
    """Add --config and --print-config to a command whose other options are its settings.

    A new option is a new key, with no further registration. `alternatives` names parameters of which one at most can
    be in force, each with those that make no sense without it: one on the command line then puts aside the others of
    the file, and what belongs to them.
    """

    def decorate(function: _Function) -> _Function:
        @click.option(
            "--config",
            type=click.Path(path_type=Path),
            metavar="TOML",
            is_eager=True,
            expose_value=False,
            callback=_load,
            help="Take settings from this file; options given here override it.",
        )
        @click.option("--print-config", is_flag=True, help="Print the settings in force as such a file, and stop.")
        @functools.wraps(function)
        def wrapper(*args: Any, print_config: bool, **kwargs: Any) -> None:
            context = click.get_current_context()
            for name, default in _put_aside(context, alternatives):
                kwargs[name] = context.params[name] = default
            if print_config:
                as_json = context.params.get("as_json", False)
                click.echo(json.dumps(settings(context), indent=2) if as_json else render(context), nl=as_json)
                return
            function(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    return decorate


def settings(context: click.Context) -> dict[str, Any]:
    """Return key → value of a command that has been parsed, None where nothing is set."""
    return {key: _plain(context.params[option.name or ""]) for key, option in _keys(context.command).items()}


def render(context: click.Context) -> str:
    """Return the settings in force as TOML that `--config` takes; what is not set stands there as a comment."""
    lines = [f"# Settings of `{context.command_path}`.\n"]
    options = _keys(context.command)
    for key, value in settings(context).items():
        if help_text := options[key].help:
            lines.append(f"# {help_text}")
        lines.append(f"#{key} =\n" if value is None or value == [] else f"{key} = {_toml(key, value)}\n")
    return "\n".join(lines)


def read_settings(path: Path, command: click.Command) -> dict[str, Any]:
    """Return parameter name → value of a TOML file of settings for `command`.

    Raises:
        InputError: The file cannot be read, is no TOML, has a key that is no option, or a value no option takes.
    """
    require_file(path, "settings")
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"settings '{path}' cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"settings '{path}' are no TOML: {error}") from error
    except RecursionError as error:
        raise InputError(f"settings '{path}' are no TOML that can be read: too many brackets in one another") from error
    options = _keys(command)
    tables = [key for key, value in document.items() if isinstance(value, dict)]
    if tables:
        raise InputError(f"settings '{path}': '{tables[0]}' is a table, but settings have no tables: write key = value")
    unknown = [_unknown(key, options) for key in document if key not in options]
    if unknown:
        raise InputError(f"settings '{path}': {'; '.join(unknown)}")
    context = click.Context(command, info_name=command.name)
    return {options[key].name or "": _value(path, key, options[key], value, context) for key, value in document.items()}


def _load(context: click.Context, option: click.Parameter, path: Path | None) -> None:
    del option
    if path is not None:
        values, defaults = read_settings(path, context.command), _defaults(context.command)
        # A value that is the default anyway counts as not given, so that a file made by --print-config means the same
        # as the command line it was made from: some options ask whether another one was given.
        context.default_map = {
            name: values[name]
            for name, option in ((option.name or "", option) for option in context.command.params)
            if name in values and option.type_cast_value(context, values[name]) != defaults[name]
        }


def _defaults(command: click.Command) -> dict[str, Any]:
    """Return parameter name → value of a call without arguments."""
    return command.make_context(command.name, []).params


def _keys(command: click.Command) -> dict[str, click.Option]:
    """Return key → option in the order of the help."""
    return {
        max(option.opts, key=len).lstrip("-"): option
        for option in command.params
        if isinstance(option, click.Option) and option.name not in _NOT_SETTINGS
    }


def _unknown(key: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(key.replace("_", "-").lower(), known, n=1, cutoff=0.5)
    cure = f"did you mean '{near[0]}'?" if near else "`edgekit run --print-config` lists all keys"
    return f"there is no key '{key}': {cure}"


def _value(path: Path, key: str, option: click.Option, value: object, context: click.Context) -> Any:
    where = f"settings '{path}': {key} = {value!r}"
    if option.is_flag:
        if not isinstance(value, bool):
            raise InputError(f"{where}: write true or false")
        return value
    if isinstance(value, bool):
        # An option whose value may be left out: true is the bare option, false is its absence.
        if option._flag_needs_value:
            return option.flag_value if value else None
        raise InputError(f"{where}: a value is needed, not true or false")
    several = option.multiple or option.nargs != 1
    if several != isinstance(value, list):
        raise InputError(f"{where}: {'write a list, [...]' if several else 'one value is needed, not a list'}")
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, bool) or not isinstance(item, (str, int, float)) for item in items):
        raise InputError(f"{where}: text or a number is needed")
    is_text = not isinstance(option.type, (click.types.IntParamType, click.types.FloatParamType))
    # A type of our own made of a number's may take words too, such as auto.
    only_numbers = type(option.type).__module__ == click.types.__name__ and not is_text
    if any(isinstance(item, str) for item in items) and only_numbers:
        raise InputError(f"{where}: a number is needed, without quotes")
    if any(isinstance(item, float) and not math.isfinite(item) for item in items):
        raise InputError(f"{where}: a finite number is needed")
    if any(isinstance(item, float) and not item.is_integer() for item in items) and isinstance(
        option.type, click.types.IntParamType
    ):
        raise InputError(f"{where}: a whole number is needed")
    as_given = [str(item) if is_text else item for item in items]
    try:
        option.type_cast_value(context, as_given if several else as_given[0])
    except click.BadParameter as error:
        raise InputError(f"{where}: {error.message}") from error
    return as_given if several else as_given[0]


def _put_aside(context: click.Context, alternatives: Sequence[Mapping[str, Sequence[str]]]) -> list[tuple[str, Any]]:
    """Return the parameters that do not apply, each with its default."""
    names: list[str] = []
    for group in alternatives:
        sources = {name: context.get_parameter_source(name) for name in group}
        if ParameterSource.COMMANDLINE in sources.values():
            for name, source in sources.items():
                if source is ParameterSource.DEFAULT_MAP:
                    names += [name, *group[name]]
    defaults = _defaults(context.command) if names else {}
    return [
        (name, defaults[name]) for name in names if context.get_parameter_source(name) is ParameterSource.DEFAULT_MAP
    ]


def _plain(value: object) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _toml(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_toml(key, item) for item in value)}]"
    if isinstance(value, str):
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise InputError(f"--{key}: its value is not UTF-8 and cannot stand in a TOML file")
        # A JSON string is a TOML string but for one character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
