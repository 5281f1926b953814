"""Files of a shipped model from a trained checkpoint: checkpoint with measured accuracy, export, model card.

    python -m edgekit.export.publish runs/default/best.safetensors --data fer2013.tar.gz --name default
    python -m edgekit.export.publish runs/student/best.safetensors --data fer2013.tar.gz --name distilled

Writes NAME.safetensors, NAME.onnx and NAME.md into the package's assets. Accuracy is measured on the test split; the
checkpoint was chosen on the validation split during training. The card of a distilled net names its teacher.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.contract import Accuracy, Contract
from edgekit.export.onnx.exported import Exported
from edgekit.export.onnx.to_onnx import export_checkpoint
from edgekit.files import sha256_of, write_atomic
from edgekit.model_store import ASSETS, CHECKPOINT_SUFFIX, ONNX_SUFFIX, SHIPPED, shipped_models
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.data import DataSet, duplicated
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import Evaluation, Protocols, aligned, evaluate, open_classifier
from edgekit.models.model_loading import contract_for
from edgekit.text import counted

_SPLIT = "PrivateTest"
_PROTOCOLS: tuple[Protocols, ...] = ("center-crop", "ten-crop")
_KINDS = {
    "classifier": "a classifier",
    "clip": "a CLIP that classifies by descriptions of the classes",
    "prompted-clip": "a CLIP with trained prompts",
}
_WITHOUT_DUPLICATES = " without duplicates"


def publish(checkpoint_path: Path, dataset: DataSet, folder: Path, name: str) -> Exported:
    """Write checkpoint, exported file and model card of a shipped model, and return its export."""
    checkpoint = load_checkpoint(checkpoint_path)
    contract = checkpoint.contract
    # An older checkpoint may contain another crop margin of live faces than the current one.
    crop = contract_for(contract.architecture, contract.labels, "", contract.crop.grayscale, contract.crop.fit).crop
    results = _measure(checkpoint_path, dataset)
    accuracy = tuple(
        Accuracy(dataset.name, _SPLIT, protocol, result.correct, result.total) for protocol, result in results.items()
    )
    contract = replace(contract, crop=crop, provenance=replace(contract.provenance, accuracy=accuracy))
    weights = folder / f"{name}{CHECKPOINT_SUFFIX}"
    save_checkpoint(weights, Checkpoint(contract, checkpoint.state, checkpoint.training))
    exported = export_checkpoint(weights, folder / f"{name}{ONNX_SUFFIX}")
    write_atomic(folder / f"{name}.md", _card(name, contract, checkpoint.training, results, exported))
    return exported


def _measure(path: Path, dataset: DataSet) -> dict[str, Evaluation]:
    classifier = open_classifier(path)
    images = aligned(dataset, dataset.split(_SPLIT), classifier.contract)
    whole = {str(protocol): evaluate(classifier, images, protocol) for protocol in _PROTOCOLS}
    alone = ~duplicated(dataset, _SPLIT)
    return whole | {name + _WITHOUT_DUPLICATES: result.subset(alone) for name, result in whole.items()}


_CARD = """# Model card: {name}

{contract.architecture} for facial expressions ({labels}), trained by edgekit.
{exported.net_parameters:,} parameters, {exported.cost.macs:,} multiply-accumulates per image, {exported.size_bytes:,}
bytes as ONNX. Made by `python -m edgekit.export.publish`.

## Data

FER-2013 (Goodfellow et al., ICML 2013 challenge): 48x48 gray pictures from a web image search, labelled by people
who often disagree; about a third of the labels are disputed. It is distributed for research and is not part of edgekit.
Trained on Training ({training[data_name]}, content sha256 `{training[data_sha256]}`), the epoch chosen on
{training[validation]}, measured once on {split}.

{teacher}## Accuracy on {split}

| protocol | accuracy | images | cross-entropy | calibration error |
| --- | --- | --- | --- | --- |
{protocols}

A Pi runs center-crop. "Without duplicates" leaves out the {split} images that are pixel-identical to one of another
split. The calibration error is the mean distance of confidence and accuracy over 15 bins. Recall per class:

| class | center-crop | ten-crop |
| --- | --- | --- |
{classes}

## Training

Epoch {best[epoch]} of {training[recipe][epochs]} ({best[validation_accuracy]:.2%} on {training[validation]}),
recipe `{training[recipe_name]}`{ferplus}, seed {training[seed]}, precision {training[precision]},
torch {training[torch_version]}, edgekit {training[edgekit_version]} ({training[git_revision]}),
{threads}.{initial}

```json
{recipe}
```

