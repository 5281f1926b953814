"""Calls the edgekit of a release, and tries a new release before the board switches to it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.deployed import command_of, unusable
from edgekit.errors import ERROR_PREFIX, HostError
from edgekit.remote.messages import report

# Names of the model in a release, by its engine.
MODEL_NAMES = ("model.onnx", "model.ncnn")
# Settings that name files which must be on the board before a run.
_FILE_KEYS = ("web-token-file", "webhook-token-file", "mqtt-credentials", "mqtt-ca", "mqtt-cert")
_TRIAL_KEYS = ("detector",)


@dataclass(frozen=True)
class Runtime:
    """How to call the edgekit of a release.

    `home` is the folder of the release. `own` is the path of an edgekit that is installed on the board; None to use the
    environment in `home`. Commands run in the folder `data`.
    """

    own: str | None
    home: Path
    data: Path

    def call(self, words: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run a command and return its result; a timeout counts as exit code 1.

        Raises:
            HostError: The edgekit of the release cannot be called.
        """
        command, variables = command_of(self.own, self.home)
        try:
            return subprocess.run(
                [*command, *words],
                cwd=self.data,
                env={**os.environ, "LC_ALL": "C.UTF-8", **variables},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 1, "", f"did not end within {timeout_s:g} s")
        except OSError as error:
            reason = unusable(self.home.resolve()) or f"{error.strerror}: '{error.filename}'"
            raise HostError(str(reason)) from error

    def shell_line(self, words: Sequence[str]) -> str:
        """Return the line for a shell that runs a command in the folder `data`."""
        command, variables = command_of(self.own, self.home)
        assigned = "".join(f"{name}={shlex.quote(value)} " for name, value in variables.items())
        return f"cd {shlex.quote(str(self.data))}; {assigned}{shlex.join([*command, *words])}"

    def try_out(self, release: Path, timeout_s: float) -> None:
        """Read the settings of a release, find the files that they name, load its model and classify one frame.

        Raises:
            HostError: One of these steps failed.
        """
        report("trying the settings and the model")
        settings = tomllib.loads((release / "edgekit.toml").read_text(encoding="utf-8-sig"))
        self._try("settings", timeout_s, "--config", str(release / "edgekit.toml"), "--print-config")
        self._check_files(settings)
        detector = [f"--{key}={settings[key]}" for key in _TRIAL_KEYS if key in settings]
        if (release / "detector.onnx").exists():
            detector.append(f"--detector={release / 'detector.onnx'}")
        # The trial has no camera and no outputs, because the running release uses them.
        for detector_options in (detector, ["--detector=none"]):
            model = str(release / model_name(release))
            words = ["--model", model, "--source", "demo", "--max-frames", "1", "--json"]
            summary = json.loads(self._try("model", timeout_s, *words, *detector_options))
            if summary["faces"]:
                return
        raise HostError("model: no face was classified in a frame of the demo. Nothing was changed")

    def _check_files(self, settings: Mapping[str, Any]) -> None:
        for key, value in settings.items():
            path = self.data / str(value)
            if key in _FILE_KEYS and not (path.is_file() and os.access(path, os.R_OK)):
                raise HostError(f"settings: {key}: no readable file '{path}': copy it there. Nothing was changed")

    def _try(self, what: str, timeout_s: float, *words: str) -> str:
        done = self.call(("run", *words), timeout_s)
        if done.returncode < 0:
            raise HostError(f"{what}: the trial was killed by signal {-done.returncode}. Nothing was changed")
        if done.returncode:
            raise HostError(f"{what}: {last_error(done.stderr)}. Nothing was changed")
        return str(done.stdout)


def model_name(release: Path) -> str:
    """Return the name of the model in the folder of a release."""
    return next(name for name in MODEL_NAMES if (release / name).exists())


def last_error(text: str) -> str:
    """Return the last line of an edgekit's stderr without its prefix."""
    lines = text.strip().splitlines() or ["no reason given"]
    return lines[-1].removeprefix(ERROR_PREFIX)


def errors_in(lines: Sequence[str]) -> list[str]:
    """Return the error messages in the lines of a log."""
    return [line.partition(ERROR_PREFIX)[2] for line in lines if ERROR_PREFIX in line]
