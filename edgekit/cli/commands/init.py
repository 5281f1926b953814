"""`edgekit init`: five questions; the answers become a settings file of `edgekit run` and, on request, its service."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import click

from edgekit.cli.command import Command
from edgekit.cli.command import command as edgekit_command
from edgekit.cli.output import Output
from edgekit.cli.settings import as_toml, checked_settings, run_option
from edgekit.device.pipeline import StreamOptions
from edgekit.device.sinks.mqtt import parse_broker
from edgekit.device.sinks.web import WebOptions
from edgekit.device.sources.settings import CameraSettings, parse_camera
from edgekit.errors import EdgekitError, InputError
from edgekit.files import check_writable, write_atomic
from edgekit.model_store import DEVICE_SUFFIXES, resolve_model
from edgekit.options import Options, option, same_option

_MODEL = "default"
_TEACH = "teach"
_PORTS = range(8080, 8100)
_TOKEN_FILE = "web-token"
# A network stream may take ten seconds until it fails, after the imports, which take seconds on a Pi.
_MOST_START_S = 30.0
# What the results are, in the question and in the help.
_RESULTS = {
    "web": "a live page for the browser",
    "records": "a line of JSON per change, in results.jsonl",
    "clips": "a video of each event, in the folder clips",
    "mqtt://HOST": "events and states for Home Assistant and other programs",
}
_DEFAULT_RESULTS = "web,records"


class _InitCommand(Command):
    is_negatable: ClassVar[bool] = True


def _model(text: str) -> str:
    """Return the name or path of a model that exists, or "teach"."""
    if text != _TEACH:
        resolve_model(text, DEVICE_SUFFIXES)
    return text


def _absolute_if_file(text: str) -> str:
    """Return the absolute path of a file, because the settings may be used in another folder; else the text."""
    return str(Path(text).absolute()) if Path(text).is_file() else text


def _results(text: str) -> tuple[str, ...]:
    """Return the names in a list such as "web,mqtt://broker.local"."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name.startswith(("mqtt://", "mqtts://")):
            parse_broker(name)  # raises if it is no address
        elif name not in _RESULTS:
            raise ValueError(f"'{name}' is not one of {', '.join(_RESULTS)}")
    if not names:
        raise ValueError(f"choose from {', '.join(_RESULTS)}")
    return names


def _region(text: str) -> dict[str, Any]:
    """Return the setting `roi` or `zone` of an answer, which is checked as in `edgekit run`.

    The answer is X,Y,W,H, or NAME=X,Y,… or one of the two lines that the page shows for a zone:

        zone = ["mat=0,0,1,0,1,1"]
        --zone mat=0,0,1,0,1,1
    """
    if text.startswith("zone = "):
        zones = tomllib.loads(text)["zone"]
        if not isinstance(zones, list) or not zones or not all(isinstance(zone, str) for zone in zones):
            raise ValueError("zone must be a list of texts such as NAME=0,0,1,0,1,1")
    else:
        value = text.removeprefix("--zone ").strip("\"'")
        if "=" not in value:
            _check("roi", value)
            return {"roi": value}
        zones = [value]
    for zone in zones:
        _check("zone", zone)
    return {"zone": zones}


def _check(key: str, value: str) -> None:
    """Raise ValueError or InputError if `edgekit run` refuses this value of a setting."""
    parse = run_option(key).parse
    assert parse is not None
    parse(value)


@dataclass(frozen=True, kw_only=True)
class InitOptions(Options):
    """The answers; what is not given is asked for in a terminal, and otherwise the default."""

    title = "Answers"
    output: Path = option("--output", "The settings file.", default=Path("edgekit.toml"), short="-o", metavar="TOML")
    camera: str | None = same_option(StreamOptions, "camera")
    source: str | None = same_option(StreamOptions, "source")
    model: str | None = option(
        "--model",
        "What is recognised: faces (`default`), own things that you teach on the web page (`teach`), or a model file.",
        metavar="MODEL|teach",
        parse=_model,
        default_text=_MODEL,
    )
    region: dict[str, Any] | None = option(
        "--region",
        "The part of the frame to use, as for `run --roi` or `run --zone`.",
        metavar="X,Y,W,H|ZONE",
        parse=_region,
        default_text="the whole frame",
    )
    results: tuple[str, ...] = option(
        "--results",
        f"The results, separated by commas: {', '.join(f'{name} ({text})' for name, text in _RESULTS.items())}.",
        default=(),
        metavar="LIST",
        parse=_results,
        default_text=_DEFAULT_RESULTS,
    )
    service: bool | None = option("--service", "Start at boot, as a service.", default=None)


