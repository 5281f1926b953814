"""The prompted CLIP equals reference vectors of the paper's method and of the authors' released code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from edgekit.models.clip.prompt_insertion import encode_image, encode_text
from edgekit.models.clip.prompted import Losses, PromptedClip

RUNS = ["paper_warmup", "paper_lr", "upstream_warmup", "upstream_lr"]
LEARNING_RATES = {"warmup": 1e-5, "lr": 0.0025}


def close(actual: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(actual.detach(), expected, rtol=0, atol=atol)


def as_facts(losses: Losses) -> dict[str, float]:
    return {
        "loss": losses.total.item(),
        "cls": losses.classification.item(),
        "text": losses.text_consistency.item(),
        "image": losses.image_consistency.item(),
    }


def test_texts_become_the_same_tokens(golden: Any) -> None:
    assert torch.equal(golden.prompted().class_tokens, golden.array("tokenized_prompts"))
    for sentences, expected in zip(golden.descriptions.values(), golden.array("description_tokens"), strict=True):
        assert torch.equal(golden.clip.tokenize(sentences), expected)


@torch.no_grad()
def check_features(golden: Any, net: PromptedClip) -> None:
    images = golden.array("images")
    close(net.frozen_text_features, golden.array("text_features_fixed"), 1e-5)
    close(golden.clip.encode_image(images), golden.array("image_features_frozen"), 1e-5)
    prompts = net.learner()
    k = net.config.cross_layer
    close(prompts.vision[:k], golden.array("mapped_visual"), 1e-5)
    close(prompts.text[k:], golden.array("mapped_text"), 1e-5)
    close(encode_image(net.clip.model.visual, images, prompts.vision), golden.array("image_features_prompted"), 1e-5)
    close(encode_text(net.clip.model, net.class_tokens, prompts.text), golden.array("text_features_prompted"), 1e-5)
    close(net(images), golden.array("logits_eval_1"), 1e-3)


def test_features_and_logits(golden: Any) -> None:
    check_features(golden, golden.prompted().eval())


def test_features_and_logits_at_the_real_widths(full_golden: Any) -> None:
    net = full_golden.prompted().eval()
    check_features(full_golden, net)
    losses = net.loss(full_golden.array("images"), full_golden.array("labels"))
    assert as_facts(losses) == pytest.approx(full_golden.facts["paper_lr/losses"][0], abs=1e-3)
    losses.total.backward()
    check_gradients(full_golden, net, "paper_lr")


@torch.no_grad()
def test_every_pass_gives_the_same(golden: Any) -> None:
    net = golden.prompted().eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    first = net(golden.array("images"))
    assert torch.equal(net(golden.array("images")), first)
    assert torch.equal(net(golden.array("images"), net.text_features()), first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@torch.no_grad()
def test_the_released_code_drifts_with_every_pass(golden: Any) -> None:
    net = golden.prompted(upstream_compat=True).eval()
    passes = [net(golden.array("images")) for _ in range(5)]
    for number in (1, 2, 5):
        close(passes[number - 1], golden.array(f"logits_eval_{number}"), 1e-3)


def check_gradients(golden: Any, net: PromptedClip, run: str) -> None:
    found, norms = golden.gradients(net), golden.facts[f"{run}/grad_norm"]
    assert found.keys() == norms.keys()
    without = {name for name, grad in found.items() if grad is None}
    assert without == {name for name, norm in norms.items() if not norm}
    for name, grad in found.items():
        if grad is not None:
            assert float(grad.norm()) == pytest.approx(norms[name], rel=5e-4), name
    for key, expected in golden.arrays.items():
        if key.startswith(f"{run}/grad/"):
            gradient = found[key.removeprefix(f"{run}/grad/")]
            assert gradient is not None
            close(gradient, torch.from_numpy(expected), 5e-4 * abs(expected).max().item())


@pytest.mark.parametrize("run", RUNS)
def test_three_steps_of_training(golden: Any, run: str) -> None:
    upstream = run.startswith("upstream")
    net = golden.prompted(upstream_compat=upstream).train()
    learning_rate = LEARNING_RATES[run.partition("_")[2]]
    optimizer = torch.optim.Adam(net.learner.parameters(), learning_rate, eps=1e-3, weight_decay=5e-4)
    images, labels = golden.array("images"), golden.array("labels")
    for step, expected in enumerate(golden.facts[f"{run}/losses"]):
        losses = net.loss(images, labels)
        assert as_facts(losses) == pytest.approx(expected, abs=1e-3)
        optimizer.zero_grad()
        losses.total.backward()
        if step == 0:
            close(losses.logits, golden.array(f"{run}/train_logits"), 1e-3)
            check_gradients(golden, net, run)
        optimizer.step()
    with torch.no_grad():
        close(net.eval()(images), golden.array(f"{run}/logits_after_3"), 2e-3)
    after = "prompts_after_eval" if upstream else "prompts_after"
    close(net.learner.text_prompts, golden.array(f"{run}/text_{after}"), 1e-4)
    close(net.learner.vision_prompts, golden.array(f"{run}/visual_{after}"), 1e-4)


def test_without_the_ensemble(golden: Any) -> None:
    net = golden.prompted(ensemble=False, consistency_on="prompted")
    losses = net.loss(golden.array("images"), golden.array("labels"))
    assert as_facts(losses) == pytest.approx(golden.facts["losses_without_ensemble_first_forward"], abs=1e-3)
    close(losses.logits, golden.array("logits_prompted_only_1"), 1e-3)


def test_consistency_of_the_prompted_features_under_an_ensemble(golden: Any) -> None:
    losses = golden.prompted(consistency_on="prompted").loss(golden.array("images"), golden.array("labels"))
    ensemble, alone = golden.facts["paper_lr/losses"][0], golden.facts["losses_without_ensemble_first_forward"]
    assert as_facts(losses)["cls"] == pytest.approx(ensemble["cls"], abs=1e-3)
    assert as_facts(losses)["text"] == pytest.approx(alone["text"], abs=1e-3)


def test_frozen_features_alone_are_the_zero_shot_classifier(golden: Any) -> None:
    net = golden.prompted()
    features = torch.nn.functional.normalize(golden.clip.encode_image(golden.array("images")), dim=1)
    close(net.logits(features, net.frozen_text_features), golden.array("logits_frozen_zero_shot"), 1e-3)


def test_number_of_trained_values(golden: Any) -> None:
    net = golden.prompted()
    assert sum(parameter.numel() for parameter in net.learner.parameters()) == golden.facts["n_trainable"]
    assert not any(parameter.requires_grad for parameter in net.clip.parameters())
