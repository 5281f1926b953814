"""A trained net in the embedding space of a CLIP, so that it takes labels by text, and its own labels are unchanged.

    python benchmarks/models/embed.py default --teacher runs/prompts --clip runs/clip --data fer2013.tar.gz \
        -o student.safetensors

The shipped model `distilled` is made so from `default`. Only the last layer is replaced, and nothing is trained. f is
the input of the net's last layer, with a 1 appended; W f are its logits; the rows of V are the teacher's class vectors.
The new last layer P maps f to a vector of the embedding space, whose logits are s V P f / |P f|. P is the sum of two
parts:

- in the span of V, the only part that changes these logits: V⁺ (a C W f + 1 m f), where C subtracts the mean over the
  classes. So V P f = a C W f + 1 m f: the logits have the order, and up to |P f| the differences, of the net's logits.
- orthogonal to V: the part that other texts are compared with.

a, m and the second part are fitted by least squares: a and m to the teacher's cosines, the second part to its
embeddings. Of a, a fixed share is used. s makes the logits as large as the net's, so that its calibration holds.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgekit import __version__
from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.checkpoint import (
    Checkpoint,
    check_checkpoint_output,
    load_checkpoint,
    save_checkpoint,
)
from edgekit.models.clip.text_tower import text_tower_beside, write_text_tower
from edgekit.models.data.readers import load_dataset
from edgekit.models.distill.targets import targets_of
from edgekit.models.distill.teachers import EmbeddingSpace, TeacherOptions, open_teacher
from edgekit.models.evaluation.evaluate import TorchClassifier, with_contract_channels
from edgekit.models.model_loading import build_net
from edgekit.models.nets.embedding_net import CLASS_VECTORS, LOGIT_SCALE, NET_PREFIX
from edgekit.models.nets.registry import class_dimensions, embedding_name
from edgekit.preprocess import ImageU8, center_crop

BATCH = 256
# Of the least-squares value of a. With a smaller share, |P f| varies less, but the vectors of other texts are less
# similar to P f. Of 0.2 to 1.5, labels by text are most accurate on PublicTest with 0.3 to 0.5.
SHARE = 0.5
# Added to the diagonal of the normal equations, relative to its mean: inputs may be linearly dependent.
RIDGE = 1e-6


def embed(model: str, teacher: str, data: Path, output: Path, clip: str | None = None) -> Checkpoint:
    """Write a net with a projector into the teacher's embedding space in place of its last layer, and return it.

    If the teacher is a small CLIP of edgekit, its text tower is written beside the net, as NAME.text.safetensors. The
    labels of `data` are not used.
    """
    path = resolve_model(model, (CHECKPOINT_SUFFIX,))
    check_checkpoint_output(output, (path,))
    checkpoint = load_checkpoint(path)
    contract, crop = checkpoint.contract, checkpoint.contract.crop
    net = build_net(checkpoint)
    name, last_layer = _last_layer(net, contract.architecture)
    dataset = load_dataset(data, crop.resize_hw[0], fit=crop.fit, cache_folder=output.parent)
    opened = open_teacher([teacher], contract.labels, TeacherOptions(clip, dataset=dataset.name), print)
    space = opened.space
    if space is None:
        raise InputError(f"teacher '{teacher}' has no embedding space: give a CLIP, or prompts with their CLIP")
    images = dataset.split(dataset.chosen_split(None, "train"))
    crops = center_crop(with_contract_channels(images, contract).images, crop.center_crop_hw)
    classifier = TorchClassifier(net, contract)
    targets = targets_of(opened, images.images, lambda _done, _total: None)
    assert targets.embeddings is not None
    moments = _moments(classifier, last_layer, crops, torch.from_numpy(targets.embeddings))
    projection, scale = _projection(last_layer, space, moments)
    record = {
        "embedded": {"name": model, "sha256": sha256_of(path), "training": dict(checkpoint.training)},
        "teacher": opened.record(),
        "data_name": dataset.name,
        "data_sha256": dataset.checksum(),
        "images": len(images),
    }
    architecture = embedding_name(contract.architecture, space.embed_dim)
    provenance = replace(contract.provenance, accuracy=(), edgekit_version=__version__)
    new = replace(contract, architecture=architecture, provenance=provenance)
    result = Checkpoint(new, _state(checkpoint, name, projection, space, scale), record)
    save_checkpoint(output, result)
    if opened.text_tower is not None:
        write_text_tower(text_tower_beside(output), opened.text_tower)
    return result


def _last_layer(net: nn.Module, architecture: str) -> tuple[str, nn.Linear]:
    """Return the last layer of `net` and its name.

    Raises:
        InputError: The last layer is not linear with a bias.
    """
    names = {tensor.rpartition(".")[0] for tensor in class_dimensions(architecture)}
    name = names.pop() if len(names) == 1 else ""
    layer = net.get_submodule(name)  # "" is the net itself
    if not isinstance(layer, nn.Linear) or layer.bias is None:
        raise InputError(f"{architecture} does not end in a linear layer with a bias: use another net, such as edgecnn")
    return name, layer


@dataclass(frozen=True)
class _Moments:
    """Sums over `count` views of f fᵀ, float64 (F, F), and of f eᵀ, float64 (F, embed_dim)."""

    squares: Tensor
    products: Tensor
    count: int


def _moments(classifier: TorchClassifier, last_layer: nn.Linear, crops: ImageU8, embeddings: Tensor) -> _Moments:
    """Return the sums for crops uint8 (N, H, W, C) and their mirror images, with the embeddings (N, embed_dim)."""
    squares = torch.zeros(last_layer.in_features + 1, last_layer.in_features + 1, dtype=torch.float64)
    products = torch.zeros(last_layer.in_features + 1, embeddings.shape[1], dtype=torch.float64)
    for start in range(0, len(crops), BATCH):
        batch = crops[start : start + BATCH]
        features = _features(classifier, last_layer, batch)
        flat = features.flatten(0, 1)
        squares += flat.T @ flat
        units = nn.functional.normalize(embeddings[start : start + BATCH].double(), dim=1)
        products += features.sum(dim=1).T @ units
    return _Moments(squares, products, 2 * len(crops))


def _features(classifier: TorchClassifier, last_layer: nn.Linear, crops: ImageU8) -> Tensor:
    """Return the inputs of the last layer with a 1 appended, for crops and their mirror images: float64 (N, 2, F)."""
    found: list[Tensor] = []
    hook = last_layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].double()))
    for view in (crops, crops[:, :, ::-1]):
        classifier.logits(np.ascontiguousarray(view))
    hook.remove()
    views = torch.stack(found, dim=1)
    return torch.cat([views, torch.ones_like(views[..., :1])], dim=2)


def _projection(last_layer: nn.Linear, space: EmbeddingSpace, moments: _Moments) -> tuple[Tensor, float]:
    """Return P, float64 (embed_dim, F), and s; see the module's docstring.

    Raises:
        InputError: The teacher's cosines do not rise with the net's logits.
    """
    vectors = torch.from_numpy(space.class_vectors).double()  # V
    inverse = torch.linalg.pinv(vectors)  # V⁺
    assert last_layer.bias is not None
    weights = torch.cat([last_layer.weight, last_layer.bias[:, None]], dim=1).detach().double()
    centred = weights - weights.mean(dim=0)  # C W
    squares, products = moments.squares, moments.products
    ridge = RIDGE * squares.diagonal().mean() * torch.eye(len(squares), dtype=torch.float64)
    fitted = torch.linalg.solve(squares + ridge, products).T  # least squares without a condition
    # Of the centred cosines to the centred logits: the sums of their products, and of the squared logits.
    shared = ((centred @ products) * (vectors - vectors.mean(dim=0))).sum()
    factor = SHARE * float(shared / (centred @ squares * centred).sum())
    if not factor > 0:
        raise InputError(
            "net and teacher predict different classes for these images: give a trained net, the teacher of its "
            "classes, and images of them"
        )
    common = (vectors @ fitted).mean(dim=0)  # m
    projection = inverse @ (factor * centred + common) + fitted - inverse @ (vectors @ fitted)
    norm = float(((projection @ squares) * projection).sum() / moments.count) ** 0.5  # root mean square of |P f|
    return projection, norm / factor


def _state(
    checkpoint: Checkpoint, name: str, projection: Tensor, space: EmbeddingSpace, scale: float
) -> dict[str, Tensor]:
    state = {NET_PREFIX + key: tensor for key, tensor in checkpoint.state.items()}
    state[f"{NET_PREFIX}{name}.weight"] = projection[:, :-1].float().contiguous()
    state[f"{NET_PREFIX}{name}.bias"] = projection[:, -1].float().contiguous()
    return {**state, CLASS_VECTORS: torch.from_numpy(space.class_vectors), LOGIT_SCALE: torch.tensor(scale)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--clip")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    embed(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
