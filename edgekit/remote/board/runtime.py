"""The edgekit of a release: called, and tried before anything changes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import HostError

_ERROR = "edgekit: error: "
# What a release's model is called, by what runs it.
MODEL_NAMES = ("model.onnx", "model.ncnn")
_TRIAL_KEYS = ("detector", "detector-model", "detector-size")


@dataclass(frozen=True)
class Runtime:
    """How to call it: `own` is the board's own edgekit, else the environment in `home` is used; it runs in `data`."""

    own: str | None
    home: Path
    data: Path

    def call(self, words: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Return how a command of it ended; one that takes too long has failed."""
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        command = [self.own] if self.own else [str(self.home / "env/bin/python"), "-P", "-m", "edgekit.cli"]
        if not self.own:
            environment["PYTHONPATH"] = str(self.home / "code")
        try:
            return subprocess.run(
                [*command, *words],
                cwd=self.data,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 1, "", f"no end within {timeout_s:g} s")

    def try_out(self, release: Path, timeout_s: float) -> None:
        """Read a release's settings, load its model and classify one frame.

        Raises:
            HostError: One of it cannot be done.
        """
        say("trying the settings and the model")
        settings = tomllib.loads((release / "edgekit.toml").read_text())
        self._tried("settings", timeout_s, "--config", str(release / "edgekit.toml"), "--print-config")
        detector = [f"--{key}={settings[key]}" for key in _TRIAL_KEYS if key in settings]
        if (release / "detector.onnx").exists():
            detector.append(f"--detector-model={release / 'detector.onnx'}")
        # Neither camera nor outputs: the release that runs has them.
        for finding in (detector, ["--detector=none"]):
            model = str(release / model_name(release))
            words = ["--model", model, "--source", "demo", "--max-frames", "1", "--json"]
            told = json.loads(self._tried("model", timeout_s, *words, *finding))
            if told["faces"]:
                return
        raise HostError("model: one frame was run, and no face came out of it")

    def _tried(self, what: str, timeout_s: float, *words: str) -> str:
        done = self.call(("run", *words), timeout_s)
        if done.returncode < 0:
            raise HostError(f"{what}: the trial died of signal {-done.returncode}. Nothing was changed")
        if done.returncode:
            raise HostError(f"{what}: {last_error(done.stderr)}. Nothing was changed")
        return str(done.stdout)


def model_name(release: Path) -> str:
    """Return what the model is called in a release's folder."""
    return next(name for name in MODEL_NAMES if (release / name).exists())


def last_error(text: str) -> str:
    """Return what the last line of an edgekit's stderr says."""
    lines = text.strip().splitlines() or ["no reason given"]
    return lines[-1].removeprefix(_ERROR)


def errors_in(lines: Sequence[str]) -> list[str]:
    """Return the errors among the lines of a log."""
    return [line.partition(_ERROR)[2] for line in lines if _ERROR in line]


def say(text: str) -> None:
    """Tell a line to whoever asked."""
    with contextlib.suppress(OSError):  # nobody may be listening any more
        print(text, file=sys.stderr, flush=True)
