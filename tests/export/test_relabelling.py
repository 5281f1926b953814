"""New labels of a student at export: the file returns torch's logits for the new class vectors."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.contract import Accuracy
from edgekit.device.engines.classifier import Classifier, portrait_crops
from edgekit.errors import InputError
from edgekit.export.options import ExportOptions, NewClasses
from edgekit.export.relabelling import relabelled
from edgekit.export.run import export
from edgekit.files import sha256_of
from edgekit.models.callbacks import ignore_message
from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.checkpoint import build_prompted, load_prompts, prompt_checkpoint, save_prompts
from edgekit.models.clip.descriptions import Descriptions
from edgekit.models.clip.hicropl import PromptConfig, PromptedClip, frozen_classifier
from edgekit.models.clip.load import FrozenClip, save_clip
from edgekit.models.clip.text_tower import text_tower_beside, write_text_tower
from edgekit.models.distill.relabel import relabel_by_text
from edgekit.models.distill.teachers import Teacher, prompted_teacher, zero_shot_teacher
from edgekit.models.model_loading import build_net, contract_for
from edgekit.models.nets.embedding_net import EmbeddingNet
from edgekit.models.nets.registry import create_model
from edgekit.preprocess import ImageU8
from tests.clips import random_clip
from tests.exports import Relabel, export_checkpoint

LABELS = ("happy", "sad", "fear")
NEW = {"smiling face": ("a smiling face", "a grin"), "frowning face": ("a frown",)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("relabel")


@pytest.fixture(scope="module")
def clip(folder: Path) -> FrozenClip:
    config = ClipConfig(image_size_px=32, patch_size_px=16, vision=Tower(128, 2, 2), text=Tower(64, 2, 1), embed_dim=24)
    clip = random_clip(config, seed=1)
    save_clip(folder / "clip.safetensors", clip.model, config)
    return clip


@pytest.fixture(scope="module")
def prompts(folder: Path, clip: FrozenClip) -> Path:
    torch.manual_seed(0)
    net = PromptedClip(clip, PromptConfig(n_ctx=2, depth=2, cross_layer=1), dict.fromkeys(LABELS, ()))
    save_prompts(folder / "prompts.safetensors", prompt_checkpoint(net, {}))
    return folder / "prompts.safetensors"


def _by_text(
    clip: str | None, prompts: Path | None = None, labels: NewClasses = NEW, merges: Sequence[str] = ()
) -> Relabel:
    options = ExportOptions("model", "model.onnx", classes=labels, clip=clip, prompts=prompts, merges=merges)
    return lambda checkpoint: relabelled(checkpoint, options)


def _student(path: Path, teacher: Teacher) -> Path:
    assert teacher.space is not None
    torch.manual_seed(0)
    contract = contract_for("mini-xception@24", LABELS, "any", gray=True)
    accuracy = (Accuracy("any", "test", "center-crop", 1, 2),)
    contract = replace(contract, provenance=replace(contract.provenance, accuracy=accuracy))
    net = create_model("mini-xception@24", 3)
    assert isinstance(net, EmbeddingNet)
    net.set_classes(torch.from_numpy(teacher.space.class_vectors), 100.0)
    save_checkpoint(path, Checkpoint(contract, net.state_dict(), {"teacher": teacher.record()}))
    return path


@pytest.fixture(scope="module")
def student(folder: Path, clip: FrozenClip) -> Path:
    teacher = zero_shot_teacher(clip, {label: (label,) for label in LABELS}, torch.device("cpu"))
    return _student(folder / "student.safetensors", teacher)


@pytest.fixture(scope="module")
def prompted_student(folder: Path, clip: FrozenClip, prompts: Path) -> Path:
    return _student(folder / "prompted.safetensors", prompted_teacher(prompts, clip, torch.device("cpu")))


def _pixels(crops: ImageU8) -> torch.Tensor:
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float().div(255).expand(-1, 3, -1, -1)


def _assert_logits(path: Path, student: Path, vectors: Sequence[torch.Tensor]) -> None:
    """Assert that the file returns the student's cosines times its scale, with the largest of each label's vectors."""
    checkpoint, classifier = load_checkpoint(student), Classifier(path)
    crops = portrait_crops(checkpoint.contract)[:8]
    net = build_net(checkpoint)
    assert isinstance(net, EmbeddingNet)
    with torch.no_grad():
        cosines = [net(_pixels(crops), embeddings_only=True) @ of_label.T for of_label in vectors]
        expected = torch.stack([net.logit_scale * each.amax(dim=1) for each in cosines], dim=1)
    np.testing.assert_allclose(classifier.logits(crops), expected, atol=1e-4)


def _each_sentence(encode: Callable[[Descriptions], torch.Tensor]) -> list[torch.Tensor]:
    """Return the vectors of the sentences of each label of NEW, each from a class with this one sentence."""
    with torch.no_grad():
        return [torch.cat([encode({name: (text,)}) for text in texts]) for name, texts in NEW.items()]


@pytest.mark.slow
def test_new_classes_are_encoded_by_the_text_tower(folder: Path, clip: FrozenClip, student: Path) -> None:
    target = folder / "new.onnx"
    text = str(folder / "clip.safetensors")
    exported = export_checkpoint(student, target, _by_text(text))
    assert exported.contract.labels == ("smiling face", "frowning face")
    assert exported.contract.provenance.accuracy == ()
    assert exported.contract.provenance.checkpoint_sha256 == sha256_of(student)
    _assert_logits(target, student, _each_sentence(lambda classes: frozen_classifier(clip, classes)))


def test_a_sentence_with_words_of_no_caption_is_left_out(folder: Path, clip: FrozenClip, student: Path) -> None:
    path = folder / "texts.safetensors"
    save_clip(path, clip.model, clip.config, {"texts": ["a smiling face", "a sad face"]})
    messages: list[str] = []
    checkpoint = load_checkpoint(student)
    labels = {"glad": ("a smiling face", "a child who laughs", "a face"), "down": ("a crying child", "tears")}
    net, _ = relabel_by_text(checkpoint, labels, str(path), None, messages.append)
    expected = {"glad": ("a smiling face", "a face"), "down": ("a crying child", "tears")}
    same, _ = relabel_by_text(checkpoint, expected, str(path), None, ignore_message)
    assert torch.equal(net.class_vectors, same.class_vectors)
    # A label without any other sentence keeps its sentences.
    assert [line.split("'")[1] for line in messages if line.startswith("warning")] == ["glad", "down"]
    relabel_by_text(checkpoint, labels, str(folder / "clip.safetensors"), None, messages.append)
    assert len(messages) == 3, "the file of this CLIP does not list its training texts"


def test_prompted_teachers_encode_with_their_prompts(
    folder: Path, clip: FrozenClip, prompts: Path, prompted_student: Path
) -> None:
    target = folder / "prompted.onnx"
    text = str(folder / "clip.safetensors")
    # A folder stands for the best checkpoint of the training in it.
    (folder / "training").mkdir()
    # An equal training writes the same prompts with other times in its record.
    again = replace(load_prompts(prompts), training={"seconds": 2.0})
    save_prompts(folder / "training/best.safetensors", again)
    (folder / "pretraining").mkdir()
    shutil.copy(text, folder / "pretraining/best.safetensors")
    relabel = _by_text(str(folder / "pretraining"), folder / "training")
    export_checkpoint(prompted_student, target, relabel)
    net = build_prompted(load_prompts(prompts), clip)
    vectors = _each_sentence(lambda classes: net.with_classes(classes).text_features())
    plain = _each_sentence(lambda classes: frozen_classifier(clip, classes))
    assert (torch.cat(vectors) - torch.cat(plain)).abs().max() > 1e-3
    _assert_logits(target, prompted_student, vectors)


def test_a_text_tower_beside_the_student_replaces_the_clip(
    folder: Path, clip: FrozenClip, prompts: Path, prompted_student: Path, student: Path
) -> None:
    known = FrozenClip(clip.model, clip.config, clip.source, texts=["a smiling face", "a grin", "a frowning frown"])
    teacher = prompted_teacher(prompts, known, torch.device("cpu"))
    assert teacher.text_tower is not None
    alone = folder / "alone"
    alone.mkdir()
    shutil.copy(prompted_student, alone / "student.safetensors")
    write_text_tower(text_tower_beside(alone / "student.safetensors"), teacher.text_tower)
    export(alone / "student.safetensors", alone / "s.onnx", classes=NEW)
    export(
        alone / "student.safetensors",
        alone / "c.onnx",
        classes=NEW,
        clip=str(folder / "clip.safetensors"),
        prompts=prompts,
    )
    crops = portrait_crops(Classifier(alone / "s.onnx").contract)[:8]
    by_tower, by_clip = (Classifier(alone / name).logits(crops) for name in ("s.onnx", "c.onnx"))
    np.testing.assert_allclose(by_tower, by_clip, atol=0.3)  # half floats, and a scale of 100
    with pytest.raises(InputError, match=r"has the text tower of CLIP and prompts: leave out"):
        export(
            alone / "student.safetensors", alone / "refused.onnx", classes=NEW, clip=str(folder / "clip.safetensors")
        )
    shutil.copy(student, alone / "student.safetensors")
    with pytest.raises(InputError, match=r"is not the text tower of the student's teacher 'random:1': give the"):
        export(alone / "student.safetensors", alone / "refused.onnx", classes=NEW)


def _bad_changes(folder: Path) -> list[tuple[str, Relabel, str]]:
    text = str(folder / "clip.safetensors")
    long = {"x": ("word " * 200,), "y": ("a word",)}
    return [
        (
            "student",
            _by_text(None),
            "need the text tower of the student's teacher, CLIP 'random:1'",
        ),
        ("student", _by_text(None, folder / "others.safetensors"), "had no prompts: leave prompts out"),
        ("student", _by_text(str(folder / "other.safetensors")), "the weights differ"),
        ("student", _by_text(text, None, long), "description of class 'x': .*: shorten it"),
        ("prompted", _by_text(text), r"give their file \(--prompts\)"),
        ("prompted", _by_text(text, folder / "others.safetensors"), "are not the teacher's, 'prompts"),
        (
            "plain",
            _by_text(text),
            "mini-xception has no embedding space, so its labels are fixed",
        ),
        ("untold", _by_text(text), "no record of its CLIP teacher: distil it again"),
    ]


@pytest.mark.usefixtures("prompted_student")
def test_labels_that_cannot_change_are_refused_in_one_line(
    folder: Path, clip: FrozenClip, student: Path, prompts: Path
) -> None:
    other = random_clip(clip.config, seed=2)
    save_clip(folder / "other.safetensors", other.model, other.config)
    trained = load_prompts(prompts)
    state = {name: values + 0.01 for name, values in trained.state.items()}
    save_prompts(folder / "others.safetensors", replace(trained, state=state))
    good = load_checkpoint(student)
    save_checkpoint(folder / "untold.safetensors", replace(good, training={}))
    plain = Checkpoint(
        contract_for("mini-xception", LABELS, "any", True), create_model("mini-xception", 3).state_dict()
    )
    save_checkpoint(folder / "plain.safetensors", plain)
    for name, change, message in _bad_changes(folder):
        target = folder / "refused.onnx"
        with pytest.raises(InputError, match=message) as caught:
            export_checkpoint(folder / f"{name}.safetensors", target, change)
        assert "\n" not in str(caught.value)
        assert not target.exists()


def test_a_label_that_wins_on_almost_all_images_is_reported(
    student: Path, folder: Path, draw_faces: Callable[[Path, dict[str, int]], Path], tmp_path: Path
) -> None:
    # The untrained student gives one label to all pictures of noise.
    data = draw_faces(tmp_path / "data", {"Training": 7, "PrivateTest": 56})
    texts = {"classes": NEW, "clip": str(folder / "clip.safetensors")}
    messages: list[str] = []
    export(student, tmp_path / "new.onnx", evaluate_on=data, notify=messages.append, **texts)
    shares = {line.split("'")[1]: line.split(" for ")[1].split()[0] for line in messages if "is predicted for" in line}
    assert shares.keys() == NEW.keys()
    assert sorted(shares.values()) == ["0.0%", "100.0%"]
