"""The training loop: learning, resumption bit for bit, and equal results with one and two processes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.errors import InputError, StorageError, TemporaryError
from edgekit.files import exclusive_folder
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.data import DataSet
from edgekit.models.data.augment import Augmentation
from edgekit.models.model_loading import build_net, contract_for
from edgekit.models.nets import registry
from edgekit.models.nets.grouped import condensed
from edgekit.models.train import train
from edgekit.models.training.loop import BEST_NAME, STATE_NAME, train_job
from edgekit.models.training.recipes import RECIPES, Balance, Recipe
from edgekit.models.training.task import ClassificationTask, TrainingJob
from tests.resuming import job_of, train_whole_and_resumed
from tests.waiting import wait_until

SHORT = Recipe(
    epochs=3,
    augmentation=Augmentation(crop_px=44, rotation_deg=5, cutout_px=8, cutout_probability=0.5),
    batch_size=14,
    max_lr=0.05,
    label_smoothing=0.1,
    ema_decay=0.9,
)
ONE_EPOCH = dataclasses.replace(SHORT, epochs=1)


class _SmallNet(nn.Sequential):
    """A small net with BatchNorm statistics and dropout, whose state a resumed training must restore."""

    def __init__(self, num_classes: int) -> None:
        layers = (nn.Conv2d(3, 4, 7, 4), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.3))
        super().__init__(*layers, nn.Linear(4 * 10 * 10, num_classes))


@pytest.fixture(scope="module", autouse=True)
def small_net() -> Iterator[None]:
    """Add the nets "small" and "linear" to the registry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            registry.NETS, "linear", lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(3 * 44 * 44, classes))
        )
        yield patch.setitem(registry.NETS, "small", _SmallNet)


@pytest.fixture(scope="module")
def finished_once(bars: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training of one epoch; see `finished`."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train_job(_job(bars, ONE_EPOCH), folder)
    return folder


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """A copy of `finished_once` that a test may damage."""
    return shutil.copytree(finished_once, tmp_path / "run")


def _job(
    data: DataSet, recipe: Recipe = SHORT, architecture: str = "small", seed: int = 0, balance: Balance = "none"
) -> TrainingJob:
    contract = contract_for(architecture, data.classes, data.name, data.is_gray)
    task = ClassificationTask(contract, recipe, data.splits["Training"], data.splits["PublicTest"], balance=balance)
    return job_of(task, recipe, seed, data_sha256=data.checksum())


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / STATE_NAME, weights_only=True)["net"]
    return state


def _assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_training_learns_the_bars(bars: DataSet, tmp_path: Path) -> None:
    recipe = dataclasses.replace(SHORT, epochs=12, ema_decay=0.0, augmentation=Augmentation(crop_px=44))
    history = train_job(_job(bars, recipe), tmp_path)
    assert history[-1].loss < history[0].loss
    assert max(report.validation_accuracy for report in history) > 0.8


def test_best_checkpoint_is_of_the_best_epoch_and_records_its_training(bars: DataSet, tmp_path: Path) -> None:
    history = train_job(_job(bars, seed=5), tmp_path)
    checkpoint = load_checkpoint(tmp_path / BEST_NAME)
    best = max(history, key=lambda report: report.rank)
    assert checkpoint.training["best"]["epoch"] == best.epoch
    train_job(_job(bars, seed=5), tmp_path / "again")
    assert (tmp_path / "again" / BEST_NAME).read_bytes() == (tmp_path / BEST_NAME).read_bytes()
    assert checkpoint.training["seed"] == 5
    assert checkpoint.training["data_sha256"] == bars.checksum()
    assert checkpoint.training["recipe"]["batch_size"] == 14
    assert checkpoint.contract.labels == bars.classes


def test_the_limit_of_the_gradients_norm_limits_each_step(bars: DataSet, tmp_path: Path) -> None:
    plain = dataclasses.replace(ONE_EPOCH, momentum=0.0, nesterov=False, weight_decay=0.0, ema_decay=0.0)
    recipes = {
        "still": dataclasses.replace(plain, max_lr=1e-12),
        "free": plain,
        "limited": dataclasses.replace(plain, clip_norm=1e-3),
    }
    for name, recipe in recipes.items():
        train_job(_job(bars, recipe, "linear"), tmp_path / name)
    start, free, limited = (
        torch.cat([value.flatten() for value in _weights(tmp_path / name).values()]) for name in recipes
    )
    steps = -(-len(bars.splits["Training"]) // plain.batch_size)
    most = steps * plain.max_lr * 1e-3
    assert 0 < (limited - start).norm() <= most * 1.01
    assert (free - start).norm() > 10 * most


def test_targets_that_are_certain_train_as_labels_without_smoothing(bars: DataSet, tmp_path: Path) -> None:
    hard = dataclasses.replace(SHORT, epochs=1, label_smoothing=0.0)
    train_job(_job(bars, hard), tmp_path / "labels")
    training = bars.splits["Training"]
    certain = dataclasses.replace(training, targets=np.eye(7, dtype=np.float32)[training.labels])
    data = dataclasses.replace(bars, splits={**bars.splits, "Training": certain})
    train_job(_job(data, dataclasses.replace(SHORT, epochs=1)), tmp_path / "targets")
    expected = _weights(tmp_path / "labels")
    for name, tensor in _weights(tmp_path / "targets").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-5, msg=name)