@edgekit_command(
    "init", short_help="Ask five questions and write the settings of `run`.", cls=_InitCommand, given=InitOptions
)
def command(out: Output, given: InitOptions) -> None:
    """Ask for camera, model, region and results, write the settings file of `edgekit run`, and install the service.

    An option answers its question in advance. Without a terminal, questions without an option get the default answer.

    \b
    Examples:
      edgekit init
      edgekit init -o door.toml --camera usb --region 0.3,0,0.4,1
      edgekit init --source rtsp://10.0.0.7/live --model teach --results web --service
    """
    if given.model == _TEACH and given.region is not None:
        raise InputError("--region has no effect with --model teach: draw the region on the page on which you teach")
    if given.output.exists():
        raise InputError(f"'{given.output}' exists: remove it, or give another file with --output")
    check_writable(given.output)
    questions = _Questions(out, given)
    settings = questions.source() | questions.model()
    settings |= questions.region(settings)  # after these two, because the page shows their camera
    for result in questions.results(settings):
        settings |= questions.settings_of(result)
    _write(given.output, settings)
    out.say(f"settings: '{given.output}'")
    if "web" in settings:
        out.say(_page(given.output.parent, settings["web"]))
    if "mqtt" in settings:
        out.say(f"if the broker needs a login, add mqtt-credentials = \"FILE\" to '{given.output}' (user:password)")
    place = f"cd {shlex.quote(str(given.output.parent))} && " if given.output.parent != Path() else ""
    out.say(f"run it: {place}edgekit run --config {shlex.quote(given.output.name)}", indent=None)
    is_service = questions.service()
    if is_service:
        _install_service(out, given.output)
    out.result({"output": str(given.output), "settings": settings, "service": is_service})


