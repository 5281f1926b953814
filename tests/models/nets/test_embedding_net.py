"""Nets in an embedding space: creation of each net by name, and their logits."""

from __future__ import annotations

import pytest
import torch

from edgekit.errors import InputError
from edgekit.models.nets.embedding_net import EmbeddingNet
from edgekit.models.nets.registry import NETS, create_model


@pytest.mark.parametrize("name", NETS)
def test_every_net_can_live_in_an_embedding_space(name: str) -> None:
    net = create_model(f"{name}@16", 3).eval()
    assert isinstance(net, EmbeddingNet)
    vectors = torch.nn.functional.normalize(torch.randn(3, 16), dim=1)
    net.set_classes(vectors, 50.0)
    with torch.no_grad():
        images = torch.rand(2, 3, 44, 44)
        embeddings, logits = net(images, embeddings_only=True), net(images)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(logits, 50 * embeddings @ vectors.T, atol=1e-4, rtol=1e-4)


def test_the_logit_of_a_class_with_several_vectors_is_that_of_the_most_similar() -> None:
    net = create_model("mini-xception@16", 3).eval()
    assert isinstance(net, EmbeddingNet)
    net.set_classes(torch.eye(3, 16), 20.0)
    vectors = torch.nn.functional.normalize(torch.randn(4, 2, 16), dim=2)
    net.replace_classes(vectors)
    with torch.no_grad():
        images = torch.rand(2, 3, 44, 44)
        embeddings, logits = net(images, embeddings_only=True), net(images)
    expected = 20 * (embeddings @ vectors.flatten(0, 1).T).view(2, 4, 2).amax(dim=1)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["edgecnn@", "edgecnn@0", "x@8"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InputError, match="is not known"):
        create_model(name, 3)


def test_nets_of_timm_by_name() -> None:
    assert create_model("timm/test_resnet", 5).train()(torch.rand(2, 3, 44, 44)).shape == (2, 5)
    assert create_model("timm/test_resnet@16", 5).eval()(torch.rand(2, 3, 44, 44)).shape == (2, 5)
    with pytest.raises(InputError, match="timm has no net 'nonesuch'"):
        create_model("timm/nonesuch", 5)
    with pytest.raises(InputError, match="does not accept images of 44 px"):
        create_model("timm/test_vit", 5)