def test_interrupted_training_resumes_bit_for_bit(bars: DataSet, tmp_path: Path) -> None:
    train_whole_and_resumed(lambda: _job(bars), tmp_path, interrupted_after=6)  # in the middle of the second epoch
    records = (tmp_path / "resumed" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(record)["epoch"] for record in records] == [1, 2, 3]


def test_training_over_another_one_is_refused(bars: DataSet, finished: Path) -> None:
    with pytest.raises(InputError, match="resume it"):
        train_job(_job(bars, ONE_EPOCH), finished)
    with pytest.raises(InputError, match="its seed was 0, now it is 1"):
        train_job(_job(bars, ONE_EPOCH, seed=1), finished, resume=True)


def test_a_state_without_a_setting_that_is_off_is_resumed(bars: DataSet, finished: Path) -> None:
    # An earlier version of edgekit, which does not have the setting, writes such a state.
    path = finished / STATE_NAME
    state = torch.load(path, weights_only=True)
    for name in ("patience", "max_lr"):
        del state["fingerprint"]["recipe"][name]
        torch.save(state, path)
        if name == "patience":
            train_job(_job(bars, ONE_EPOCH), finished, resume=True)
    with pytest.raises(InputError, match=r"its recipe\.max_lr was None, now it is 0\.05"):
        train_job(_job(bars, ONE_EPOCH), finished, resume=True)


def test_a_state_that_is_cut_off_or_has_one_flipped_bit_is_refused(bars: DataSet, finished: Path) -> None:
    path = finished / STATE_NAME
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (content, content[:5000]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"last\.pt"):
            train_job(_job(bars, ONE_EPOCH), finished, resume=True)


