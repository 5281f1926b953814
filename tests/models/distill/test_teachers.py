"""Each kind of teacher returns the outputs of its model; a bad teacher raises a one-line error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from edgekit.errors import InputError
from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.clip.checkpoint import build_prompted, load_prompts, prompt_checkpoint, save_prompts
from edgekit.models.clip.hicropl import PromptConfig, PromptedClip
from edgekit.models.clip.load import FrozenClip, save_clip
from edgekit.models.distill.targets import targets_of
from edgekit.models.distill.teachers import (
    Teacher,
    TeacherOptions,
    TeacherOutputs,
    ensemble,
    open_teacher,
    prompted_teacher,
    to_teacher_input,
    zero_shot_teacher,
)
from edgekit.models.evaluation.evaluate import TorchClassifier
from edgekit.models.model_loading import build_net, contract_for
from edgekit.models.nets.registry import create_model
from edgekit.preprocess import ImageU8, softmax

CPU = torch.device("cpu")
LABELS = ("a", "b", "c")
DESCRIPTIONS = {"happy": ("a smiling face",), "sad": ("a face in tears", "a frown")}
PROMPTS = PromptConfig(n_ctx=2, depth=2, cross_layer=1)


@pytest.fixture
def crops() -> ImageU8:
    return np.random.default_rng(0).integers(0, 256, (5, 48, 48, 1), np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "best.safetensors"
    contract = contract_for("mini-xception", LABELS, "any", gray=True)
    save_checkpoint(path, Checkpoint(contract, create_model("mini-xception", 3).state_dict()))
    return path


@pytest.fixture(scope="module")
def clip_file(small_clip: FrozenClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_clip(path, small_clip.model, small_clip.config)
    return path


@pytest.fixture(scope="module")
def prompts(small_clip: FrozenClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "best.safetensors"
    torch.manual_seed(0)
    save_prompts(path, prompt_checkpoint(PromptedClip(small_clip, PROMPTS, DESCRIPTIONS), {}))
    return path


def test_a_checkpoint_returns_the_outputs_of_its_net_for_the_centre_of_a_face(checkpoint: Path, crops: ImageU8) -> None:
    teacher = open_teacher([str(checkpoint)], LABELS, TeacherOptions())
    loaded = load_checkpoint(checkpoint)
    expected = TorchClassifier(build_net(loaded), loaded.contract).logits(crops[:, 2:46, 2:46])
    assert np.array_equal(teacher.predict(crops[:, 2:46, 2:46]).logits, expected)
    ordered = open_teacher([str(checkpoint)], ("C", "a"), TeacherOptions())
    assert ordered.labels == ("C", "a")
    assert np.array_equal(ordered.predict(crops[:, 2:46, 2:46]).logits, expected[:, [2, 0]])
    centre = targets_of(teacher, crops, lambda _done, _total: None, mirrored=False)
    assert np.array_equal(centre.logits, expected)
    assert teacher.predict(np.repeat(crops, 3, axis=-1)).logits.shape == (5, 3)


def test_crops_of_another_size_are_resized_and_made_gray(crops: ImageU8) -> None:
    flat = np.full((2, 44, 44, 3), (10, 200, 60), np.uint8)
    assert np.array_equal(to_teacher_input(flat, (96, 60)), np.full((2, 96, 60, 3), (10, 200, 60)))
    assert to_teacher_input(flat, (44, 44), gray=True).shape == (2, 44, 44, 1)
    assert (
        abs(int(to_teacher_input(flat, (8, 8), gray=True)[0, 0, 0, 0]) - round(0.299 * 10 + 0.587 * 200 + 0.114 * 60))
        <= 1
    )
    assert to_teacher_input(crops, (48, 48)) is crops


def test_an_ensemble_gives_the_mean_of_probabilities(checkpoint: Path, crops: ImageU8) -> None:
    first = open_teacher([str(checkpoint)], LABELS, TeacherOptions())
    second = replace(first, sha256="d" * 64, predict=lambda crops: TeacherOutputs(-50 * first.predict(crops).logits))
    both = ensemble([first, second])
    expected = (softmax(first.predict(crops).logits) + softmax(second.predict(crops).logits)) / 2
    np.testing.assert_allclose(softmax(both.predict(crops).logits), expected, atol=1e-6)
    assert both.sha256 not in (first.sha256, second.sha256)
    assert [member["sha256"] for member in both.record()["members"]] == [first.sha256, second.sha256]
    assert ensemble([first]) is first


def clip_pixels(crops: ImageU8, clip: FrozenClip) -> torch.Tensor:
    """Return the CLIP's input for gray crops."""
    pixels = torch.from_numpy(to_teacher_input(crops, (32, 32))).permute(0, 3, 1, 2).expand(-1, 3, -1, -1) / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (clip.config.image_mean, clip.config.image_std))
    return (pixels - mean) / std


