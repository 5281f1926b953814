"""Fixtures that run the command line, in this process or in a separate one."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgekit.cli import run as run_command_line
from edgekit.contract import Contract, CropSpec, InputSpec, OutputSpec
from tests.graph_cache import graph_cache as graph_cache
from tests.waiting import wait_until

Run = Callable[..., tuple[int, str, str]]
PATIENCE_S = 60


@pytest.fixture
def edgekit(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command line in this process and returns its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_command_line([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Contract], Path]:
    """Return a function that saves a checkpoint of an untrained EdgeCNN with a given contract."""

    def make(contract: Contract) -> Path:
        import torch

        from edgekit.models.checkpoint import Checkpoint, save_checkpoint
        from edgekit.models.nets.registry import create_model

        torch.manual_seed(0)
        path = tmp_path_factory.mktemp("checkpoint") / "best.safetensors"
        save_checkpoint(path, Checkpoint(contract, create_model("edgecnn", len(contract.labels)).state_dict()))
        return path

    return make


@pytest.fixture(scope="session")
def checkpoint(untrained: Callable[[Contract], Path]) -> Path:
    """A checkpoint of an untrained EdgeCNN for the seven expressions."""
    return untrained(
        Contract(
            architecture="edgecnn",
            labels=("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
            input=InputSpec("input", (44, 44), "rgb", 1 / 255, (0.0,) * 3, (1.0,) * 3),
            crop=CropSpec(margin=0.0, grayscale=True, resize_hw=(48, 48), center_crop_hw=(44, 44)),
            output=OutputSpec("logits"),
        )
    )


class Running:
    """A run in a separate process, whose stderr is read during the run."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.stderr_text = ""
        self.document = ""
        readers = [threading.Thread(target=self._warnings), threading.Thread(target=self._result)]
        for reader in readers:
            reader.start()
        self._readers = readers

    def until_printed(self, text: str) -> None:
        self.until(lambda: text in self.stderr_text)

    def until(self, condition: Callable[[], object]) -> None:
        wait_until(condition, alive=lambda: self.process.poll() is None, failure=lambda: self.stderr_text)

    def end(self) -> int:
        code = self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join()
        return code

    def _warnings(self) -> None:
        for line in self.process.stderr:
            self.stderr_text += line

    def _result(self) -> None:
        self.document = self.process.stdout.read()


@pytest.fixture
def start(tiny_model: Path) -> Iterator[Callable[..., Running]]:
    """Return a function that starts `edgekit run` in a separate process, after the statements of `before`."""
    with ExitStack() as stack:

        def start(*arguments: object, before: str = "") -> Running:
            code = f"{before}\nfrom edgekit.cli import main; main()"
            command = ["run", "--model", tiny_model, "--detector", "none", "--json", *arguments]
            process = subprocess.Popen(
                [sys.executable, "-c", code, *map(str, command)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return Running(process)

        yield start
