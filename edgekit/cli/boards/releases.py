"""Helpers of `edgekit deploy`, `rollback`, `releases` and `undeploy`: the release to deploy, the results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cli.boards.hosts import needs_detector, raise_failures, yunet_upload
from edgekit.cli.options import ServiceOptions
from edgekit.cli.output import Output
from edgekit.cli.settings import checked_settings

if TYPE_CHECKING:
    from edgekit.remote.deploy import Package, ReleaseChange, Service
    from edgekit.remote.parallel import HostResult

# Releases that stay on a board, for `edgekit rollback`.
_KEPT_RELEASES = 3
# Settings that need packages in addition to edgekit-pi[device], and the extra that installs them.
_EXTRAS = {"mqtt": "mqtt", "save": "video", "web": "preview"}


def chosen_service(target: ServiceOptions) -> Service:
    """Return the service that --name, --user and --system select.

    Raises:
        InputError: The name is not valid.
    """
    from edgekit.device.service.unit import check_name
    from edgekit.remote.deploy import Service

    check_name(target.name)
    return Service(target.name, target.scope)


def read_package(out: Output, model: str, config: Path, settle_s: float, install: bool) -> Package:
    """Return the release made of a model and a settings file.

    Raises:
        InputError: The settings are not valid for `edgekit run`, or a file cannot be read.
    """
    from edgekit.model_store import DEVICE_SUFFIXES, engine_extras, resolve_model
    from edgekit.remote.deploy import Package
    from edgekit.remote.transfer import pack

    # Reports mistakes before a board is reached; the board checks the settings again with its own edgekit.
    settings = checked_settings(config)
    path = resolve_model(model, DEVICE_SUFFIXES)
    files = {f"model{path.suffix}": pack(path, "model"), "edgekit.toml": pack(config, "settings")}
    if settings["detector"] in (None, "yunet") and needs_detector(path):
        detector = yunet_upload(out)
        files |= {} if detector is None else {"detector.onnx": detector}
    extras = tuple(extra for key, extra in _EXTRAS.items() if settings[key] is not None)
    extras += engine_extras([path])
    camera = settings["camera"]
    return Package(files, path.name, _KEPT_RELEASES, None if camera is None else str(camera), extras, install, settle_s)


def show_changes(out: Output, results: Iterator[HostResult[ReleaseChange]]) -> None:
    """Print one line per board as the results arrive, then the JSON document, and errors at the end.

    Raises:
        HostError: A board failed.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    from edgekit.remote.deploy import change_document

    done = []
    try:
        for result in results:
            done.append(result)
            change = result.result
            if result.error is None or not result.tried:
                out.say(f"{result.host.label}: {result.error or (change and _describe(change))}")
    finally:
        out.result({"boards": [change_document(result) for result in done]})
    if any(result.interrupted for result in done):
        out.warn("interrupted: check the boards with 'edgekit releases'")
    raise_failures(done)


def _describe(change: ReleaseChange) -> str:
    if change.already_current:
        return f"{change.release} is already current"
    state = "runs" if change.service_installed else "is in place, no service was installed"
    return f"{change.release} {state}" + (f"; before: {change.before}" if change.before else "")
