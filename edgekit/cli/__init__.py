"""The `edgekit` command line: loads the subcommand's module, runs it, and turns errors into one line and an exit code.

Each command is in a module of `edgekit.cli.commands`. It parses, calls one public function and prints the result.
Importing this package loads only the standard library and click; heavy imports are in the bodies of the commands.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import re
import signal
import sys
import threading
import traceback
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from edgekit import __version__
from edgekit.cli.command import Group
from edgekit.cli.output import describe_os_error, one_line
from edgekit.errors import (
    ERROR_PREFIX,
    EXIT_FAULT,
    EXIT_INTERRUPTED,
    EXIT_IO,
    EXIT_OK,
    EXIT_TEMPORARY,
    EXIT_USAGE,
    EdgekitError,
)
from edgekit.text import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# Commands in the order of `edgekit --help`, by the titles of its sections.
SECTIONS = {
    "Train": ("teach", "train", "distill", "train-clip", "train-prompts", "eval", "data", "import"),
    "Export": ("export", "inspect", "verify", "profile"),
    "Run": ("init", "run", "cameras", "service"),
    "Measure": ("bench", "report", "compare"),
    "Boards": ("deploy", "rollback", "releases", "undeploy", "host", "doctor"),
}
# Module in `edgekit.cli.commands`, and function, of each command that is not `command` in the module of its name.
_PLACES = {
    "import": ("import_", "command"),
    "train-clip": ("train_clip", "command"),
    "train-prompts": ("train_prompts", "command"),
    **{name: ("boards", name) for name in ("deploy", "rollback", "releases", "undeploy", "host")},
}
# A command for another edgekit, which `--help` does not list.
_HIDDEN = "job"
# A word whose path begins with "~/": the word itself, or the value in -oPATH or --output=PATH. ssh replaces '~' itself.
_HOME_PATH = re.compile(r"(-\w|--(?!ssh-option=)[\w-]+=)?~/")
# Set by the shell while it completes a command line.
_COMPLETION_VARIABLE = "_EDGEKIT_COMPLETE"

_OUT_OF_MEMORY = "out of memory: close other programs, or use smaller batches or frames"


class _StdoutClosedError(Exception):
    """The program that reads stdout has closed the pipe, as `| head` does."""


class _LazyGroup(Group):
    """click group that imports a command's module when the command is used, and lists the commands in sections."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; a path with '~' is an error, because edgekit would make a folder of this name."""
        is_completion = ctx.resilient_parsing  # by a shell, which has not replaced any '~' yet
        for word in args:
            if _HOME_PATH.match(word) and not is_completion:
                raise click.UsageError(f"'{printable(word)}': the shell has not replaced '~': write the full path", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # click would end the process with exit code 1.
            raise _StdoutClosedError from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [name for names in SECTIONS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command and return the command; None for an unknown name."""
        if cmd_name not in (*self.list_commands(ctx), _HIDDEN):
            return None
        # Most commands are the function `command` of the module of their name.
        module, function = _PLACES.get(cmd_name, (cmd_name, "command"))
        command = getattr(importlib.import_module(f"edgekit.cli.commands.{module}"), function)
        assert isinstance(command, click.Command)
        if _COMPLETION_VARIABLE in os.environ:  # the shell completes a command line
            _complete_file_names(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their short help, in sections."""
        name_width = max(map(len, self.list_commands(ctx)))
        help_width = formatter.width - name_width - 6  # as click computes it: margins and gap take six characters
        for title, names in SECTIONS.items():
            commands = [(name.ljust(name_width), self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl([(name, each.get_short_help_str(help_width)) for name, each in commands if each])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        # Without the commands' help, because reading it imports all commands, which takes a second on a Pi.
        names = [CompletionItem(name) for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


def _complete_file_names(command: click.Command) -> None:
    """Let the shell complete file names for all text parameters, because MODEL, DATA and URI may be paths.

    Subcommands of a group are included.
    """
    for parameter in command.params:
        if isinstance(parameter.type, click.types.StringParamType):
            parameter.type = click.Path(readable=False)  # checks nothing, because the text need not be a path
    for child in getattr(command, "commands", {}).values():
        _complete_file_names(child)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgekit")
# Every command has the option; here it is only accepted before the command too, and `run` reads it.
@click.option("--debug", is_flag=True, hidden=True, expose_value=False)
def cli() -> None:
    """Train small image classifiers, export them to ONNX, and run them on a Raspberry Pi or PC.

    \b
    edgekit train --data fer2013.tar.gz -o runs/mine   train EdgeCNN
    edgekit export runs/mine -o my.onnx                net and labels in one file
    edgekit run --model my.onnx --camera               labels and frame rate
    """


def main() -> None:
    """Run the command line and exit: the entry point of the console script."""
    _end_process(run(sys.argv[1:], ends_process=True))


def _end_process(exit_code: int) -> NoReturn:
    """End the process, without the interpreter's clean-up if one of edgekit's threads is still running."""
    # Threads that may be blocked have such a name.
    if any(thread.name.startswith("edgekit ") for thread in threading.enumerate()):
        # The interpreter's own exit would wait for a thread that is blocked in a camera driver. It would abort the
        # process if an encoder still uses a thread.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(exit_code)
    sys.exit(exit_code)


def run(arguments: list[str], ends_process: bool = False) -> int:
    """Run the command line in this process and return the exit code; errors are printed.

    If the caller then `ends_process`, Ctrl-C and SIGHUP are ignored from the end of the command on.
    """
    if _COMPLETION_VARIABLE in os.environ:  # the shell completes a command line
        # The text of an error would appear on the user's prompt.
        with suppress(KeyError, ValueError):
            cli.main(args=arguments, prog_name="edgekit", standalone_mode=False)
        return EXIT_OK
    debug = "--debug" in arguments
    _prepare_streams()
    interruptions = _Interruptions()
    try:
        return _call(arguments, debug, interruptions)
    except KeyboardInterrupt:  # one more signal, while the first one or an error was reported
        return EXIT_INTERRUPTED
    finally:
        interruptions.end(ends_process)


def _call(arguments: list[str], debug: bool, interruptions: _Interruptions) -> int:
    """Call the command and return the exit code; errors are printed."""
    try:
        cli.main(args=arguments, prog_name="edgekit", standalone_mode=False)
    except EdgekitError as error:
        return _report(error, str(error), error.exit_code, debug)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)  # a usage error has the context of its command
        path = context.command_path if context else "edgekit"
        return _report(error, f"{error.format_message()} (see '{path} --help')", error.exit_code, debug)
    except (KeyboardInterrupt, click.Abort):
        return _report_interruption()
    except click.exceptions.Exit as done:  # such as after --help
        return done.exit_code
    except SystemExit as ended:  # `StopSignals` raises it after SIGTERM
        # Returned, so that `_end_process` also ends a process with blocked threads.
        return ended.code if isinstance(ended.code, int) else EXIT_FAULT
    except _StdoutClosedError:
        # Python flushes stdout at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        # No file can have such a name: the value is wrong, not the disk.
        code = EXIT_USAGE if error.errno == errno.ENAMETOOLONG else EXIT_IO
        return _report(error, describe_os_error(error), code, debug)
    except MemoryError as error:
        return _report(error, _OUT_OF_MEMORY, EXIT_TEMPORARY, debug)
    except Exception as error:
        if interruptions.received:
            # A library replaced the KeyboardInterrupt by its own exception while it was imported.
            return _report_interruption()
        return _report(error, _describe_unexpected(error), EXIT_FAULT, debug)
    return EXIT_OK


def _prepare_streams() -> None:
    """Make stdin, stdout and stderr usable: open, and without errors for characters that they cannot encode."""
    # Python sets a stream to None if its descriptor is closed.
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 - open until the process ends
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _report(error: BaseException, text: str, exit_code: int, debug: bool) -> int:
    """Print an error as one line on stderr, with `debug` after its traceback, and return `exit_code`."""
    with suppress(OSError):  # stderr may be full or closed; the exit code remains
        if debug:
            shown = printable("".join(traceback.format_exception(error)))
            click.echo("\n".join(f"  {line}" for line in shown.splitlines()), err=True)
        click.echo(f"{ERROR_PREFIX}{one_line(text)}", err=True)
    return exit_code


def _report_interruption() -> int:
    with suppress(OSError):
        click.echo("edgekit: interrupted", err=True)
    return EXIT_INTERRUPTED


def _describe_unexpected(error: Exception) -> str:
    """Return the line for an error that is none of edgekit's own: the missing library, or an internal error."""
    # Imported here, because only an error needs it.
    from edgekit.install_hint import missing_module

    missing = missing_module(error) if isinstance(error, ModuleNotFoundError) else None
    return missing or f"internal error: {type(error).__name__}: {error} (--debug shows the traceback)"


class _Interruptions:
    """Turns SIGINT, SIGTERM and SIGHUP into KeyboardInterrupt, so that all of them run the same clean-up."""

    def __init__(self) -> None:
        self.received = False  # a signal
        self._ended = False  # set by `end`
        # The handlers before this one, by signal.
        self._previous = {signal.SIGTERM: signal.signal(signal.SIGTERM, self._receive)}
        # The shell makes `command &` ignore SIGINT, and nohup makes it ignore SIGHUP.
        for number in (signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._receive)

    def end(self, ends_process: bool) -> None:
        """Restore the handlers of signals; if the process ends, ignore all signals but SIGTERM.

        They are ignored, because a late Ctrl-C would kill the process, and its exit code would be lost. SIGTERM still
        ends a process whose exit is blocked.
        """
        self._ended = True  # `_receive` raises no more
        for number, handler in self._previous.items():
            is_ignored = ends_process and number != signal.SIGTERM
            signal.signal(number, signal.SIG_IGN if is_ignored else handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.received = True
        if not self._ended:
            raise KeyboardInterrupt
