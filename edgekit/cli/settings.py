"""Settings of a command in a TOML file: each option is a key, and options on the command line override the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import click

from edgekit.cli.command import Command, command_named, is_set
from edgekit.cli.option_types import Value, parameter_name
from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.options import Option, declared_options, defaults


class SettingsCommand(Command):
    """A command with --config and --print-config.

    Attributes:
        replaced: For each option of an earlier version that does not exist any more, by its key, what replaces it.
    """

    is_negatable = True
    replaced: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [_CONFIG, _PRINT]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; an option of an earlier version is an error that names what replaces it."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if reason := self.replaced.get(error.option_name.lstrip("-")):
                raise click.UsageError(f"{error.option_name} does not exist any more: {reason}", ctx) from error
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Call the function, or print the settings in effect."""
        del ctx.params["config"]  # its callback has made the settings of the file the defaults
        if ctx.params.pop("print_config"):
            self.complete()  # the options of other packages are printed, too
            values = values_in_effect(self, ctx)
            if ctx.params["as_json"]:
                click.echo(json.dumps(values, indent=2))
            else:
                click.echo(render(self, values), nl=False)
            return None
        return super().invoke(ctx)


def values_in_effect(command: Command, ctx: click.Context) -> dict[str, Any]:
    """Return the value of each option of a parsed command, by key, in the form of a settings file; None: not set."""
    values = {}
    for kind in command.kinds:
        for field, declared in declared_options(kind).items():
            name = parameter_name(declared)
            # With `parse`, the default of the field is a parsed value, which a settings file cannot contain.
            default = defaults(kind)[field] if declared.parse is None else declared.default_text
            values[declared.key] = _plain(ctx.params[name] if is_set(ctx, name) else default)
    return values


def render(command: Command, values: Mapping[str, Any]) -> str:
    """Return settings as TOML with the help of each key; keys that are not set are comments."""
    lines = [f"# Settings of `edgekit {command.name}`.\n"]
    for declared in command.declared.values():
        value = values[declared.key]
        lines.append(f"# {declared.help}")
        lines.append(f"#{declared.key} =\n" if value in (None, []) else f"{declared.key} = {_toml(declared, value)}\n")
    return "\n".join(lines)


def as_toml(settings: Mapping[str, Any]) -> str:
    """Return a settings file of `edgekit run` with these keys and their help."""
    entries = []
    for key, value in settings.items():
        option = run_option(key)
        entries.append(f"# {option.help}\n{key} = {_toml(option, value)}\n")
    return "\n".join(entries)


def run_option(key: str) -> Option:
    """Return the option of `edgekit run` that has this key in the settings file."""
    return next(declared for declared in _run_command().declared.values() if declared.key == key)


def read_settings(path: Path, command: SettingsCommand) -> dict[str, Any]:
    """Return the values in a TOML file of settings for `command`, by the name of the parameter.

    Raises:
        InputError: The file cannot be read or is not TOML, or a key or value does not fit an option of the command.
    """
    document = _read_toml(path)
    # `declared` has the names of parameters, such as "min_face" for the key "min-face".
    if any(key.replace("-", "_") not in command.declared for key in document):
        command.complete()  # an unknown key may be an option of another package
    declared_of_key = {declared.key: declared for declared in command.declared.values()}
    click_options = {each.name: each for each in command.params if isinstance(each, click.Option)}
    values = {}
    for key, value in document.items():
        if key not in declared_of_key:
            raise InputError(f"settings '{path}': {_unknown(key, declared_of_key, command.replaced)}")
        declared = declared_of_key[key]
        name = parameter_name(declared)
        try:
            checked = _checked(declared, click_options[name], value)
        except (ValueError, click.BadParameter) as error:
            reason = error.message if isinstance(error, click.BadParameter) else str(error)
            raise InputError(f"settings '{path}': {key} = {value!r}: {reason}") from error
        if checked is not None:
            values[name] = checked
    return values


def _read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a settings file; raises InputError as `read_settings`."""
    import tomllib

    require_file(path, "settings")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors of Windows begin a file with a mark
    except OSError as error:
        raise InputError(f"settings '{path}' cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # no TOML, or no UTF-8; brackets that are nested too deeply
        # What tomllib reports for words and for 10MB without quotes.
        is_bare_text = str(error).startswith(("Invalid value", "Expected newline"))
        cure = ': text needs quotes, such as "usb"' if is_bare_text else ""
        raise InputError(f"settings '{path}' are not valid TOML: {error}{cure}") from error


def checked_run(options: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a command line of `edgekit run`, by key, as `values_in_effect`.

    Raises:
        InputError: The settings file cannot be used, or values contradict each other.
        click.UsageError: An option is not valid, or the options do not fit together.
    """
    return _checked_values(_run_command(), options, settings={})


