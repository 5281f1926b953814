"""Effect of the exchange between the towers (the flow) on trained HiCroPL prompts, layer by layer.

\b
    python benchmarks/models/prompt_flow.py --clip runs/mini/best.safetensors --data fer2013.tar.gz \\
        --ferplus ferplus_votes.csv --min-area 0.5 --max-lr 0.005

Trains HiCroPL with λ = 0 on 16 images per class with the majority of the FER+ votes as label, as the task "labels" of
`prompt_tasks.py` does. Then the command measures the trained prompts, as mean over the seeds:

\b
    size        root mean square (RMS) of the prompts of a layer before and after the mapper, and of the tokens that
                the prompts join
    likeness    mean cosine between the mapped prompts of a layer: with 1.00, all prompts of the layer are one token
    attention   entropy of the attention of the layer's proxy over the prompts, divided by that of equal attention: with
                1.00 the proxy is the mean of the prompts' values
    movement    RMS of the change of the proxy's source, the prompts of the other tower, during the training, divided by
                the RMS of their first values
    effect      RMS of the change of the mapped prompts if the proxy comes from untrained prompts of the other tower,
                divided by their RMS
    without     accuracy / mean recall without the exchange at this layer: its proxy comes from the untrained prompts of
                the other tower, with the values that the training started from
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import click
import torch
from linear_baselines import tower_input
from prompt_task_data import Sources, make_tasks, up_to_shots
from prompt_tasks import Bench, Settings, settings_options
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.errors import EdgekitError, InputError
from edgekit.models.clip.load import load_clip
from edgekit.models.clip.prompted import PromptedClip
from edgekit.models.clip.prompts import KnowledgeProxy, PromptLearner, Prompts
from edgekit.models.evaluation.evaluate import mean_recall
from edgekit.models.torch_threads import set_torch_threads

_SHOTS = 16
_TOKEN_IMAGES = 256


@dataclass(frozen=True)
class LayerMeasures:
    """Measures of one layer whose prompts come from the other tower; see the module's text."""

    tower: str
    rms_learned: float
    rms_mapped: float
    rms_tokens: float
    likeness: float
    attention: float
    movement: float
    effect: float
    accuracy: float
    recall: float


_FORMATS = {
    "rms_learned": ".3f",
    "rms_mapped": ".3f",
    "rms_tokens": ".2f",
    "likeness": ".2f",
    "attention": ".2f",
    "movement": ".0%",
    "effect": ".1%",
}


def exchanged(learner: PromptLearner, start: PromptLearner, untrained: Collection[int]) -> Prompts:
    """Return the prompts if the proxies of the layers `untrained` (from 0) are computed from the prompts of `start`.

    Mappers and proxies keep their trained weights. The prompts of other layers are those of `learner()`.
    """
    changed, k = copy.deepcopy(learner), learner.config.text_to_vision_layers
    with torch.no_grad():
        for layer in untrained:
            source = "text_prompts" if layer < k else "vision_prompts"
            getattr(changed, source)[layer] = getattr(start, source)[layer]
    mapped = changed()
    text = torch.cat([learner.text_prompts[:k], mapped.text[k:]])
    return Prompts(text, torch.cat([mapped.vision[:k], learner.vision_prompts[k:]]))


def first_prompts(net: PromptedClip, seed: int) -> PromptLearner:
    """Return the prompts that a training with this seed starts from."""
    torch.manual_seed(seed)
    return PromptedClip(net.clip, net.config, net.class_descriptions).learner


def attention_entropy(proxy: KnowledgeProxy, prompts: Tensor) -> float:
    """Return the entropy of a proxy's attention over prompts (n, d), divided by log n, as mean over the heads."""
    keys = proxy.ln_1(prompts)
    _, weights = proxy.attn(proxy.ln_1(proxy.query), keys, keys, average_attn_weights=False)  # (heads, 1, n)
    entropy = -(weights * weights.clamp_min(1e-12).log()).sum(dim=-1).mean()
    return float(entropy / torch.log(torch.tensor(float(len(prompts)))))


def token_sizes(net: PromptedClip, inputs: Tensor) -> dict[str, list[float]]:
    """Return the RMS of the tokens at the input of each layer with prompts, without the prompts, by tower."""
    towers = {"vision": net.clip.model.visual.transformer, "text": net.clip.model.transformer}
    found: dict[str, list[float]] = {name: [] for name in towers}
    handles = []
    for name, tower in towers.items():
        for block in list(tower.resblocks)[: net.config.depth]:

            def note(_block: nn.Module, given: tuple[Tensor], sizes: list[float] = found[name]) -> None:
                sizes.append(rms(given[0]))

            handles.append(block.ln_1.register_forward_pre_hook(note))
    try:
        net.clip.encode_image(inputs)
        net.clip.encode_text(net.class_tokens)
    finally:
        for handle in handles:
            handle.remove()
    # The last layer of the image tower normalises the class token a second time, as query.
    return {name: sizes[: net.config.depth] for name, sizes in found.items()}


def mean_cosine(prompts: Tensor) -> float:
    """Return the mean cosine between each two of n >= 2 prompts (n, d)."""
    unit, count = F.normalize(prompts, dim=-1), len(prompts)
    return float(((unit @ unit.T).sum() - count) / (count * (count - 1)))


