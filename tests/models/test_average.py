"""The average of checkpoints is the mean of their weights, with BatchNorm statistics of the averaged net."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.models.average import average_checkpoints
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.data import DataSet
from edgekit.models.data.readers import load_dataset
from edgekit.models.model_loading import build_net, contract_for
from edgekit.models.nets.grouped import set_training_progress
from edgekit.models.nets.registry import create_model
from edgekit.models.training.calibrate import calibrate, uncalibrated
from edgekit.models.training.prior import adjust_prior, class_bias, without_adjustment
from tests.ferplus import save_votes


def _write(bars: DataSet, path: Path, seed: int, architecture: str = "mini-xception", temperature: float = 1.0) -> str:
    torch.manual_seed(seed)
    contract = contract_for(architecture, bars.classes, bars.name, gray=True)
    net = create_model(architecture, len(bars.classes))
    net.train()(torch.rand(8, 3, 44, 44))  # other BatchNorm statistics than those of a new net
    save_checkpoint(
        path, Checkpoint(replace(contract, temperature=temperature, uncertain_below=0.3), net.state_dict(), {})
    )
    return str(path)


def test_weights_are_averaged_without_the_temperatures(bars: DataSet, tmp_path: Path) -> None:
    temperatures = (2.0, 1.0, 0.5)
    models = [
        _write(bars, tmp_path / f"{seed}.safetensors", seed, temperature=temperature)
        for seed, temperature in enumerate(temperatures)
    ]
    output = tmp_path / "soup.safetensors"
    result = average_checkpoints(models, output)
    states = [load_checkpoint(Path(model)).state for model in models]
    soup = load_checkpoint(output)
    for name, value in soup.state.items():
        factors = temperatures if name.startswith("classifier") else (1.0, 1.0, 1.0)
        if value.is_floating_point():
            expected = sum(state[name] * factor for state, factor in zip(states, factors, strict=True)) / 3
            torch.testing.assert_close(value, expected)
    assert any(name.startswith("classifier") for name in soup.state), "the last layer's name"
    assert (soup.contract.temperature, result.temperature) == (1.0, 1.0)
    assert soup.contract.uncertain_below == 0
    assert [model["name"] for model in soup.training["average_of"]] == models


def test_logit_adjustments_of_the_nets_are_undone(bars: DataSet, tmp_path: Path) -> None:
    plain = Path(_write(bars, tmp_path / "plain.safetensors", 0, "edgecnn"))
    other = Path(_write(bars, tmp_path / "adjusted.safetensors", 0, "edgecnn"))
    adjust_prior(other, np.array([0.4, *[0.1] * 6], np.float32), 0.5, bars.splits["PublicTest"])
    calibrate(other, bars.splits["PublicTest"])
    assert load_checkpoint(other).contract.temperature != 1
    average_checkpoints([str(plain), str(other)], tmp_path / "soup.safetensors")
    soup = load_checkpoint(tmp_path / "soup.safetensors").state
    for name, value in load_checkpoint(plain).state.items():
        torch.testing.assert_close(soup[name], value)


@pytest.mark.parametrize("with_data", [False, True])
def test_the_average_is_adjusted_by_the_class_shares_that_its_nets_record(
    bars: DataSet, bars_folder: Path, tmp_path: Path, with_data: bool
) -> None:
    data = bars_folder if with_data else None
    plain = _write(bars, tmp_path / "plain.safetensors", 0, "edgecnn")
    other = _write(bars, tmp_path / "adjusted.safetensors", 1, "edgecnn")
    with pytest.raises(InputError, match="prior-strength needs a net that was trained with --prior-strength"):
        average_checkpoints([plain, other], tmp_path / "none.safetensors", data, prior_strength=-0.2)
    shares = np.array([0.4, *[0.1] * 6], np.float32)
    adjust_prior(Path(other), shares, 0.5, bars.splits["PublicTest"])
    average_checkpoints([plain, other], tmp_path / "mean.safetensors", data)
    average_checkpoints([plain, other], tmp_path / "common.safetensors", data, prior_strength=-0.2)
    mean, common = (load_checkpoint(tmp_path / f"{name}.safetensors") for name in ("mean", "common"))
    biases = [uncalibrated(each)[class_bias("edgecnn")] for each in (common, mean)]
    offset = 0.2 * (np.log(shares) - np.log(shares).mean())
    torch.testing.assert_close(biases[0] - biases[1], torch.from_numpy(offset), rtol=1e-4, atol=1e-5)
    # The record undoes the adjustment in an average of averages.
    undone = without_adjustment(tmp_path / "common.safetensors", common, uncalibrated(common))
    torch.testing.assert_close(undone[class_bias("edgecnn")], biases[1], rtol=1e-4, atol=1e-5)


def test_with_data_the_statistics_are_those_of_the_averaged_net(
    bars: DataSet, bars_folder: Path, tmp_path: Path
) -> None:
    models = [_write(bars, tmp_path / f"{seed}.safetensors", seed) for seed in range(2)]
    output = tmp_path / "soup.safetensors"
    average_checkpoints(models, output, bars_folder)
    soup = load_checkpoint(output)
    net = build_net(soup)
    first = next(module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d))
    seen = []
    first.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].mean(dim=(0, 2, 3))))
    images = torch.from_numpy(bars.splits["Training"].images).permute(0, 3, 1, 2)[:, :, 2:46, 2:46] / 255
    with torch.no_grad():
        net(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(first.running_mean, seen[0], rtol=0.1, atol=0.02)
    plain = average_checkpoints(models, tmp_path / "plain.safetensors")
    mean_of_both = build_net(load_checkpoint(plain.checkpoint))
    other = next(module for module in mean_of_both.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert not torch.allclose(other.running_mean, first.running_mean, rtol=0.1, atol=0.02)  # type: ignore[arg-type]
    again = tmp_path / "again.safetensors"
    average_checkpoints(models, again, bars_folder)
    assert again.read_bytes() == output.read_bytes()


def test_the_classes_of_the_data_are_merged_as_in_the_training(
    bars: DataSet, bars_folder: Path, tmp_path: Path
) -> None:
    merges = ["positive=happy,surprise", "negative=angry,sad,fear"]
    models = []
    for seed in range(2):
        models.append(_write(replace(bars, classes=("positive", "negative")), tmp_path / f"{seed}.safetensors", seed))
        save_checkpoint(Path(models[-1]), replace(load_checkpoint(Path(models[-1])), training={"merged": merges}))
    notices: list[str] = []
    average_checkpoints(models, tmp_path / "soup.safetensors", bars_folder, notify=notices.append)
    soup = load_checkpoint(tmp_path / "soup.safetensors")
    assert soup.training["merged"] == merges
    assert soup.contract.labels == ("positive", "negative")
    assert "classes in no merge are removed: disgust, neutral" in notices
    (bars_folder / "own").mkdir()
    for name in ("positive", "negative"):  # data whose classes are the merged ones already
        shutil.copytree(bars_folder / "Training" / "happy", bars_folder / "own" / name)
    average_checkpoints(models, tmp_path / "own.safetensors", bars_folder / "own")


@pytest.mark.parametrize(
    ("training", "is_reported"),
    [
        ({}, False),
        ({"ferplus": "posterior"}, False),
        ({"ferplus": "mixed", "label_weight": 0.5}, False),
        ({"ferplus": "mixed", "label_weight": 0.15}, True),
        ({"ferplus": "soft"}, True),
        ({"ferplus": "majority"}, True),
    ],
)
def test_a_calibration_by_labels_of_nets_that_learned_votes_is_reported(
    bars: DataSet, bars_folder: Path, tmp_path: Path, training: dict[str, object], is_reported: bool
) -> None:
    models = [_write(bars, tmp_path / f"{seed}.safetensors", seed) for seed in range(2)]
    save_checkpoint(Path(models[1]), replace(load_checkpoint(Path(models[1])), training=training))
    notices: list[str] = []
    average_checkpoints(models, tmp_path / "soup.safetensors", bars_folder, notify=notices.append)
    assert any("trained towards FER+ votes" in line for line in notices) == is_reported


def test_votes_are_merged_as_the_classes_of_the_training(draw_faces: Callable[..., Path], tmp_path: Path) -> None:
    data = draw_faces(tmp_path / "faces", {"Training": 70, "PublicTest": 70})
    save_votes(data, tmp_path / "votes.csv")
    faces = replace(load_dataset(data), classes=("good", "bad"))
    models = []
    for seed in range(2):
        models.append(_write(faces, tmp_path / f"{seed}.safetensors", seed))
        record = {"merged": ["good=happy,surprise", "bad=sad,angry"]}
        save_checkpoint(Path(models[-1]), replace(load_checkpoint(Path(models[-1])), training=record))
    messages: list[str] = []
    output = tmp_path / "soup.safetensors"
    average_checkpoints(models, output, data, ferplus=tmp_path / "votes.csv", notify=messages.append)
    assert load_checkpoint(output).training["ferplus_sha256"] == sha256_of(tmp_path / "votes.csv")
    assert any("40 validation images" in line for line in messages)
    same = replace(load_checkpoint(Path(models[1])), training={"merged": ["bad=angry, sad", "good=happy,surprise"]})
    save_checkpoint(Path(models[1]), same)
    average_checkpoints(models, output, data)
    other = replace(load_checkpoint(Path(models[1])), training={"merged": ["good=happy", "bad=sad,angry"]})
    save_checkpoint(Path(models[1]), other)
    with pytest.raises(InputError, match="differ in merged classes"):
        average_checkpoints(models, output, data)


def test_a_small_last_batch_does_not_count_more_than_its_images(
    bars: DataSet, bars_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [_write(bars, tmp_path / f"{seed}.safetensors", seed) for seed in range(2)]
    means = []
    for batch in (10_000, len(bars.splits["Training"]) - 2):
        monkeypatch.setattr("edgekit.models.average._BATCH", batch)
        output = tmp_path / f"{batch}.safetensors"
        average_checkpoints(models, output, bars_folder)
        state = load_checkpoint(output).state
        means.append(next(value for name, value in state.items() if name.endswith("running_mean")))
    torch.testing.assert_close(means[1], means[0], rtol=0.01, atol=0.001)


@pytest.mark.parametrize(
    "mask_types", [(torch.bool, torch.bool), (torch.float32, torch.float32), (torch.bool, torch.float32)]
)
def test_nets_with_different_learned_groups_are_not_averaged(
    bars: DataSet, tmp_path: Path, mask_types: tuple[torch.dtype, torch.dtype]
) -> None:
    paths = []
    for seed in range(2):
        paths.append(_write(bars, tmp_path / f"{seed}.safetensors", seed, "edgecnn-g-learned"))
        checkpoint = load_checkpoint(Path(paths[-1]))
        net = build_net(checkpoint)
        set_training_progress(net, 1.0)
        state = {
            name: value.to(mask_types[seed]) if name.endswith(".mask") else value
            for name, value in net.state_dict().items()
        }
        save_checkpoint(Path(paths[-1]), replace(checkpoint, state=state))
    with pytest.raises(InputError, match="differ in learned groups"):
        average_checkpoints(paths, tmp_path / "average.safetensors")


def test_votes_replace_the_labels_of_the_calibration(draw_faces: Callable[..., Path], tmp_path: Path) -> None:
    data = draw_faces(tmp_path / "faces", {"Training": 28, "PublicTest": 42})
    faces = load_dataset(data)
    models = [_write(faces, tmp_path / f"{seed}.safetensors", seed) for seed in range(2)]
    save_votes(data, tmp_path / "votes.csv")
    head, *rows = [line.split(",") for line in (tmp_path / "votes.csv").read_text().splitlines()]
    for row in rows[:12]:
        assert row[0] == "PublicTest"
        # Half of the votes is no majority.
        row[2:] = [count.replace("8", "4") for count in row[2:]]
        row[head.index("contempt")] = "4"
    (tmp_path / "votes.csv").write_text("\n".join(",".join(row) for row in [head, *rows]))
    output = tmp_path / "soup.safetensors"
    messages: list[str] = []
    average_checkpoints(models, output, data, ferplus=tmp_path / "votes.csv", notify=messages.append)
    record = load_checkpoint(output).training
    assert record["ferplus_sha256"] == sha256_of(tmp_path / "votes.csv")
    assert record["average_of"][0]["training"] == {}
    assert any("30 validation images" in line for line in messages)
    lone = draw_faces(tmp_path / "lone", {"Training": 70})
    save_votes(lone, tmp_path / "lone.csv")
    average_checkpoints(models, output, lone, ferplus=tmp_path / "lone.csv", notify=messages.append)
    assert "the calibration uses the labels of a part of the training split" in messages[-2]
    with pytest.raises(InputError, match="use the votes of this data set"):
        average_checkpoints(models, output, lone, ferplus=tmp_path / "votes.csv")
    for row in rows:
        if row[0] == "PublicTest":
            row[2:] = [count.replace("8", "4") for count in row[2:]]
            row[head.index("contempt")] = "4"
    (tmp_path / "none.csv").write_text("\n".join(",".join(row) for row in [head, *rows]))
    with pytest.raises(InputError, match="has no majority for any image of split 'PublicTest'"):
        average_checkpoints(models, tmp_path / "none.safetensors", data, ferplus=tmp_path / "none.csv")
    assert not (tmp_path / "none.safetensors").exists()


@pytest.mark.parametrize(
    "record",
    [
        {"strength": 0.1},
        {"strength": "0.1", "prior": [0.1] * 7},
        {"strength": 0.1, "prior": [0.5, 0.5]},
        {"strength": 0.1, "prior": [-1.0] * 7},
        {"strength": 1e300, "prior": [0.1] * 7},
        [],
    ],
)
def test_a_malformed_record_of_an_adjustment_is_refused(bars: DataSet, tmp_path: Path, record: object) -> None:
    one, two = (Path(_write(bars, tmp_path / f"{seed}.safetensors", seed, "edgecnn")) for seed in range(2))
    save_checkpoint(two, replace(load_checkpoint(two), training={"prior_adjustment": record}))
    with pytest.raises(InputError, match=r"1\.safetensors' has no valid prior_adjustment: "):
        average_checkpoints([str(one), str(two)], tmp_path / "soup.safetensors")


def test_an_interrupted_calibration_leaves_the_output_as_it_was(
    bars: DataSet, bars_folder: Path, tmp_path: Path
) -> None:
    models = [_write(bars, tmp_path / f"{seed}.safetensors", seed) for seed in range(2)]
    output = tmp_path / "soup.safetensors"
    output.write_bytes(b"earlier")

    def interrupt(message: str) -> None:
        if "calibrated" in message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        average_checkpoints(models, output, bars_folder, notify=interrupt)
    assert output.read_bytes() == b"earlier"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda state: {name: value for name, value in state.items() if name != "classifier.weight"},
            "classifier.weight",
        ),
        (lambda state: {**state, "other": torch.zeros(2)}, "other"),
        (lambda state: {**state, "classifier.bias": torch.zeros(3)}, "classifier.bias"),
        (lambda state: {**state, "classifier.bias": torch.zeros(7, dtype=torch.int32)}, "int32 values, expected float"),
    ],
)
@pytest.mark.parametrize("damaged", [0, 1])
def test_weights_that_do_not_fit_the_architecture_are_refused(
    bars: DataSet, tmp_path: Path, damage: Callable[..., dict[str, torch.Tensor]], message: str, damaged: int
) -> None:
    models = [_write(bars, tmp_path / f"{seed}.safetensors", seed, "edgecnn") for seed in range(2)]
    path = Path(models[damaged])
    checkpoint = load_checkpoint(path)
    save_checkpoint(path, replace(checkpoint, state=damage(checkpoint.state)))
    with pytest.raises(InputError, match=rf"'{path}': .*{message}"):
        average_checkpoints(models, tmp_path / "soup.safetensors")
    assert not (tmp_path / "soup.safetensors").exists()


def test_records_of_averages_do_not_nest(bars: DataSet, tmp_path: Path) -> None:
    models = [_write(bars, tmp_path / f"{seed}.safetensors", seed) for seed in range(2)]
    average_checkpoints(models, tmp_path / "first.safetensors")
    average_checkpoints([models[0], str(tmp_path / "first.safetensors")], tmp_path / "second.safetensors")
    inner = load_checkpoint(tmp_path / "second.safetensors").training["average_of"][1]["training"]["average_of"]
    assert [sorted(net) for net in inner] == [["name", "sha256"]] * 2


def test_models_that_cannot_be_averaged_are_refused(bars: DataSet, tmp_path: Path) -> None:
    one, two = (_write(bars, tmp_path / f"{seed}.safetensors", seed) for seed in range(2))
    wide = _write(bars, tmp_path / "other.safetensors", 0, "edgecnn")
    labels = replace(bars, classes=tuple(reversed(bars.classes)))
    turned = _write(labels, tmp_path / "turned.safetensors", 0)
    whole = str(tmp_path / "whole.safetensors")
    checkpoint = load_checkpoint(Path(two))
    save_checkpoint(Path(whole), replace(checkpoint, contract=replace(checkpoint.contract, subject="image")))
    output = tmp_path / "soup.safetensors"
    for models, message in (
        ([one], "at least two models"),
        ([one, wide], "differ in architecture"),
        ([one, turned], "differ in labels"),
        ([one, whole], "differ in subject"),
    ):
        with pytest.raises(InputError, match=message):
            average_checkpoints(models, output)
    with pytest.raises(InputError, match="is an input of this command"):
        average_checkpoints([one, two], Path(two))
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        average_checkpoints([one, two], tmp_path / "soup.onnx")
    assert not output.exists()
