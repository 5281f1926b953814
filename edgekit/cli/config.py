"""Settings of a command from a TOML file: each option is a key; options on the command line override the file."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from edgekit.cli.options import PATH
from edgekit.errors import InputError
from edgekit.files import require_file

_Function = TypeVar("_Function", bound=Callable[..., None])

# Options of a single call, which are not settings.
_NOT_SETTINGS = frozenset({"config", "print_config", "as_json", "debug", "quiet"})


def config_options(alternatives: Mapping[str, Sequence[str]]) -> Callable[[_Function], _Function]:
    """Add --config and --print-config to a command whose other options are its settings.

    Each option of the command is a key of the file.

    Args:
        alternatives: Mutually exclusive parameters, each with the parameters that depend on it. If the command line
            has one of them, those of the file, and the parameters that depend on them, are reset to their defaults.
    """

    def decorate(function: _Function) -> _Function:
        @click.option(
            "--config",
            type=PATH,
            metavar="TOML",
            is_eager=True,
            expose_value=False,
            callback=_load,
            help="Read settings from this file; options on the command line override it.",
        )
        @click.option("--print-config", is_flag=True, help="Print the settings in effect as TOML, and exit.")
        @functools.wraps(function)
        def wrapper(*args: Any, print_config: bool, **kwargs: Any) -> None:
            context = click.get_current_context()
            kwargs |= reset_superseded(context, alternatives)
            if print_config:
                as_json = context.params.get("as_json", False)
                click.echo(json.dumps(settings(context), indent=2) if as_json else render(context), nl=as_json)
                return
            function(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    return decorate


def command_named(name: str) -> click.Command:
    """Return another command of the running program, such as "run", because commands do not import each other."""
    context = click.get_current_context().find_root()
    assert isinstance(context.command, click.Group)
    command = context.command.get_command(context, name)
    assert command is not None
    return command


def settings(context: click.Context) -> dict[str, Any]:
    """Return the value of each option of a parsed command, by key; None for options that are not set."""
    return {key: _plain(context.params[option.name or ""]) for key, option in setting_options(context.command).items()}


def render(context: click.Context) -> str:
    """Return the settings in effect as TOML for `--config`; options that are not set are comments."""
    lines = [f"# Settings of `{context.command_path}`.\n"]
    options = setting_options(context.command)
    for key, value in settings(context).items():
        if help_text := options[key].help:
            lines.append(f"# {help_text}")
        lines.append(f"#{key} =\n" if value is None or value == [] else f"{key} = {_toml(key, value)}\n")
    return "\n".join(lines)


def read_settings(path: Path, command: click.Command) -> dict[str, Any]:
    """Return the values in a TOML file of settings for `command`, by parameter name.

    Raises:
        InputError: The file cannot be read or is not TOML, or a key or value does not fit an option of the command.
    """
    import tomllib

    require_file(path, "settings")
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors of Windows begin a file with a mark
    except OSError as error:
        raise InputError(f"settings '{path}' cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # no TOML, no UTF-8, or a number of more than 4,300 digits
        raise InputError(f"settings '{path}' are not valid TOML: {error}") from error
    except RecursionError as error:
        raise InputError(f"settings '{path}' are not valid TOML: brackets are nested too deeply") from error
    options = setting_options(command)
    tables = [key for key, value in document.items() if isinstance(value, dict)]
    if tables:
        raise InputError(
            f"settings '{path}': '{tables[0]}' is a table, but tables are not supported: write key = value"
        )
    unknown = [_unknown(key, options) for key in document if key not in options]
    if unknown:
        raise InputError(f"settings '{path}': {'; '.join(unknown)}")
    context = click.Context(command, info_name=command.name)
    return {options[key].name or "": _value(path, key, options[key], value, context) for key, value in document.items()}


def _load(context: click.Context, option: click.Parameter, path: Path | None) -> None:
    del option
    if path is not None:
        context.default_map = read_settings(path, context.command)


def setting_options(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command that are keys of a settings file, by key, in the order of the help."""
    return {
        max(option.opts, key=len).lstrip("-"): option
        for option in command.params
        if isinstance(option, click.Option) and option.name not in _NOT_SETTINGS
    }


def _unknown(key: str, known: Mapping[str, object]) -> str:
    import difflib

    near = difflib.get_close_matches(key.replace("_", "-").lower(), known, n=1, cutoff=0.5)
    cure = f"did you mean '{near[0]}'?" if near else "`edgekit run --print-config` lists all keys"
    return f"unknown key '{key}': {cure}"


def _value(path: Path, key: str, option: click.Option, value: object, context: click.Context) -> Any:
    where = f"settings '{path}': {key} = {value!r}"
    if option.is_flag:
        if not isinstance(value, bool):
            raise InputError(f"{where}: write true or false")
        return value
    if isinstance(value, bool):
        # An option with an optional value: true is the option without a value, false its absence.
        if option._flag_needs_value:
            return option.flag_value if value else None
        raise InputError(f"{where}: write a value instead of true or false")
    several = option.multiple or option.nargs != 1
    if several != isinstance(value, list):
        raise InputError(f"{where}: {'write a list, [...]' if several else 'write one value instead of a list'}")
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, bool) or not isinstance(item, (str, int, float)) for item in items):
        raise InputError(f"{where}: write text or a number")
    if any(isinstance(item, str) and "\0" in item for item in items):
        raise InputError(f"{where}: leave out the character NUL")
    if any(isinstance(item, str) and item.startswith("~/") for item in items):
        raise InputError(f"{where}: write the path without '~'")
    is_text = not isinstance(option.type, (click.types.IntParamType, click.types.FloatParamType))
    # A subclass of edgekit's may accept words too, such as auto.
    only_numbers = type(option.type).__module__ == click.types.__name__ and not is_text
    if any(isinstance(item, str) for item in items) and only_numbers:
        raise InputError(f"{where}: write a number without quotes")
    if any(isinstance(item, float) and not math.isfinite(item) for item in items):
        raise InputError(f"{where}: write a finite number")
    if any(isinstance(item, float) and not item.is_integer() for item in items) and isinstance(
        option.type, click.types.IntParamType
    ):
        raise InputError(f"{where}: write a whole number")
    as_given = [str(item) if is_text else item for item in items]
    try:
        option.type_cast_value(context, as_given if several else as_given[0])
    except click.BadParameter as error:
        raise InputError(f"{where}: {error.message}") from error
    except OverflowError as error:
        raise InputError(f"{where}: the number is too large") from error
    return as_given if several else as_given[0]


def reset_superseded(context: click.Context, alternatives: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Reset parameters of a parsed command, and return their defaults; see `alternatives` in `config_options`.

    Each of these parameters has a value from the file, and the command line has another of the alternatives.
    """
    source = context.get_parameter_source
    names: set[str] = set()
    if any(source(name) is ParameterSource.COMMANDLINE for name in alternatives):
        for name, dependent in alternatives.items():
            if source(name) is ParameterSource.DEFAULT_MAP:
                names |= {name, *dependent}
    in_file = {name for name in names if source(name) is ParameterSource.DEFAULT_MAP}
    defaults = context.command.make_context(context.command.name, []).params if in_file else {}
    reset = {name: defaults[name] for name in in_file}
    context.params |= reset
    return reset


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
            raise InputError(f"--{key}: its value must be UTF-8 for TOML: rename the file or folder")
        # A JSON string is also a TOML string, except for one character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