def checked_settings(path: Path) -> dict[str, Any]:
    """Return the settings in effect of `edgekit run --config PATH`, by key.

    Raises:
        InputError: The settings cannot be used, or do not fit together.
    """
    run = _run_command()
    try:
        return _checked_values(run, options=(), settings=read_settings(path, run))
    except click.UsageError as error:
        raise InputError(f"settings '{path}': {error.message}") from error


def _run_command() -> SettingsCommand:
    run = command_named("run")
    assert isinstance(run, SettingsCommand)
    return run


def _checked_values(run: SettingsCommand, options: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values in effect, by key, of a run with these words of the command line and settings of a file.

    `settings` has the values by the name of the parameter, as `read_settings` returns them.
    """
    with run.make_context("edgekit run", list(options), default_map=dict(settings)) as ctx:
        run.instances(ctx)  # checks the values
        return values_in_effect(run, ctx)


def _unknown(key: str, known: Mapping[str, object], replaced: Mapping[str, str]) -> str:
    """Return the error for a key that is not `known`, with what replaced it or the most similar key."""
    import difflib

    if key in replaced:
        return f"key '{key}' does not exist any more: {replaced[key]}"
    near = difflib.get_close_matches(key.replace("_", "-").lower(), known, n=1)
    cure = f"did you mean '{near[0]}'?" if near else "`edgekit run --print-config` lists all keys"
    return f"unknown key '{key}': {cure}"


def _checked(declared: Option, option: click.Option, value: Any) -> Any:
    """Return a value of the settings file as click's value of the option; None if the option is not set.

    Raises:
        ValueError, click.BadParameter: The value does not fit the option.
    """
    if option.is_flag:
        if not isinstance(value, bool):
            raise ValueError("write true or false")
        return value
    if declared.bare is not None and isinstance(value, bool):
        return declared.bare if value else None  # `true` is the option without a value
    if option.multiple:
        if not isinstance(value, list):
            raise ValueError(f"write a list, {_toml(declared, [value])}")
        return [_text_or_number(declared, option, item) for item in value]
    if isinstance(value, list):
        raise ValueError("write one value instead of a list")
    return _text_or_number(declared, option, value)


def _text_or_number(declared: Option, option: click.Option, value: Any) -> Any:
    """Return a value of the file, converted; raises as `_checked` if its TOML type is not that of the option."""
    assert isinstance(option.type, Value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):  # for Python, a bool is an int
        raise ValueError("write text or a number")
    kinds, words = option.type.kind.kinds, option.type.kind.words
    # `parse` reads a text, and the file may then have a text or a number.
    takes_number = declared.parse is None and (int in kinds or float in kinds)
    if takes_number:
        if isinstance(value, str) and value not in words:
            raise ValueError("write a number without quotes")
        if isinstance(value, float) and float not in kinds:
            raise ValueError("write a whole number")
        return option.type.convert(value, option, None)
    if isinstance(value, str) and value.startswith("~/"):  # no shell replaces it in a file
        raise ValueError("write the path without '~'")
    return option.type.convert(str(value), option, None)


def _load(ctx: click.Context, option: click.Parameter, path: Path | None) -> None:
    """Make the settings in the file of --config the defaults of the command line: click's callback of the option."""
    del option
    if path is not None:
        assert isinstance(ctx.command, SettingsCommand)
        ctx.default_map = read_settings(path, ctx.command)


def _plain(value: object) -> Any:
    """Return a value with lists instead of tuples, and texts instead of paths, for JSON and TOML."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _toml(declared: Option, value: Any) -> str:
    """Return a value as TOML; `declared` is its option, for the error message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_toml(declared, item) for item in value)}]"
    if isinstance(value, str):
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise InputError(f"{declared.flag}: its value must be UTF-8 for TOML: rename the file or folder")
        # A JSON string is also a TOML string, except for one character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


_CONFIG = click.Option(
    ["--config"],
    type=click.Path(path_type=Path),
    metavar="TOML",
    is_eager=True,
    callback=_load,
    help="Read settings from this file; options on the command line override it.",
)
_PRINT = click.Option(["--print-config"], is_flag=True, help="Print the settings in effect as TOML, and exit.")
