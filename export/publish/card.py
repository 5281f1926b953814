"""Model cards in the format of the Hugging Face hub: YAML front matter, then Markdown.

https://huggingface.co/docs/hub/model-cards describes the format, and the field `model-index` of results.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekit.export.publish.measure import PROTOCOLS, SPLIT
from edgekit.export.publish.training_text import training_section

_PURPOSES = {
    "default": "Expressions of faces in front of a camera, with `edgekit run` on a Raspberry Pi.",
    "fer2013": "Comparison with other nets on FER-2013's own labels. In front of a camera, use `default`.",
    "distilled": "Student of a CLIP with prompts. Its labels can be replaced by texts (`edgekit export --classes`). "
    "This needs the files of its CLIP and prompts, which are not shipped.",
}

_CARD = """{front}
# Model card: {name}

{architecture} for facial expressions ({label_list}), trained by edgekit.
{parameters:,} parameters, {macs:,} multiply-accumulates per image, {size_bytes:,} bytes as ONNX. Written by
`python -m edgekit.export.publish`, which measured every figure.

## Results

{results}

The device computes center-crop. "Without duplicates" leaves out the {split} images that are identical to an image of
another split. FER+ labels are the majority of ten people's votes among the seven expressions. The usual eight-class
protocol of Barsoum et al. (2016) includes images with a majority for contempt, which count as wrong for this net. The
calibration error is the mean distance of confidence and accuracy over 15 bins.

## Intended use

{purpose}

Do not use it to judge, rank, hire, grade, police or diagnose people, to watch people without their consent, or where a
wrong classification harms someone.

## Limits

- It classifies the expression that a face shows. It does not measure what a person feels.
- The training data are web pictures of the early 2010s: posed, frontal, mostly light-skinned adults. It was not
  measured on other groups, on children or on faces with masks. The tables of accuracy by brightness, size and pose
  below show which faces are classified worse. No attribute of a person is inferred.
- Rare classes of the training data, above all disgust, are recognised less often than the accuracy suggests.

## Data

FER-2013 (Goodfellow et al., ICML 2013 challenge): 48x48 gray pictures from a web image search, labelled by people
who often disagree. About a third of the labels are disputed. It is distributed for research and is not part of edgekit.
The net was trained on Training ({data_name}, content sha256 `{data_sha256}`). Its epoch was chosen on {validation}, and
it was measured on {split}. The photographs took no part in training, but the label weight, the strength of the logit
adjustment and the threshold of `default` were chosen with them.

FER-2013's licence does not allow its pictures in this card.
`edgekit eval {name} --data fer2013.tar.gz --errors out/errors`
draws contact sheets of the most confident errors.

## Recall per class

{recall}

## Confidence

{confidence}

## Accuracy by brightness, size and pose

{served}

{training}
## Licence

