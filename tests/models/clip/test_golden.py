"""The prompted CLIP equals reference vectors of the paper's method, computed with the authors' code."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edgekit.models.clip.hicropl import Losses, PromptedClip
from edgekit.models.clip.prompt_insertion import encode_image, encode_text
from tests.models.clip import reference

LEARNING_RATES = {"paper_warmup": 1e-5, "paper_lr": 0.0025}


def as_facts(losses: Losses) -> dict[str, float]:
    return {
        "loss": losses.total.item(),
        "cls": losses.classification.item(),
        "text": losses.text_consistency.item(),
        "image": losses.image_consistency.item(),
    }


def test_texts_become_the_same_tokens(golden: Any) -> None:
    golden.check("tokenized_prompts", golden.prompted().class_tokens, 0)
    tokens = [golden.clip.tokenize(list(sentences)) for sentences in reference.DESCRIPTIONS.values()]
    golden.check("description_tokens", torch.stack(tokens), 0)


@torch.no_grad()
def check_features(golden: Any, net: PromptedClip) -> None:
    images = golden.images
    golden.check("text_features_fixed", net.frozen_text_features, 1e-5)
    golden.check("image_features_frozen", golden.clip.encode_image(images), 1e-5)
    prompts = net.learner()
    k = net.config.cross_layer
    golden.check("mapped_visual", prompts.vision[:k], 1e-5)
    golden.check("mapped_text", prompts.text[k:], 1e-5)
    golden.check("image_features_prompted", encode_image(net.clip.model.visual, images, prompts.vision), 1e-5)
    golden.check("text_features_prompted", encode_text(net.clip.model, net.class_tokens, prompts.text), 1e-5)
    golden.check("logits_eval_1", net(images), 1e-3)


def test_features_and_logits(golden: Any) -> None:
    check_features(golden, golden.prompted().eval())


def test_features_and_logits_at_the_real_widths(full_golden: Any) -> None:
    net = full_golden.prompted().eval()
    check_features(full_golden, net)
    losses = net.loss(full_golden.images, full_golden.labels)
    assert as_facts(losses) == pytest.approx(full_golden.figures["losses"]["paper_lr"][0], abs=1e-3)
    losses.total.backward()
    check_gradients(full_golden, net)


@torch.no_grad()
def test_every_pass_gives_the_same(golden: Any) -> None:
    net = golden.prompted().eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    first = net(golden.images)
    assert torch.equal(net(golden.images), first)
    assert torch.equal(net(golden.images, net.text_features()), first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def check_gradients(golden: Any, net: PromptedClip) -> None:
    gradients = golden.gradients(net)
    norms = dict(zip(sorted(gradients), golden.figures["gradient_norms"], strict=True))
    assert {name for name, grad in gradients.items() if grad is None} == {name for name in norms if not norms[name]}
    projected = {name for name in gradients if f"paper/grad/{name}" in golden.figures["projections"]}
    assert "ctx" in projected
    for name, gradient in gradients.items():
        if gradient is not None:
            assert float(gradient.norm()) == pytest.approx(norms[name], rel=5e-4), name
        if name in projected:
            golden.check(f"paper/grad/{name}", gradient, 5e-4 * gradient.abs().max().item())


@pytest.mark.parametrize("run", LEARNING_RATES)
def test_three_steps_of_training(golden: Any, run: str) -> None:
    net = golden.prompted().train()
    optimizer = torch.optim.Adam(net.learner.parameters(), LEARNING_RATES[run], eps=1e-3, weight_decay=5e-4)
    images, labels = golden.images, golden.labels
    for step, expected in enumerate(golden.figures["losses"][run]):
        losses = net.loss(images, labels)
        assert as_facts(losses) == pytest.approx(expected, abs=1e-3)
        optimizer.zero_grad()
        losses.total.backward()
        if step == 0:
            golden.check(f"{run}/train_logits", losses.logits, 1e-3)
            check_gradients(golden, net)
        optimizer.step()
    with torch.no_grad():
        golden.check(f"{run}/logits_after_3", net.eval()(images), 2e-3)
    golden.check(f"{run}/text_prompts_after", net.learner.text_prompts, 1e-4)
    golden.check(f"{run}/visual_prompts_after", net.learner.vision_prompts, 1e-4)


def test_frozen_features_alone_are_the_zero_shot_classifier(golden: Any) -> None:
    net = golden.prompted()
    features = torch.nn.functional.normalize(golden.clip.encode_image(golden.images), dim=1)
    golden.check("logits_frozen_zero_shot", net.logits(features, net.frozen_text_features), 1e-3)


def test_number_of_trained_values(golden: Any) -> None:
    net = golden.prompted()
    assert sum(parameter.numel() for parameter in net.learner.parameters()) == golden.figures["trained_values"]
    assert not any(parameter.requires_grad for parameter in net.clip.parameters())