def rms(values: Tensor) -> float:
    """Return the root mean square."""
    return float(values.float().square().mean().sqrt())


@torch.no_grad()
def measures(bench: Bench, net: PromptedClip, start: PromptLearner, inputs: Tensor) -> dict[str, LayerMeasures]:
    """Return the measures of each layer with prompts; `inputs` are images as the image tower takes them."""
    learner, depth, k = net.learner, net.config.depth, net.config.text_to_vision_layers
    tokens, mapped = token_sizes(net, inputs), learner()
    results = {}
    for layer in range(depth):
        tower = "vision" if layer < k else "text"
        learned = (learner.vision_prompts if layer < k else learner.text_prompts)[layer]
        source = (learner.text_prompts if layer < k else learner.vision_prompts)[layer]
        first = (start.text_prompts if layer < k else start.vision_prompts)[layer]
        proxy = learner.text_proxies[layer] if layer < k else learner.vision_proxies[layer - k]
        without = exchanged(learner, start, {layer})
        now = getattr(mapped, tower)[layer]
        results[f"{layer + 1}"] = LayerMeasures(
            tower,
            rms(learned),
            rms(now),
            tokens[tower][layer],
            mean_cosine(now),
            attention_entropy(proxy, source),
            rms(source - first) / rms(first),
            rms(getattr(without, tower)[layer] - now) / rms(now),
            *_scores(bench, net, without),
        )
    return results


@torch.no_grad()
def totals(bench: Bench, net: PromptedClip, start: PromptLearner) -> dict[str, tuple[float, float]]:
    """Return accuracy and mean recall of the trained prompts, and without the exchange in one or both directions."""
    depth, k = net.config.depth, net.config.text_to_vision_layers
    cases: dict[str, range] = {
        "with the exchange": range(0),
        "without text to vision": range(k),
        "without vision to text": range(k, depth),
        "without both": range(depth),
    }
    return {name: _scores(bench, net, exchanged(net.learner, start, layers)) for name, layers in cases.items()}


def _scores(bench: Bench, net: PromptedClip, prompts: Prompts) -> tuple[float, float]:
    """Return accuracy and mean recall of the CLIP with given prompts."""
    learner = PromptLearner(replace(net.config, flow="independent"), net.clip.config)  # returns its prompts unchanged
    learner.text_prompts.copy_(prompts.text)
    learner.vision_prompts.copy_(prompts.vision)
    [result] = bench.evaluate(PromptedClip(net.clip, learner.config, net.class_descriptions, learner)).values()
    return result.accuracy, mean_recall(result.per_class)


def _page(layers: Sequence[Mapping[str, LayerMeasures]], cases: Sequence[Mapping[str, tuple[float, float]]]) -> str:
    """Return both tables in markdown; the figures are means over the seeds."""
    lines = [
        "| layer, tower | learned | mapped | tokens | likeness | attention | movement | effect | without |",
        "| --- |" + " ---: |" * 8,
    ]
    for name in layers[0]:
        of_seeds = [each[name] for each in layers]
        cells = [f"{mean(getattr(each, key) for each in of_seeds):{form}}" for key, form in _FORMATS.items()]
        accuracy, recall = (mean(getattr(each, key) for each in of_seeds) for key in ("accuracy", "recall"))
        cells.append(f"{accuracy:.1%} / {recall:.1%}")
        lines.append(f"| {name}, {of_seeds[0].tower} | {' | '.join(cells)} |")
    lines += ["", "| prompts | accuracy / mean recall |", "| --- | ---: |"]
    for name in cases[0]:
        accuracy, recall = (mean(each[name][index] for each in cases) for index in range(2))
        lines.append(f"| {name} | {accuracy:.1%} / {recall:.1%} |")
    return "\n".join(lines)


_FILE = click.Path(path_type=Path, exists=True)


@click.command(help=__doc__)
@click.option("--clip", type=_FILE, required=True)
@click.option("--data", type=_FILE, required=True, help="FER-2013 in any form edgekit reads.")
@click.option("--ferplus", type=_FILE, required=True, help="CSV of FER+ votes.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@settings_options
@click.option("--threads", type=click.IntRange(min=1))
def main(clip: Path, data: Path, ferplus: Path, seeds: int, threads: int | None, **values: Any) -> None:
    """Train, measure and print the tables."""
    set_torch_threads(threads)
    settings = Settings(**values)
    try:
        if settings.n_ctx < 2:
            raise InputError("n-ctx is 1: the prompts of a layer are compared with each other")
        [source] = make_tasks(Sources(clip, data, ferplus=ferplus), ["labels"], settings.split)
        layers, cases = [], []
        for seed in range(seeds):
            frozen = load_clip(clip)
            content = source.content(seed)
            bench = Bench(frozen, content, settings)
            few = content.pool.subset(up_to_shots(content.pool.labels, content.classes, _SHOTS, seed)[0])
            net = bench.prompted({"consistency_weight": 0.0}, few, seed)
            start = first_prompts(net, seed)
            images = next(iter(content.targets.values())).images[:_TOKEN_IMAGES]
            layers.append(measures(bench, net, start, tower_input(frozen, images)))
            cases.append(totals(bench, net, start))
        click.echo(_page(layers, cases))
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