def test_a_folder_that_another_training_writes_to_is_refused(bars: DataSet, tmp_path: Path) -> None:
    with exclusive_folder(tmp_path), pytest.raises(TemporaryError):
        train_job(_job(bars), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_best_weights_without_a_state_are_not_trained_over(bars: DataSet, finished: Path) -> None:
    (finished / STATE_NAME).unlink()
    for resume in (False, True):
        with pytest.raises(InputError, match=r"without last\.pt"):
            train_job(_job(bars, ONE_EPOCH), finished, resume=resume)


def test_best_weights_lost_in_an_interruption_come_back_when_resuming(bars: DataSet, finished: Path) -> None:
    best = (finished / BEST_NAME).read_bytes()
    (finished / BEST_NAME).unlink()
    train_job(_job(bars, ONE_EPOCH), finished, resume=True)
    assert (finished / BEST_NAME).read_bytes() == best


@pytest.mark.slow
def test_learned_groups_are_condensed_by_the_end(bars: DataSet, tmp_path: Path) -> None:
    train_job(_job(bars, dataclasses.replace(SHORT, keep="last"), architecture="edgecnn-g-learned"), tmp_path)
    checkpoint = load_checkpoint(tmp_path / BEST_NAME)
    masks = [tensor for name, tensor in checkpoint.state.items() if name.endswith("expand.mask")]
    assert masks
    assert all(float(mask.float().mean()) == 0.25 for mask in masks)
    net = build_net(checkpoint)
    assert registry.parameter_count(condensed(net)) == 104_327 < registry.parameter_count(net)


def test_a_diverging_training_is_reported(bars: DataSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lower the learning rate"):
        train_job(_job(bars, dataclasses.replace(SHORT, max_lr=1e30)), tmp_path)


def test_files_of_a_killed_training_are_removed_when_resuming(bars: DataSet, finished: Path) -> None:
    left = [finished / name for name in (".last.pt.0123abcd.pt", ".best.safetensors.0123abcd.safetensors")]
    for path in left:
        path.touch()
    train_job(_job(bars, ONE_EPOCH), finished, resume=True)
    assert not any(path.exists() for path in left)


def test_the_metrics_of_an_epoch_that_was_interrupted_after_its_state_are_written_when_resuming(
    bars: DataSet, finished: Path
) -> None:
    metrics = (finished / "metrics.jsonl").read_bytes()
    (finished / "metrics.jsonl").unlink()
    train_job(_job(bars, ONE_EPOCH), finished, resume=True)
    assert (finished / "metrics.jsonl").read_bytes() == metrics


def test_an_output_that_cannot_be_written_is_reported_before_the_data_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="choose another place"):
        train(data=tmp_path / "missing", output=tmp_path / "file" / "run")


def test_a_training_without_a_batch_is_refused_and_writes_nothing(bars: DataSet, tmp_path: Path) -> None:
    part = bars.splits["Training"].subset(np.arange(1))
    job = _job(dataclasses.replace(bars, splits={**bars.splits, "Training": part}))
    with pytest.raises(InputError, match=r"too few images for 1 process: .* training images \(1\) must be 2 or more"):
        train_job(job, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    one_cycle = dataclasses.replace(RECIPES["fer2013"], finish=None)
    rates = [one_cycle.learning_rate(epoch, 0, 10) for epoch in range(one_cycle.epochs)]
    assert max(rates) == pytest.approx(one_cycle.max_lr, rel=0.01)
    assert rates.index(max(rates)) == pytest.approx(one_cycle.warmup * one_cycle.epochs, abs=1)
    assert one_cycle.learning_rate(one_cycle.epochs - 1, 9, 10) == pytest.approx(0, abs=1e-9)


def _command(folder: Path, output: Path, epochs: int) -> list[str]:
    arguments = ["train", "--data", str(folder), "-o", str(output), "--epochs", str(epochs), "--batch-size", "28", "-q"]
    return ["-m", "edgekit.cli", *arguments, "--accelerator", "cpu", "--threads", "1", "--precision", "fp32"]


def _train_here(folder: Path, output: Path, epochs: int, resume: bool = False) -> None:
    """Train in this process with the options of `_command`."""
    machine = {"accelerator": "cpu", "threads": 1, "precision": "fp32"}
    train(data=folder, output=output, epochs=epochs, batch_size=28, resume=resume, **machine)


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(bars_folder: Path, tmp_path: Path) -> None:
    # Two steps: training amplifies rounding errors. They stay far below the effect of BatchNorm over half a batch.
    _train_here(bars_folder, tmp_path / "one", epochs=1)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *torchrun, *_command(bars_folder, tmp_path / "two", epochs=1), "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["checkpoint"] == str(tmp_path / "two" / BEST_NAME), "one process prints the result"
    one, two = _weights(tmp_path / "one"), _weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.slow
def test_training_killed_after_an_epoch_resumes_to_the_same_weights(bars_folder: Path, tmp_path: Path) -> None:
    _train_here(bars_folder, tmp_path / "whole", epochs=4)
    parts = tmp_path / "parts"
    process = subprocess.Popen([sys.executable, *_command(bars_folder, parts, epochs=4)])
    wait_until(lambda: (parts / STATE_NAME).exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (parts / STATE_NAME).exists(), "the training ended before it finished an epoch"
    _train_here(bars_folder, parts, epochs=4, resume=True)
    _assert_equal(_weights(tmp_path / "whole"), _weights(parts))


def test_a_finish_is_a_cycle_of_its_own() -> None:
    recipe = RECIPES["fer2013"]
    assert recipe.finish is not None
    first, _ = recipe.stage(0)
    last, number = recipe.stage(recipe.epochs - 1)
    assert (first.epochs + last.epochs, number) == (recipe.epochs, last.epochs - 1)
    assert last.max_lr == pytest.approx(recipe.max_lr * recipe.finish.lr_share)
    assert (last.augmentation, last.label_smoothing) == (Augmentation(crop_px=44), 0)
    rates = [[recipe.learning_rate(epoch, step, 10) for step in range(10)] for epoch in range(recipe.epochs)]
    peaks = max(map(max, rates[: first.epochs])), max(map(max, rates[first.epochs :]))
    assert peaks == (pytest.approx(recipe.max_lr, rel=0.01), pytest.approx(last.max_lr, rel=0.01))
    assert [rates[first.epochs - 1][-1], rates[-1][-1]] == pytest.approx([0, 0], abs=1e-9)
    assert rates[first.epochs][0] < rates[first.epochs + 1][0], "the second cycle warms up, too"


def test_a_training_cut_short_has_both_stages() -> None:
    recipe = dataclasses.replace(RECIPES["fer2013"], epochs=2)
    assert [recipe.stage(epoch)[0].augmentation == Augmentation(crop_px=44) for epoch in range(2)] == [False, True]
    assert dataclasses.replace(recipe, epochs=1).stage(0)[0].epochs == 1