## Limits

- It classifies the expression that a face shows, which is not what a person feels.
- Labels and faces are those of web pictures of the early 2010s: posed, frontal, mostly light-skinned adults. It was
  not measured on other groups, on children, on masks or in the dark.
- Fear, sadness and neutral faces are often confused; disgust is rare in the data.
- Probabilities are the net's own. The calibration error above holds for pictures like these; on others it is larger.

## Not to be used

To judge, rank, hire, grade, police or diagnose people, to watch them without their consent, or for anything where a
wrong classification harms someone.

## Licence

The weights come under edgekit's licence. The data they were trained on is for research; check whether your use of a
model trained on it is allowed where you are.
"""


def _card(
    name: str, contract: Contract, training: Mapping[str, Any], results: Mapping[str, Evaluation], exported: Exported
) -> str:
    protocols = [
        f"| {protocol} | {result.accuracy:.2%} | {result.correct} of {result.total} "
        f"| {result.loss:.3f} | {result.calibration.expected_error:.3f} |"
        for protocol, result in results.items()
    ]
    center, ten = (results[protocol].per_class for protocol in _PROTOCOLS)
    classes = [f"| {label} | {center[label]:.1%} | {ten[label]:.1%} |" for label in contract.labels]
    return _CARD.format(
        threads=counted(training["threads"], "thread"),
        name=name,
        contract=contract,
        labels=", ".join(contract.labels),
        exported=exported,
        training=training,
        best=training["best"],
        split=_SPLIT,
        teacher=_teacher(name, training),
        protocols="\n".join(protocols),
        classes="\n".join(classes),
        ferplus=_ferplus(training),
        initial=_initial(training),
        recipe=json.dumps(training["recipe"], indent=2, sort_keys=True),
    )


def _teacher(name: str, training: Mapping[str, Any]) -> str:
    """Return the model card's section on the teacher; empty if the net was not distilled."""
    if "teacher" not in training:
        return ""
    distillation = training["distillation"]
    weights = ", ".join(f"{loss} {value:g}" for loss, value in distillation["weights"].items() if value)
    views = f"its outputs for the views `{distillation['views']}`" if distillation["views"] else "augmented crops"
    labels = "were used, too" if distillation["weights"]["ce"] else "were not used"
    powers = distillation.get("votes")  # missing in checkpoints older than this option
    votes = f" and FER+ votes with the powers {powers['teacher']:g} and {powers['votes']:g}" if powers else ""
    lines = "\n".join(f"- {line}" for line in _teachers(name, training["teacher"]))
    return f"""## Teacher

It was distilled from a teacher's outputs for the training images; their labels {labels}. The teacher:

{lines}

Distilled on {views}{votes}, loss {weights}, temperature {distillation["temperature"]:g}.

"""


def _teachers(name: str, record: Mapping[str, Any]) -> Iterator[str]:
    if "members" in record:
        for member in record["members"]:
            yield from _teachers(name, member)
        return
    line = f"{_KINDS[record['kind']]}, `{record['name']}` (sha256 `{record['sha256']}`)"
    if Path(record["name"]).stem == name:
        line += ", shipped under this name before"
    clip = record.get("clip")
    yield f"{line}, of the CLIP `{clip['source']}` (sha256 `{clip['sha256']}`)" if clip else line


def _initial(training: Mapping[str, Any]) -> str:
    sha256 = training.get("initial_sha256")
    if not sha256:
        return " The initial weights were random."
    shipped = (name for name in shipped_models() if sha256_of(ASSETS / f"{name}{CHECKPOINT_SUFFIX}") == sha256)
    name = next((f"`{name}`, " for name in shipped), "")
    return f" The initial weights were those of {name}the checkpoint with sha256 `{sha256}`."


def _ferplus(training: Mapping[str, Any]) -> str:
    if "ferplus" not in training:
        return ""
    return f", FER+ votes as `{training['ferplus']}` (Barsoum et al. 2016; CSV sha256 `{training['ferplus_sha256']}`)"


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m edgekit.export.publish", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", default="default", choices=SHIPPED)
    parser.add_argument("--folder", type=Path, default=ASSETS)
    arguments = parser.parse_args()
    exported = publish(arguments.checkpoint, load_dataset(arguments.data), arguments.folder, arguments.name)
    print(f"{exported.path}: max abs difference {exported.verification.max_abs_difference:.1e}")
    for accuracy in exported.contract.provenance.accuracy:
        print(f"{accuracy.split} {accuracy.protocol}: {accuracy.correct / accuracy.total:.2%}")


if __name__ == "__main__":
    _main()