The weights have edgekit's licence, MIT. The training data is for research. Check whether the law of your country allows
your use of a model trained on it.
"""


def card(document: Mapping[str, Any], training: Mapping[str, Any], picture: Path | None, folder: Path) -> str:
    """Return the card of a model.

    Args:
        document: Facts and figures of the model, as `edgekit.export.publish.run` puts them together.
        training: The record of the checkpoint.
        picture: Confusion matrix and calibration on photographs, if it was drawn.
        folder: The card's folder, to which the link to `picture` is relative.
    """
    link = ""
    if picture is not None:
        target = Path(os.path.relpath(picture, folder)).as_posix()
        link = f"\n\n![Confusion matrix and calibration on photographs]({target})"
    return _CARD.format(
        **{name: document[name] for name in ("name", "architecture", "parameters", "macs", "size_bytes")},
        **{name: training[name] for name in ("data_name", "data_sha256", "validation")},
        front=_front_matter(document, training),
        label_list=", ".join(document["labels"]),
        results=_results(document),
        split=SPLIT,
        purpose=_PURPOSES[document["name"]],
        recall=_recall(document),
        confidence=_confidence(document) + link,
        served=_served(document),
        training=training_section(document["name"], training),
    )


def _front_matter(document: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    lines = ["---", "license: mit", "library_name: edgekit", "pipeline_tag: image-classification"]
    lines += ["tags:", *(f"- {tag}" for tag in ("onnx", "facial-expression-recognition", "raspberry-pi"))]
    lines += ["datasets:", "- fer2013", *(["- ferplus"] if "ferplus" in training else []), "metrics:", "- accuracy"]
    results = list(_index(document))
    if results:
        lines += ["model-index:", f"- name: {document['name']}", "  results:"]
        for dataset, kind, name, value in results:
            lines += [
                "  - task:",
                "      type: image-classification",
                "      name: Facial expression recognition",
                "    dataset:",
                f"      type: {kind}",
                f"      name: {dataset}",
                "    metrics:",
                "    - type: accuracy" if "recall" not in name else "    - type: recall",
                f"      name: {name}",
                f"      value: {100 * value:.2f}",
            ]
    return "\n".join([*lines, "---"])


def _index(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str, float]]:
    """Yield name and type of the data, name of the figure, and the figure, 0..1."""
    for protocol, result in (document["fer2013"] or {}).items():
        yield f"FER-2013 {SPLIT}", "fer2013", f"Accuracy, {protocol}", result["accuracy"]
    if ferplus := document["ferplus"]:
        yield f"FER+ {SPLIT}", "ferplus", "Accuracy, majority among seven classes", ferplus["accuracy"]
        yield f"FER+ {SPLIT}", "ferplus", "Accuracy, eight-class protocol", ferplus["eight_classes"]["accuracy"]
    if photos := document["photographs"]:
        yield "Photographs", "photographs", "Accuracy", photos["accuracy"]
        yield "Photographs", "photographs", "Mean recall of five classes", photos["mean_recall_of"]


def _results(document: Mapping[str, Any]) -> str:
    lines = ["| data | protocol | accuracy | images | calibration error |", "| --- | --- | --- | --- | --- |"]
    gap = "| | not measured | | |"
    if fer2013 := document["fer2013"]:
        lines += [_result(f"FER-2013 {SPLIT}", protocol, result) for protocol, result in fer2013.items()]
    else:
        lines.append(f"| FER-2013 {SPLIT} {gap}")
    if ferplus := document["ferplus"]:
        lines.append(_result(f"FER+ {SPLIT}", "majority among the seven", ferplus))
        lines.append(_result(f"FER+ {SPLIT}", "usual eight classes", ferplus["eight_classes"]))
    else:
        lines.append(f"| FER+ {SPLIT} {gap}")
    if photos := document["photographs"]:
        lines.append(_result("photographs", "without a face is wrong", photos))
        lines.append(_result("photographs", "with a face", photos["with_face"]))
        classes, recall = ", ".join(photos["recall_of"]), photos["mean_recall_of"]
        lines += ["", f"Mean recall of {classes} on photographs: {recall:.2%}."]
    else:
        lines.append(f"| photographs {gap}")
    return "\n".join(lines)


def _result(data: str, protocol: str, result: Mapping[str, Any]) -> str:
    error = f"{result['calibration_error']:.3f}" if "calibration_error" in result else ""
    return f"| {data} | {protocol} | {result['accuracy']:.2%} | {result['correct']} of {result['total']} | {error} |"


def _recall(document: Mapping[str, Any]) -> str:
    columns: dict[str, Mapping[str, float | None]] = {}
    for protocol in PROTOCOLS:
        if document["fer2013"]:
            columns[f"FER-2013 {protocol}"] = document["fer2013"][protocol]["per_class"]
    if document["ferplus"]:
        columns["FER+ majority"] = document["ferplus"]["per_class"]
    counts = {}
    if photos := document["photographs"]:
        columns["photographs"], counts = photos["per_class"], photos["images_per_class"]
    if not columns:
        return "Not measured."
    lines = [f"| class | {' | '.join(columns)} |", f"| --- {'| ---: ' * len(columns)}|"]
    for label in document["labels"]:
        shares = [_percent(recalls[label]) for recalls in columns.values()]
        if label in counts:
            shares[-1] += f" of {counts[label]:,}"
        lines.append(f"| {label} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _confidence(document: Mapping[str, Any]) -> str:
    parts = [
        f"The temperature of the calibration is {document['temperature']:.3f}. The file's logits are divided by it."
    ]
    for data, result in _distributions(document):
        calibration = "\n".join(
            f"| {row['from']:.1f} | {row['count']:,} | {row['confidence']:.1%} | {row['accuracy']:.1%} |"
            for row in result["calibration"]
        )
        risk = "\n".join(
            f"| {row['threshold']:g} | {row['coverage']:.1%} | {_percent(row['accuracy'])} |"
            for row in result["risk_coverage"]
        )
        parts.append(f"""Calibration on {data}:

| confidence from | images | mean confidence | accuracy |
| ---: | ---: | ---: | ---: |
{calibration}

Risk and coverage on {data}, if predictions below a confidence are labelled `uncertain`:

| `uncertain` below | coverage | accuracy of the others |
| ---: | ---: | ---: |
{risk}""")
    below = document["uncertain_below"]
    effect = "" if below else ": every face gets a label"
    parts.append(f"The model file's threshold of `uncertain` is {below:g}{effect}.")
    return "\n\n".join(parts)


def _served(document: Mapping[str, Any]) -> str:
    parts = []
    for data, result in _distributions(document):
        for name, breakdown in result["by"].items():
            rows = "\n".join(
                f"| {band['band']} | {band['total']:,} | {_percent(band['accuracy'])} | {_interval(band)} "
                f"| {_percent(band['mean_recall'])} |"
                for band in breakdown["bands"]
            )
            parts.append(f"""On {data} by {name}, the {breakdown["measure"]}:

| {name} | faces | accuracy | 95 % interval | mean recall |
| --- | ---: | ---: | ---: | ---: |
{rows}""")
    return "\n\n".join(parts) or "Not measured."


def _distributions(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if document["photographs"]:
        yield "photographs (those with a face)", document["photographs"]
    if document["fer2013"]:
        yield f"FER-2013 {SPLIT}", document["fer2013_distribution"]


def _interval(band: Mapping[str, Any]) -> str:
    return "-" if band["interval"] is None else f"{band['interval'][0]:.1%} to {band['interval'][1]:.1%}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
