"""`edgekit export` from the command line: output, files and exit codes."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgekit.contract import Contract
from edgekit.device.engines.classifier import Classifier
from edgekit.export.options import ExportOptions
from edgekit.export.to_onnx import open_checkpoint
from edgekit.files import sha256_of
from edgekit.models.checkpoint import load_checkpoint, save_checkpoint

EDGEKIT = Path(sys.executable).with_name("edgekit")

Run = Callable[..., tuple[int, str, str]]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_export_writes_the_file_and_reports_it_as_text_and_as_one_json_document(
    edgekit: Run, checkpoint: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "model.onnx"
    code, out, err = edgekit("export", checkpoint, "-o", target, "--json")
    assert code == 0
    assert names(target.parent) == ["model.onnx"]
    assert all(text in err for text in (str(target), sha256_of(target), "418,487", "417,287", "48,827,432"))
    document = json.loads(out)
    assert document["sha256"] == sha256_of(target)
    assert document["size_bytes"] == target.stat().st_size
    assert document["verification"]["max_abs_difference"] < document["verification"]["tolerance"] == 1e-4
    assert (document["net_parameters"], document["parameters"], document["macs"]) == (418_487, 417_287, 48_827_432)
    assert document["contract"]["provenance"]["checkpoint_sha256"] == sha256_of(checkpoint)
    assert Classifier(target).contract.labels == load_checkpoint(checkpoint).contract.labels


def test_the_threshold_for_uncertain_is_written_into_the_file(edgekit: Run, checkpoint: Path, tmp_path: Path) -> None:
    code, _, err = edgekit("export", checkpoint, "-o", tmp_path / "model.onnx", "--uncertain-below", "0.4")
    assert code == 0, err
    assert Classifier(tmp_path / "model.onnx").contract.uncertain_below == 0.4


@pytest.mark.parametrize(
    ("merges", "given", "expected"),
    [
        ((), None, 0.35),
        ((), 0.0, 0.0),
        (("good=happy", "bad=sad,angry"), None, 0.0),
        (("good=happy", "bad=sad,angry"), 0.6, 0.6),
    ],
)
def test_a_checkpoints_threshold_is_kept_unless_another_is_given_or_the_labels_change(
    checkpoint: Path, tmp_path: Path, merges: tuple[str, ...], given: float | None, expected: float
) -> None:
    good, strict = load_checkpoint(checkpoint), tmp_path / "strict.safetensors"
    save_checkpoint(strict, replace(good, contract=replace(good.contract, uncertain_below=0.35)))
    options = ExportOptions(strict, "model.onnx", merges=merges, uncertain_below=given)
    _, contract = open_checkpoint(strict, options)
    assert contract.uncertain_below == expected


@pytest.mark.slow
def test_a_checkpoint_that_returns_nan_is_refused_and_the_old_file_stays(
    edgekit: Run, checkpoint: Path, tmp_path: Path
) -> None:
    good = load_checkpoint(checkpoint)
    state = dict(good.state)
    state["classifier.weight"] = torch.full_like(state["classifier.weight"], 3e38)
    source, target = tmp_path / "huge.safetensors", tmp_path / "model.onnx"
    save_checkpoint(source, replace(good, state=state))
    target.write_text("old")
    code, out, err = edgekit("export", source, "-o", target)
    assert (code, out) == (3, f"exporting {source}\n")
    assert err.splitlines() == [err.strip()]
    assert "the checkpoint's output contains NaN or infinity: 378 of 378 logits" in err
    assert names(tmp_path) == ["huge.safetensors", "model.onnx"]
    assert target.read_text() == "old"


def bad_checkpoints(folder: Path, good_path: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield a name, a file that is not a usable checkpoint, and the expected part of the error message."""

    def file(name: str, content: bytes) -> Path:
        path = folder / f"{name}.safetensors"
        path.write_bytes(content)
        return path

    def altered(name: str, contract: Contract) -> Path:
        path = folder / f"{name}.safetensors"
        save_checkpoint(path, replace(load_checkpoint(good_path), contract=contract))
        return path

    contract = load_checkpoint(good_path).contract
    yield "missing", folder / "missing.safetensors", "does not exist"
    yield "pickle", file("pickle", pickle.dumps(RunsCode(folder / "ran"))), "is not a safetensors file"
    yield "architecture", altered("architecture", replace(contract, architecture="edgecnn-wide")), "do not fit edgecnn"
    yield "labels", altered("labels", replace(contract, labels=contract.labels[:-1])), "has shape [7"
    yield "exported", file("exported", b"").rename(folder / "model.onnx"), "give the checkpoint that the file"


class RunsCode:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.witness),)


def test_bad_checkpoints_get_one_line_and_leave_nothing(edgekit: Run, checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "model.onnx"
    target.parent.mkdir()
    for name, path, message in bad_checkpoints(tmp_path, checkpoint):
        code, out, err = edgekit("export", path, "-o", target)
        assert code == 2, name
        assert out in ("", f"exporting {path}\n"), name
        assert message in err, name
        assert len(err.splitlines()) == 1, name
        assert names(target.parent) == [], name
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("output", "code"),
    [("model.bin", 2), ("folder.onnx", 2), ("file/model.onnx", 74)],
)
def test_outputs_that_cannot_be(edgekit: Run, checkpoint: Path, tmp_path: Path, output: str, code: int) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").write_text("")
    found, _, err = edgekit("export", checkpoint, "-o", tmp_path / output)
    assert found == code
    assert len(err.splitlines()) == 1
    assert names(tmp_path) == ["file", "folder.onnx"]


@pytest.mark.slow
def test_a_full_disk_is_reported_and_no_file_is_left(edgekit: Run, checkpoint: Path, small_disk: Path) -> None:
    code, out, err = edgekit("export", checkpoint, "-o", small_disk / "model.onnx")
    assert (code, out) == (74, f"exporting {checkpoint}\n")
    assert "No space left on device" in err
    assert len(err.splitlines()) == 1
    assert names(small_disk) == []


def test_ctrl_c_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [EDGEKIT, "export", checkpoint, "-o", tmp_path / "model.onnx"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        # The temporary file exists during the tracing of the net, which takes seconds.
        while not names(tmp_path) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err.strip()) == (130, f"exporting {checkpoint}\n", "edgekit: interrupted")
    assert names(tmp_path) == []


@pytest.mark.slow
def test_what_a_killed_export_left_is_removed_by_the_next(edgekit: Run, checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    with subprocess.Popen([EDGEKIT, "export", checkpoint, "-o", target]) as process:
        while not names(tmp_path) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert len(names(tmp_path)) == 1
    # An export that fails early also removes it, and takes less time.
    assert edgekit("export", checkpoint, "-o", target, "--merge", "a=nosuch")[0] == 2
    assert names(tmp_path) == []


@pytest.mark.slow
def test_a_target_chooses_the_rewrites(edgekit: Run, checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    code, out, err = edgekit("export", checkpoint, "-o", target, "--target", "x86", "--json")
    document = json.loads(out)
    assert (code, document["target"]) == (0, "x86")
    assert document["rewrites"] == {"gray-stem": 1, "merge-pool": 2}
    assert "gray-stem (1)" in err
    assert Classifier(target).contract.input.channels == "gray"