def test_a_clip_compares_whole_images_with_descriptions(small_clip: FrozenClip, crops: ImageU8) -> None:
    teacher = zero_shot_teacher(small_clip, DESCRIPTIONS, CPU)
    outputs = teacher.predict(crops)
    assert teacher.space is not None
    assert outputs.embeddings is not None
    assert teacher.labels == ("happy", "sad")
    with torch.no_grad():
        first, second = (
            F.normalize(small_clip.encode_text(small_clip.tokenize([text])), dim=1) for text in DESCRIPTIONS["sad"]
        )
        mean = F.normalize(first + second, dim=1)[0].numpy()
        seen = F.normalize(small_clip.encode_image(clip_pixels(crops, small_clip)), dim=1).numpy()
    np.testing.assert_allclose(teacher.space.class_vectors[1], mean, atol=1e-6)
    np.testing.assert_allclose(outputs.embeddings, seen, atol=1e-5)
    np.testing.assert_allclose(outputs.logits[:, 1], float(small_clip.logit_scale) * seen @ mean, atol=1e-4)
    assert zero_shot_teacher(small_clip, {**DESCRIPTIONS, "sad": ("a frown",)}, CPU).sha256 != teacher.sha256
    quick = FrozenClip(small_clip.model, replace(small_clip.config, activation="quick-gelu"), "other")
    assert zero_shot_teacher(quick, DESCRIPTIONS, CPU).sha256 != teacher.sha256


def test_prompts_return_the_outputs_of_the_prompted_clip(small_clip: FrozenClip, prompts: Path, crops: ImageU8) -> None:
    teacher = prompted_teacher(prompts, small_clip, CPU)
    net = build_prompted(load_prompts(prompts), small_clip)
    with torch.no_grad():
        expected = net(clip_pixels(crops, small_clip)).numpy()
    np.testing.assert_allclose(teacher.predict(crops).logits, expected, atol=1e-4)
    assert teacher.kind == "prompted-clip"
    assert teacher.facts["clip"]["weights_sha256"] == small_clip.weights_sha256


def test_prompts_that_were_trained_on_gray_pictures_see_gray_ones(small_clip: FrozenClip, tmp_path: Path) -> None:
    net = PromptedClip(small_clip, PROMPTS, DESCRIPTIONS)
    flat = np.full((1, 32, 32, 3), (250, 20, 60), np.uint8)
    logits = {}
    for gray in (True, False):
        save_prompts(tmp_path / f"{gray}.safetensors", prompt_checkpoint(net, {"gray": gray}))
        teacher = prompted_teacher(tmp_path / f"{gray}.safetensors", small_clip, CPU)
        logits[gray] = [teacher.predict(crops).logits for crops in (flat, to_teacher_input(flat, (32, 32), gray=True))]
    np.testing.assert_allclose(*logits[True], atol=1e-4)
    assert np.abs(logits[False][0] - logits[False][1]).max() > 1e-3


def test_teachers_are_known_by_their_files(checkpoint: Path, clip_file: Path, prompts: Path) -> None:
    def opened(*sources: object, labels: tuple[str, ...] = LABELS, **options: Any) -> Teacher:
        return open_teacher([str(source) for source in sources], labels, TeacherOptions(**options))

    assert opened(checkpoint).kind == opened(checkpoint.parent).kind == "classifier"
    assert opened(checkpoint, checkpoint).kind == "ensemble"
    assert opened(clip_file).kind == "clip"
    assert opened(prompts, labels=("sad", "happy"), clip=str(clip_file)).labels == ("sad", "happy")
    assert opened("default", labels=("happy", "sad")).kind == "classifier"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("absent", {}, "model 'absent' does not exist"),
        ("{tmp}/text.safetensors", {}, "is not a complete .safetensors file"),
        ("{prompts}", {}, "contains prompts for the CLIP .*: give this CLIP"),
        ("{checkpoint}", {"clip": "x"}, "no teacher has prompts: leave clip out"),
        (
            "{checkpoint}",
            {"descriptions": Path("x")},
            "no teacher is a CLIP without prompts: leave descriptions out",
        ),
    ],
)
def test_a_file_that_is_no_teacher_is_reported_in_one_line(
    source: str, options: dict[str, Any], message: str, checkpoint: Path, prompts: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.safetensors").write_text("this is text, no teacher of anybody\n")
    place = source.format(tmp=tmp_path, checkpoint=checkpoint, prompts=prompts)
    with pytest.raises(InputError, match=message) as caught:
        open_teacher([place], LABELS, TeacherOptions(**options))
    assert "\n" not in str(caught.value)
