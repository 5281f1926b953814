"""Export of a prompted CLIP to one ONNX file with equal logits, with and without the ensemble."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from edgekit.device.engines.classifier import Classifier
from edgekit.errors import InputError
from edgekit.export import run
from edgekit.export.prompted import open_prompts
from edgekit.files import sha256_of
from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.checkpoint import prompt_checkpoint, save_prompts
from edgekit.models.clip.classifier import evaluate_clip, prompted_classifier
from edgekit.models.clip.hicropl import PromptConfig, PromptedClip
from edgekit.models.clip.load import load_clip, save_clip, seeded_model
from edgekit.models.clip.options import Activation, ClipOptions
from edgekit.models.clip.prompt_insertion import encode_image
from edgekit.models.distill.teachers import TeacherOptions, open_teacher
from tests.images import write_image

CLASSES = {"happy": ("a smile", "a grin"), "sad": ("a frown",)}
CONFIG = ClipConfig(32, 8, Tower(128, 3, 2), Tower(64, 3, 1), 32, context_length=20)
PROMPTS = PromptConfig(n_ctx=3, depth=2, cross_layer=1)


def make(
    folder: Path, config: PromptConfig = PROMPTS, activation: Activation = "gelu", gray: bool = False
) -> tuple[Path, str]:
    """Write a CLIP and prompts for it; return the path of the prompts and of the CLIP."""
    clip_config = replace(CONFIG, activation=activation)
    clip_path = folder / "clip.safetensors"
    save_clip(clip_path, seeded_model(clip_config, 1), clip_config)
    torch.manual_seed(0)
    net = PromptedClip(load_clip(clip_path), config, CLASSES)
    with torch.no_grad():
        net.learner.vision_prompts.mul_(20)  # so that the prompts change the logits
    path = folder / "prompts.safetensors"
    save_prompts(path, prompt_checkpoint(net, {"data_name": "faces", "gray": gray}))
    return path, str(clip_path)


@pytest.fixture
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "activation", "gray"),
    [
        (PROMPTS, "gelu", False),
        (replace(PROMPTS, depth=3, cross_layer=3), "quick-gelu", True),
    ],
)
def test_the_file_answers_as_the_prompted_clip(
    tmp_path: Path, crops: np.ndarray, config: PromptConfig, activation: Activation, gray: bool
) -> None:
    path, clip = make(tmp_path, config, activation, gray)
    result = run.export(path, tmp_path / "clip.onnx", clip=clip)
    assert result.verification.crops == 54
    file = Classifier(tmp_path / "clip.onnx")
    contract = file.contract
    assert contract.labels == ("happy", "sad")
    assert contract.input.channels == "rgb"
    assert contract.input.mean == CONFIG.image_mean
    assert contract.input.std == CONFIG.image_std
    assert contract.crop.resize_hw == contract.crop.center_crop_hw == contract.input.size_hw == (32, 32)
    assert contract.crop.grayscale is gray
    assert contract.provenance.dataset == "faces"
    assert contract.provenance.checkpoint_sha256 == sha256_of(path)
    net = open_prompts(path, clip, None)
    expected = prompted_classifier(net, "faces", gray).logits(crops)
    np.testing.assert_allclose(file.logits(crops), expected, atol=1e-3)
    assert np.ptp(expected[:, 0]) > 0.01  # the logits depend on the image
    own = sum(parameter.numel() for parameter in net.clip.model.visual.parameters())
    assert result.size_bytes < 4 * 1.05 * own + 100_000, "each weight is in the file once, and the text tower is not"


@pytest.mark.slow
def test_without_the_ensemble_half_the_work_is_left(tmp_path: Path, crops: np.ndarray) -> None:
    path, clip = make(tmp_path)
    net = open_prompts(path, clip, None)
    both = run.export(path, tmp_path / "clip.onnx", clip=clip).cost.macs
    one = run.export(path, tmp_path / "small.onnx", clip=clip, without_ensemble=True).cost.macs
    assert both is not None
    assert one is not None
    assert 0.4 < one / both < 0.65
    small = Classifier(tmp_path / "small.onnx").logits(crops)
    pixels = torch.from_numpy((crops / 255 - CONFIG.image_mean) / CONFIG.image_std).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        features = normalize(encode_image(net.clip.model.visual, pixels, net.learner().vision), dim=1)
        expected = (net.clip.logit_scale * features @ net.text_features().T).numpy()
    np.testing.assert_allclose(small, expected, atol=1e-3)
    assert np.abs(small - Classifier(tmp_path / "clip.onnx").logits(crops)).max() > 0.01


@pytest.mark.slow
def test_other_classes_go_in_by_their_descriptions(tmp_path: Path, crops: np.ndarray) -> None:
    path, clip = make(tmp_path)
    classes = {"cat": ["a cat"], "ape": ["an ape"], "owl": ["an owl"]}
    run.export(path, tmp_path / "pets.onnx", clip=clip, classes=classes)
    file = Classifier(tmp_path / "pets.onnx")
    assert file.contract.labels == ("cat", "ape", "owl")
    assert file.logits(crops).shape == (5, 3)


def test_what_cannot_be_exported_is_named(tmp_path: Path) -> None:
    path, clip = make(tmp_path)
    with pytest.raises(InputError, match="give this CLIP"):
        open_prompts(path, None, None)
    with pytest.raises(InputError, match=r"must end in '\.onnx'"):
        run.export(path, tmp_path / "x.bin", clip=clip)
    assert not list(tmp_path.glob("x.*"))


def test_bare_weights_get_the_activation_that_prompts_were_trained_with(tmp_path: Path) -> None:
    config = replace(CONFIG, activation="quick-gelu")
    bare = tmp_path / "bare.pt"
    torch.save(seeded_model(config, 1).state_dict(), bare)
    net = PromptedClip(load_clip(bare, "quick-gelu"), PROMPTS, CLASSES)
    path = tmp_path / "prompts.safetensors"
    save_prompts(path, prompt_checkpoint(net, {}))
    assert open_prompts(path, str(bare), None).clip.config.activation == "quick-gelu"
    images = np.zeros((4, 32, 32, 3), np.uint8)
    for number, label in enumerate(("happy", "sad") * 2):
        write_image(tmp_path / f"faces/{label}/{number}.png", images[number])
    found = evaluate_clip(ClipOptions(clip=str(bare)), str(path), tmp_path / "faces", split="all")
    assert found.labels == ("happy", "sad")
    teacher = open_teacher([str(path)], ("happy", "sad"), TeacherOptions(clip=str(bare)))
    assert teacher.facts["clip"]["config"]["activation"] == "quick-gelu"
