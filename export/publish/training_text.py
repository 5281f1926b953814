"""Text of a model card about the training: its command, teacher, start and recipe, from the checkpoint's record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.model_store import ASSETS, CHECKPOINT_SUFFIX, shipped_models
from edgekit.models.training.recipes import RECIPES

_KINDS = {
    "classifier": "a classifier",
    "clip": "a CLIP that classifies by descriptions of the classes",
    "prompted-clip": "a CLIP with trained prompts",
}
# The page with the commands of all nets, also of those whose records an average of averages does not contain.
_ALL_COMMANDS = {
    "default": "\n[Faces in front of a camera](../../docs/how-to/training.md#faces-in-front-of-a-camera) has the "
    "commands of all nets."
}
_WEIGHT_OPTIONS = {"ce": "--ce-weight", "cosine": "--cosine-weight", "kl": "--kl-weight"}


def training_section(name: str, training: Mapping[str, Any]) -> str:
    """Return the card's section on the training of the model `name`."""
    if "embedded" in training:
        return _embedded(name, training)
    return _average(name, training) if "average_of" in training else _one_training(name, training)


def _embedded(name: str, training: Mapping[str, Any]) -> str:
    """Return the section on a net in the embedding space of a CLIP."""
    net = training["embedded"]
    [teacher] = _teachers(name, training["teacher"])
    return f"""## Training

    edgekit embed NET --teacher TEACHER --clip CLIP --data fer2013.tar.gz

The names of files are placeholders. All layers except the last one are those of NET, and the predictions are those of
NET. The last layer was fitted by least squares to the vectors of TEACHER for {training["images"]:,} images.

- NET: {_checkpoint(net["sha256"])}
- TEACHER: {teacher}
"""


def _average(name: str, training: Mapping[str, Any]) -> str:
    """Return the section on a model whose weights are the mean of the weights of several nets."""
    nets = training["average_of"]
    if not all({"best", "average_of"} & net.get("training", {}).keys() for net in nets):
        raise InputError("a net of the average has no record of its training: average the trained nets themselves")
    placeholders = " ".join(f"NET{number}" for number, _ in enumerate(nets, 1))
    options = " --ferplus ferplus_votes.csv" if "ferplus_sha256" in training else ""
    if "prior_adjustment" in training:
        options += f" --prior-strength {training['prior_adjustment']['strength']:g}"
    page = _ALL_COMMANDS.get(name, "")
    known = {net["sha256"]: f"NET{number}" for number, net in enumerate(nets, 1)}
    sections = "\n".join(_net_of_average(name, f"NET{number}", net, known) for number, net in enumerate(nets, 1))
    return f"""## Training

The weights are the mean of the weights of {len(nets)} nets:

    edgekit average {placeholders} --data fer2013.tar.gz{options}

The commands below were composed from the records in the checkpoints. The names of files are placeholders.{page}

{sections}"""


def _net_of_average(name: str, placeholder: str, net: Mapping[str, Any], known: Mapping[str, str]) -> str:
    record = net["training"]
    if "average_of" in record:
        inner = "".join(f"- sha256 `{each['sha256']}`\n" for each in record["average_of"])
        return f"""### {placeholder}

The checkpoint has sha256 `{net["sha256"]}`. Its weights are the mean of the weights of these nets:

{inner}"""
    epoch, epochs = record["best"]["epoch"], record["recipe"]["epochs"]
    teachers = [f"- teacher: {line}\n" for line in _teachers(name, record.get("teacher", {"members": []}))]
    listed = "".join(["\n", *teachers]) if teachers else ""
    return f"""### {placeholder}

    {_command(record)}

The checkpoint has sha256 `{net["sha256"]}`. It is that of epoch {epoch} of {epochs}.
{_initial(record, known)}
{listed}"""


def _one_training(name: str, training: Mapping[str, Any]) -> str:
    best, recipe = training["best"], training["recipe"]
    ferplus = ""
    if "ferplus" in training:
        ferplus = f"| FER+ votes | used as `{training['ferplus']}`; sha256 `{training['ferplus_sha256']}` |\n"
    return f"""## Training

    {_command(training)}

The command above was composed from the record in the checkpoint. The names of files are placeholders. The JSON below
has all settings of the recipe in this training.

| property | value |
| --- | --- |
| recipe | `{training["recipe_name"]}` |
| saved epoch | {best["epoch"]} of {recipe["epochs"]} |
| accuracy of this epoch on {training["validation"]} | {best["validation_accuracy"]:.2%} |
{ferplus}| seed | {training["seed"]} |
| precision | {training["precision"]} |
| threads | {training["threads"]} |
| versions | torch {training["torch_version"]}, edgekit {training["edgekit_version"]} ({training["git_revision"]}) |

{_initial(training)}

```json
{json.dumps(recipe, indent=2, sort_keys=True)}
```
{_teacher(name, training)}"""


