"""`embed` moves a net into a CLIP's embedding space: its predictions stay the same, and text defines new labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.errors import InputError
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.clip.frozen import FrozenClip
from edgekit.models.clip.load import save_clip
from edgekit.models.data import EXPRESSIONS, DataSet
from edgekit.models.distill.embed import _Moments, _projection, embed
from edgekit.models.distill.relabel import relabel_by_text
from edgekit.models.distill.teachers import EmbeddingSpace
from edgekit.models.evaluation.evaluate import TorchClassifier, evaluate
from edgekit.models.model_loading import build_net, contract_for
from edgekit.models.nets.registry import create_model
from edgekit.preprocess import FloatArray, softmax


@pytest.fixture
def clip(small_clip: FrozenClip, tmp_path: Path) -> Path:
    save_clip(tmp_path / "clip.safetensors", small_clip.model, small_clip.config)
    return tmp_path / "clip.safetensors"


def _net(path: Path, bars: DataSet, sign: int, architecture: str = "edgecnn") -> Path:
    torch.manual_seed(0)
    state = create_model(architecture, 7).state_dict()
    state = {name: sign * value if name.startswith("classifier") else value for name, value in state.items()}
    save_checkpoint(
        path, Checkpoint(contract_for(architecture, bars.classes, bars.name, gray=True), state, {"merged": ["a=b"]})
    )
    return path


def _logits(path: Path, bars: DataSet) -> FloatArray:
    checkpoint = load_checkpoint(path)
    return evaluate(
        TorchClassifier(build_net(checkpoint), checkpoint.contract), bars.splits["PublicTest"], "center-crop"
    ).logits


def _fits(net: Path, clip: Path, data: Path) -> bool:
    try:
        embed(str(net), str(clip), data, net.with_name("try.safetensors"), threads=1)
    except InputError as error:
        return "predict different classes" not in str(error)
    return True


def test_predictions_are_those_of_the_net_and_other_labels_are_possible(
    clip: Path, bars: DataSet, bars_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "student.safetensors"
    nets = [_net(tmp_path / f"net{sign}.safetensors", bars, sign) for sign in (1, -1)]
    # A random net and a random CLIP are unrelated: of two nets with opposite logits, exactly one agrees enough.
    fitting = [net for net in nets if _fits(net, clip, bars_folder)]
    assert len(fitting) == 1
    notices: list[str] = []
    result = embed(str(fitting[0]), str(clip), bars_folder, output, threads=1, notify=notices.append)
    assert not any("texts are almost equal" in line for line in notices)
    monkeypatch.setattr("edgekit.models.distill.embed._LARGE_SCALE", 0)
    embed(str(fitting[0]), str(clip), bars_folder, output, threads=1, notify=notices.append)
    assert "because the teacher's texts are almost equal" in notices[-1]
    assert (result.architecture, result.images) == ("edgecnn@24", len(bars.splits["Training"]))
    own, new = _logits(fitting[0], bars), _logits(output, bars)
    own, new = (logits - logits.mean(axis=1, keepdims=True) for logits in (own, new))
    ratios = (own * new).sum(axis=1) / (own * own).sum(axis=1)  # one per image: the lengths of the vectors differ
    np.testing.assert_allclose(new, own * ratios[:, None], atol=1e-3 * float(np.abs(own).max()))
    assert 0.5 < ratios.min() < ratios.max() < 2
    assert np.abs(softmax(new) - softmax(own)).max() < 0.1

    student = load_checkpoint(output)
    assert student.training["embedded"]["training"] == {"merged": ["a=b"]}
    assert student.training["merged"] == ["a=b"], "an average merges the classes of its data by this record"
    assert student.contract.labels == EXPRESSIONS
    net, contract = relabel_by_text(student, {"smile": ("a grin",), "frown": ("a frown",)}, str(clip), None)
    assert contract.labels == ("smile", "frown")
    assert net(torch.zeros(1, 3, 44, 44)).shape == (1, 2)


def test_the_text_tower_of_a_small_clip_is_written_beside_the_student(
    small_clip: FrozenClip, bars: DataSet, bars_folder: Path, tmp_path: Path
) -> None:
    clip, output = tmp_path / "known.safetensors", tmp_path / "student.safetensors"
    save_clip(clip, small_clip.model, small_clip.config, {"texts": ["a grin", "a frown"]})
    net = next(
        net for sign in (1, -1) if _fits(net := _net(tmp_path / f"n{sign}.safetensors", bars, sign), clip, bars_folder)
    )
    embed(str(net), str(clip), bars_folder, output, threads=1)
    labels, tower = {"smile": ("a grin",), "frown": ("a frown",)}, tmp_path / "student.text.safetensors"
    by_clip, _ = relabel_by_text(load_checkpoint(output), labels, str(clip), None)
    by_tower, _ = relabel_by_text(load_checkpoint(output), labels, None, None, text_tower=tower)
    torch.testing.assert_close(by_tower.class_vectors, by_clip.class_vectors, atol=3e-3, rtol=0)
    tower.unlink()
    with pytest.raises(InputError, match=r"give this CLIP \(--clip\)"):
        relabel_by_text(load_checkpoint(output), labels, None, None, text_tower=tower)


def test_other_texts_are_compared_with_what_the_teacher_sees() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.cat([torch.randn(400, 9, generator=generator), torch.ones(400, 1)], dim=1).double()
    true = torch.randn(6, 10, generator=generator).double()  # the teacher's embeddings are linear in the features
    embeddings = torch.nn.functional.normalize(features @ true.T, dim=1)
    vectors = torch.nn.functional.normalize(torch.randn(3, 6, generator=generator), dim=1)
    layer = torch.nn.Linear(9, 3)
    with torch.no_grad():
        weights = vectors @ true.float()  # the net has the teacher's predictions
        layer.weight.copy_(weights[:, :-1])
        layer.bias.copy_(weights[:, -1])
    moments = _Moments(features.T @ features, features.T @ embeddings, len(features))
    projection, scale = _projection(layer, EmbeddingSpace(vectors.numpy(), 10.0), moments)
    found = features @ projection.T
    orthogonal = torch.eye(6).double() - torch.linalg.pinv(vectors.double()) @ vectors.double()
    parts = [torch.nn.functional.normalize(rows @ orthogonal, dim=1) for rows in (found, embeddings)]
    assert (parts[0] * parts[1]).sum(dim=1).mean() > 0.95
    logits = scale * torch.nn.functional.normalize(found, dim=1) @ vectors.double().T
    own = layer(features[:, :-1].float()).double()
    assert torch.equal(logits.argmax(dim=1), own.argmax(dim=1))


def test_what_does_not_fit_is_refused(clip: Path, bars: DataSet, bars_folder: Path, tmp_path: Path) -> None:
    net = _net(tmp_path / "net.safetensors", bars, 1)
    out = tmp_path / "student.safetensors"
    for arguments, reason in (
        ((str(net), str(clip), bars_folder, tmp_path / "student"), r"must end in \.safetensors"),
        ((str(net), str(clip), bars_folder, net), "is an input of this command"),
        ((str(net), str(clip), bars_folder, clip), "is an input of this command"),
        ((str(net), str(net), bars_folder, out), "has no embedding space"),
    ):
        with pytest.raises(InputError, match=reason):
            embed(*arguments, threads=1)
    same = tmp_path / "same.json"
    same.write_text(json.dumps({name: ["a face"] for name in EXPRESSIONS}))
    with pytest.raises(InputError, match="linearly dependent"):
        embed(str(net), str(clip), bars_folder, out, descriptions=same, threads=1)
    for architecture, reason in (
        ("edgecnn@24", "is in the space of a CLIP already"),
        ("mini-xception", "does not end in a linear layer with a bias"),
    ):
        other = _net(tmp_path / f"{architecture}.safetensors", bars, 1, architecture)
        with pytest.raises(InputError, match=reason):
            embed(str(other), str(clip), bars_folder, out, threads=1)
    checkpoint = load_checkpoint(net)
    huge = {name: value * 1e15 if name.endswith("expand.weight") else value for name, value in checkpoint.state.items()}
    save_checkpoint(net, replace(checkpoint, state=huge))
    with pytest.raises(InputError, match="computes NaN or infinity"):
        embed(str(net), str(clip), bars_folder, out, threads=1)
    assert not out.with_suffix(".teacher").exists()
    assert not out.exists()
