"""The `edgekit` command: finds the subcommand's file, runs it, and turns errors into one line and an exit code.

Each command is one small file here that parses, builds and hands over. Importing this package loads the standard
library and click only; a command's heavy imports happen when it runs.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import signal
import sys
import traceback
from contextlib import suppress
from types import FrameType

import click

from edgekit import __version__
from edgekit.cli.output import describe_os_error, one_line
from edgekit.errors import EXIT_FAULT, EXIT_INTERRUPTED, EXIT_IO, EXIT_OK, EdgekitError
from edgekit.text import printable

# Command name → module that holds it as `command`; the order of `edgekit --help`.
_COMMANDS = {
    "train": "edgekit.cli.commands.train",
    "distill": "edgekit.cli.commands.distill",
    "eval": "edgekit.cli.commands.eval",
    "data": "edgekit.cli.commands.data",
    "import": "edgekit.cli.commands.import_",
    "export": "edgekit.cli.commands.export",
    "inspect": "edgekit.cli.commands.inspect",
    "verify": "edgekit.cli.commands.verify",
    "profile": "edgekit.cli.commands.profile",
    "run": "edgekit.cli.commands.run",
    "cameras": "edgekit.cli.commands.cameras",
    "bench": "edgekit.cli.commands.bench",
    "report": "edgekit.cli.commands.report",
    "compare": "edgekit.cli.commands.compare",
    "doctor": "edgekit.cli.commands.doctor",
    "deploy": "edgekit.cli.commands.deploy",
    "rollback": "edgekit.cli.commands.rollback",
    "releases": "edgekit.cli.commands.releases",
    "host": "edgekit.cli.commands.host",
    "service": "edgekit.cli.commands.service",
}


class _ReaderLeftError(Exception):
    """Whoever read our stdout closed it, as `| head` does."""


class _LazyGroup(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # click would end the process here, with exit code 1.
            raise _ReaderLeftError from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(_COMMANDS[cmd_name]).command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgekit")
def cli() -> None:
    """Take a small-input classifier from training to a Raspberry Pi.

    \b
    edgekit train --data fer2013.tar.gz -o runs/mine       train EdgeCNN
    edgekit export runs/mine/best.safetensors -o my.onnx   one self-describing file
    edgekit run --model my.onnx --camera                   faces, expressions, frame rate
    """


def main() -> None:
    """Run the command line and exit: the console script's entry point."""
    exit_code = _run(sys.argv[1:])
    watched = sys.modules.get("edgekit.device.sources.timeout_guard")
    if watched is not None and watched.any_reading():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(exit_code)
    sys.exit(exit_code)


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    interruptions = _Interruptions()
    # A closed stream is None: what would go there goes nowhere.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - lives as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the terminal's encoding lacks is shown as an escape
    # It warns of a home that cannot be written to, and draws all the same.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        cli.main(args=arguments, prog_name="edgekit", standalone_mode=False)
    except EdgekitError as error:
        return _report(error, str(error), error.exit_code, debug)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context else cli.name or "edgekit"
        return _report(error, f"{error.format_message()} (see '{where} --help')", error.exit_code, debug)
    except (KeyboardInterrupt, click.Abort):
        return _report_interruption()
    except click.exceptions.Exit as done:
        return done.exit_code
    except _ReaderLeftError:
        # Nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except ModuleNotFoundError as error:
        if interruptions.seen:
            return _report_interruption()
        return _report(error, _missing_module(error), EXIT_FAULT, debug)
    except OSError as error:
        return _report(error, describe_os_error(error), EXIT_IO, debug)
    except MemoryError as error:
        return _report(error, "out of memory: use a smaller batch or close other programs", EXIT_FAULT, debug)
    except Exception as error:
        if interruptions.seen:
            # A library that was importing turned the interruption into an error of its own.
            return _report_interruption()
        text = f"internal error: {type(error).__name__}: {error} (--debug shows where)"
        return _report(error, text, EXIT_FAULT, debug)
    finally:
        interruptions.give_back()
    return EXIT_OK


def _report(error: BaseException, text: str, exit_code: int, debug: bool) -> int:
    with suppress(OSError):  # a full or closed stderr; the exit code still tells
        if debug:
            shown = printable("".join(traceback.format_exception(error)))
            click.echo("\n".join(f"  {line}" for line in shown.splitlines()), err=True)
        click.echo(f"edgekit: error: {one_line(text)}", err=True)
    return exit_code


def _report_interruption() -> int:
    with suppress(OSError):  # as in _report; the terminal may be gone
        click.echo("edgekit: interrupted", err=True)
    return EXIT_INTERRUPTED


class _Interruptions:
    """Turns Ctrl-C, SIGTERM and the end of the terminal into KeyboardInterrupt, so that all clean up on the same road,
    and remembers them.
    """

    def __init__(self) -> None:
        self.seen = False
        self._previous = {signal.SIGTERM: signal.signal(signal.SIGTERM, self._receive)}
        # The shell has `command &` ignore Ctrl-C, nohup the end of the terminal.
        for number in (signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._receive)

    def give_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.seen = True
        raise KeyboardInterrupt


def _missing_module(error: ModuleNotFoundError) -> str:
    extras = {
        "cv2": "device",
        "onnxruntime": "device",
        "paho": "mqtt",
        "starlette": "preview",
        "uvicorn": "preview",
        "onnx": "export",
        "onnxscript": "export",
        "torch": "train",
        "lightning_fabric": "train",
        "safetensors": "train",
        "h5py": "train",
        "tensorboard": "train",
        "matplotlib": "train",
        "open_clip": "train",
    }
    module = (error.name or "").partition(".")[0]
    if module in extras:
        # Imported here, because it imports the package metadata, which takes a tenth of the start-up time of --help.
        from edgekit.install_hint import install_command

        return f"this command needs '{module}': {install_command(extras[module])}"
    return f"internal error: {error} (--debug shows where)"
