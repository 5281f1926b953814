"""The trainings of the shipped models run through, on few pictures and for one epoch each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.models.checkpoint import load_checkpoint
from tests.ferplus import save_votes

SCRIPT = Path(__file__).parents[2] / "benchmarks/models/shipped.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "architecture"), [("fer2013", "edgecnn"), ("default", "edgecnn"), ("distilled", "edgecnn@128")]
)
def test_a_shipped_model_is_made_again(
    draw_faces: Callable[..., Path], tmp_path: Path, model: str, architecture: str
) -> None:
    faces = draw_faces(tmp_path / "faces", {"Training": 35, "PublicTest": 28, "PrivateTest": 7})
    save_votes(faces, tmp_path / "votes.csv")
    command = [SCRIPT, model, "--data", faces, "--ferplus", tmp_path / "votes.csv", "-o", tmp_path / "runs"]
    more = ["--epochs", "1", "--precision", "fp32", *(["--teachers", "fer2013"] if model == "default" else [])]
    done = subprocess.run([sys.executable, *map(str, command), *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    checkpoint = load_checkpoint(Path(done.stdout.splitlines()[-1]))
    assert checkpoint.contract.architecture == architecture
    assert ("prior_adjustment" in checkpoint.training) == (model == "default")