def _command(training: Mapping[str, Any]) -> str:
    """Return the command that trained the net, as far as the record contains it."""
    architecture, distillation = training["architecture"], training.get("distillation")
    if distillation is None:
        words = [f"edgekit train --model {architecture}"]
    else:
        count = len(training["teacher"].get("members", [None]))
        words = [f"edgekit distill --student {architecture}", *[f"--teacher TEACHER{n + 1}" for n in range(count)]]
        words += [f"{_WEIGHT_OPTIONS[loss]} {value:g}" for loss, value in distillation["weights"].items()]
        words.append(f"--temperature {distillation['temperature']:g}")
        words.append(f"--views {distillation['views']}" if distillation["views"] else "--on-the-fly")
        if distillation.get("out_of_fold"):
            words.append("--out-of-fold")
        if distillation.get("unlabelled"):
            words.append("--unlabelled MORE")
        if powers := distillation.get("votes"):
            words.append(f"--teacher-power {powers['teacher']:g} --votes-power {powers['votes']:g}")
    words.append("--data fer2013.tar.gz")
    if "ferplus" in training:
        words.append(f"--ferplus ferplus_votes.csv --ferplus-labels {training['ferplus']}")
    if "label_weight" in training:
        words.append(f"--label-weight {training['label_weight']:g}")
    if "prior_adjustment" in training:
        words.append(f"--prior-strength {training['prior_adjustment']['strength']:g}")
    if training.get("initial_sha256"):
        words.append("--init START")
    if fold := training.get("fold"):
        words.append(f"--folds {fold['folds']} --fold {fold['fold']}")
    recipe, named = training["recipe"], RECIPES.get(training["recipe_name"])
    words.append(f"--recipe {training['recipe_name']} --epochs {recipe['epochs']}")
    if training.get("balance", recipe.get("balance")) != recipe.get("balance"):
        words.append(f"--balance {training['balance']}")
    for name in ("batch_size", "max_lr", "mixup_alpha", "sam_radius"):
        own = getattr(named, name, 0.0)  # recipes of today have neither mixup nor SAM
        if named is not None and recipe.get(name, own) != own:
            words.append(f"--{name.replace('_', '-')} {recipe[name]:g}")
    words.append(f"--seed {training['seed']} --precision {training['precision']}")
    return " ".join(words)


def _teacher(name: str, training: Mapping[str, Any]) -> str:
    """Return the model card's section on the teacher; empty if the net was not distilled."""
    if "teacher" not in training:
        return ""
    distillation = training["distillation"]
    weights = ", ".join(f"{loss} {value:g}" for loss, value in distillation["weights"].items() if value)
    views = f"the views `{distillation['views']}`" if distillation["views"] else "augmented crops"
    labels = "were used, too" if distillation["weights"]["ce"] else "were not used"
    powers = distillation.get("votes")  # missing in checkpoints older than this option
    votes = ""
    if powers:
        votes = (
            " The FER+ votes\nwere combined with the outputs. "
            f"The exponent of the outputs is {powers['teacher']:g}, and that of the votes is {powers['votes']:g}."
        )
    lines = "\n".join(f"- {line}" for line in _teachers(name, training["teacher"]))
    return f"""
## Teacher

The net was distilled: it was trained on the outputs of a teacher for the training images. The labels of the images
{labels}. The teacher consists of:

{lines}

The teacher classified {views} of each image.{votes}
The weights of the losses are: {weights}. The temperature of the distillation is {distillation["temperature"]:g}.
"""


def _teachers(name: str, record: Mapping[str, Any]) -> Iterator[str]:
    if "members" in record:
        for member in record["members"]:
            yield from _teachers(name, member)
        return
    digest = "SHA-256 of the contents" if record["kind"] == "prompted-clip" else "sha256"
    line = f"{_KINDS[record['kind']]}, `{record['name']}` ({digest} `{record['sha256']}`)"
    if Path(record["name"]).stem == name:
        line += ", shipped under this name before"
    clip = record.get("clip")
    yield f"{line}. Its CLIP is `{clip['source']}` (sha256 `{clip['sha256']}`)" if clip else line


def _initial(training: Mapping[str, Any], known: Mapping[str, str] | None = None) -> str:
    """Return a sentence on the initial weights; `known` has names of checkpoints by checksum."""
    sha256 = training.get("initial_sha256")
    if not sha256:
        return "The initial weights were random."
    if known and sha256 in known:
        return f"The initial weights were those of {known[sha256]}."
    return f"The initial weights were those of {_checkpoint(sha256)}."


def _checkpoint(sha256: str) -> str:
    """Return the words for a checkpoint, with the name under which it is shipped."""
    shipped = (name for name in shipped_models() if sha256_of(ASSETS / f"{name}{CHECKPOINT_SUFFIX}") == sha256)
    name = next((f"`{name}`, " for name in shipped), "")
    return f"{name}the checkpoint with sha256 `{sha256}`"