class _Questions:
    """The questions; each method returns the settings of its answer."""

    def __init__(self, out: Output, given: InitOptions) -> None:
        self._out = out
        self._given = given
        self._asks = sys.stdin.isatty()

    @cached_property
    def _web(self) -> dict[str, Any]:
        """The settings of the page; the port is searched for only if the page is shown."""
        return {"web": f"0.0.0.0:{_free_port()}", "web-token-file": _TOKEN_FILE}

    def source(self) -> dict[str, Any]:
        """Return the setting `camera` or `source`."""
        given = self._given
        if given.source is not None:
            return {"source": _absolute_if_file(given.source)}
        if given.camera is not None:
            return {"camera": given.camera}
        cameras = self._list_cameras()
        if not self._asks:
            return {"camera": "auto"}

        def parse(answer: str) -> dict[str, Any]:
            is_number_in_list = answer.isdecimal() and 0 < int(answer) <= len(cameras)
            if is_number_in_list:
                return {"camera": cameras[int(answer) - 1]}
            if "://" in answer or answer == "demo" or Path(answer).is_file():
                return {"source": _absolute_if_file(answer)}
            return {"camera": parse_camera(answer)}

        text = "1. Camera: a number, a name, or the address of a stream"
        setting: dict[str, Any] = self._ask(text, default="1" if cameras else "demo", parse=parse)
        return setting

    def model(self) -> dict[str, Any]:
        """Return the setting `model` or `teach`."""
        model = self._given.model
        if model is None and self._asks:
            text = "2. Recognise: faces (default), own things that you teach on the page (teach), or a model file"
            model = self._ask(text, _MODEL, _model)
        return {_TEACH: True} if model == _TEACH else {"model": _absolute_if_file(model or _MODEL)}

    def region(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the setting `roi` or `zone`, or none; the page shows the camera of `settings` meanwhile."""
        if _TEACH in settings:
            return {}  # the page draws the region of what it teaches
        if self._given.region is not None or not self._asks:
            return self._given.region or {}
        with _preview(self._out, self._given.output.parent, {**settings, **self._web}):
            text = "3. Region: X,Y,W,H, or the line of the page's button 'Draw a zone'; Enter: the whole frame"
            region: dict[str, Any] = self._ask(text, "", lambda answer: _region(answer) if answer else {})
        return region

    def results(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the chosen results; with the setting `teach`, the page is one of them."""
        names: tuple[str, ...] = self._given.results or _results(_DEFAULT_RESULTS)
        if not self._given.results and self._asks:
            for name, text in _RESULTS.items():
                self._out.say(f"  {name:12} {text}")
            names = self._ask("4. Results, with commas", _DEFAULT_RESULTS, _results)
        # "web" may be in the list twice, which is harmless.
        return (*names, "web") if _TEACH in settings else names

    def settings_of(self, result: str) -> dict[str, Any]:
        """Return the settings of one result."""
        if result == "web":
            return self._web
        if result == "records":
            return {"jsonl": "results.jsonl", "records": "changes", "rotate-files": "10MB,keep=20"}
        if result == "clips":
            return {"event-clips": "clips"}
        return {"mqtt": result}  # the address of the broker

    def service(self) -> bool:
        """Return whether to install the service."""
        if self._given.service is None and self._asks:
            return click.confirm("5. Start at boot, as a service?", default=False, err=self._out.as_json)
        return bool(self._given.service)

    def _list_cameras(self) -> list[str]:
        """Print the cameras with their numbers, and return their names."""
        from edgekit.device.sources.opencv import list_cameras

        found = list_cameras()
        for number, camera in enumerate(found.cameras, start=1):
            self._out.say(f"  {number}  {camera.name}  {camera.model}")
        for obstacle in found.obstacles:
            self._out.say(f"  obstacle: {obstacle}")
        if not found.cameras:
            self._out.warn("no camera found: connect one, or try the bundled recording: demo (option: --source demo)")
        return [camera.name for camera in found.cameras]

    def _ask(self, text: str, default: str, parse: Callable[[str], Any]) -> Any:
        """Return the parsed answer; a wrong one is asked for again."""

        def parsed(answer: str) -> Any:
            try:
                return parse(answer.strip())
            except (ValueError, InputError) as error:
                raise click.UsageError(str(error)) from error  # click prints it and prompts again

        return click.prompt(text, default=default, show_default=bool(default), value_proc=parsed, err=self._out.as_json)


def _free_port() -> int:
    """Return the first port of the web page that no program listens to."""
    for port in _PORTS:
        with socket.socket() as listener, suppress(OSError):
            # As the web server does: the port of a run that has just ended counts as free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("0.0.0.0", port))
            return port
    raise EdgekitError(f"the ports {_PORTS[0]} to {_PORTS[-1]} are in use: stop other runs, or give --results records")


@contextmanager
def _preview(out: Output, folder: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Serve the web page with the camera of `settings` during the block, and print its address.

    If the camera cannot be opened, print the reason instead.
    """
    line = _page(folder, settings["web"])  # makes the token that the page reads
    kind = "source" if "source" in settings else "camera"
    # In a process of its own, because libcamera writes into the terminal.
    program = f"import sys; from {__name__} import show_camera; show_camera(*sys.argv[1:])"
    arguments = [kind, settings[kind], settings["model"], settings["web"], str(folder / _TOKEN_FILE)]
    with tempfile.TemporaryFile("w+") as log:
        words = [sys.executable, "-P", "-c", program, *arguments]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process:
            try:
                if _is_page_open(process, settings["web"]):
                    out.say(line)
                else:
                    log.seek(0)
                    reason = log.read().splitlines()[-1:] or [f"no answer within {_MOST_START_S:.0f} s"]
                    out.warn(f"the page cannot show the camera: {reason[0]}")
                yield  # the region can be typed without the page
            finally:
                process.terminate()


def _is_page_open(process: subprocess.Popen[bytes], address: str) -> bool:
    """Wait until `process` serves its page, and return True; False if it ends before, or takes too long."""
    port = int(address.rpartition(":")[2])
    end_s = time.monotonic() + _MOST_START_S
    while process.poll() is None and time.monotonic() < end_s:
        # The page listens on all addresses of this machine.
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(0.1)
    return False


def show_camera(kind: str, value: str, model: str, address: str, token_file: str) -> None:
    """Serve the web page at `address` until SIGTERM, as `edgekit run`; recordings begin again at their end.

    `kind` is "camera" or "source". An error is the last line of stderr.
    """
    from edgekit.cli.run_stream import run_stream
    from edgekit.device.imaging import IMAGE_SUFFIXES

    if kind == "camera":
        stream = StreamOptions(camera=value, model=model)
    else:
        # Images have no frame rate, without which `realtime` is an error.
        is_video = not Path(value).is_dir() and Path(value).suffix.lower() not in IMAGE_SUFFIXES
        stream = StreamOptions(source=value, model=model, realtime=is_video, repeat=True)
    web = WebOptions(web=address, web_token_file=Path(token_file))
    try:
        run_stream(Output(as_json=False, quiet=True), stream, CameraSettings(), (web,))
    except EdgekitError as error:
        sys.exit(str(error))


def _page(folder: Path, address: str) -> str:
    """Return a line with address and token of the page; the token is made if there is none."""
    path = folder / _TOKEN_FILE
    if not path.exists():
        path.touch(mode=0o600)  # before it is written, so that other users can never read the token
        path.write_text(f"{secrets.token_urlsafe()}\n")
    port = address.rpartition(":")[2]
    return f"page: http://{socket.gethostname()}:{port}/, token (in '{path}'): {path.read_text().strip()}"


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings, which are checked as `edgekit run` checks them; only their owner can read a password."""
    write_atomic(path, as_toml(settings))
    path.chmod(0o600)
    try:
        checked_settings(path)
    except EdgekitError:
        path.unlink()  # `command` has checked that there was no file before
        raise


def _install_service(out: Output, settings: Path) -> None:
    """Install the service, with sudo if this user is not root."""
    words = _edgekit("service", "install", "--config", settings.name, "--folder", settings.absolute().parent)
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            raise EdgekitError(f"only root can install a service: run {shlex.join(words)}")
        words = ["sudo", *words]
    # With --json, stdout has only the document.
    if subprocess.run(words, cwd=settings.absolute().parent, stdout=sys.stderr if out.as_json else None).returncode:
        raise EdgekitError(f"the service is not installed; the settings are: after a repair, run {shlex.join(words)}")


def _edgekit(*arguments: object) -> list[str]:
    """Return the command line of an edgekit command in this Python."""
    return [sys.executable, "-P", "-m", "edgekit.cli", *map(str, arguments)]
