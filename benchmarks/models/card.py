"""(module) Model cards in the format of the Hugging Face hub, and the tables of docs/reference/results.md.

https://huggingface.co/docs/hub/model-cards describes the format, and the field `model-index` of results.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SPLIT = "PrivateTest"
# The classes of faces in front of a camera that photographs of films have in numbers.
FIELD_CLASSES = ("angry", "happy", "sad", "surprise", "neutral")
# Protocols whose figures are in the front matter, and on the page of the results.
_DECIDING = ("center-crop", "ten-crop", "center-crop, majority among seven classes")
TRAINING, LICENCE = "## Training\n", "## Licence\n"

# Rows of the card's tables; docs/models/NAME.json has the other protocols and thresholds.
_IN_CARD = (*_DECIDING, "center-crop without duplicates")
_THRESHOLDS = (0.0, 0.5, 0.7, 0.9)

_PURPOSES = {
    "default": "Use the model for faces in front of a camera, with `edgekit run` on a Raspberry Pi.",
    "fer2013": "Use the model to compare other nets with EdgeCNN on the labels of FER-2013. For faces in front of a\n"
    "camera, use `default`.",
    "distilled": "Use the model for labels of your own: it predicts the same expressions as `default`, and\n"
    "`edgekit export distilled --class NAME …` replaces them by labels that you describe in words. The net that reads\n"
    "the words, the text tower of a CLIP, is in `distilled.text.safetensors`.",
}
# Models whose card has the accuracy on dark, small and turned faces.
_FOR_CAMERAS = ("default",)
# What stands for the figures of each class and kind of face, where another card has almost the same ones.
_SAME_PREDICTIONS = {
    "distilled": "The [recall of each class](default.md#recall-per-class), and the [accuracy by brightness, size and\n"
    "pose](default.md#accuracy-by-brightness-size-and-pose), are almost equal to those of `default`, because the two\n"
    "models give almost every face the same label.",
}
_USES_OF_PHOTOGRAPHS = {
    "default": "No net was trained on the photographs. But four settings of `default` were chosen with them: the\n"
    "weight of labels against votes, the nets that are averaged, the constants that make common classes more\n"
    "probable, and the threshold of `uncertain`. So the accuracy on other photographs can be lower.",
    "fer2013": "No net was trained on the photographs, and no setting of `fer2013` was chosen with them.",
    "distilled": "No net was trained on the photographs. But four settings of `default`, whose layers are in\n"
    "`distilled`, were chosen with them: the weight of labels against votes, the nets that are averaged, the\n"
    "constants that make common classes more probable, and the threshold of `uncertain`. So the accuracy on other\n"
    "photographs can be lower.",
}
_CARD = """{front}
# Model card: {name}

`{name}` classifies the facial expression of a face: {label_list}.
The net is {architecture}, with {parameters:,} parameters and {macs:,} multiply-accumulates per face. The ONNX file has
{size_bytes:,} bytes.

## Intended use

{purpose}

Do not use the model:

- to judge, rank, hire, grade, police or diagnose people,
- to watch people without their consent,
- where a wrong classification harms someone.

## Results

{results}

- **FER-2013** has one label per image. "Ten-crop" averages the outputs for ten parts of an image. "Without duplicates"
  leaves out images that are also in another split.
- **FER+** has ten people's votes on each image of FER-2013. The label is the majority of the votes; images without a
  majority are left out.
- **Photographs** are faces from news and films. Students assigned the labels, and some labels are wrong.

`benchmarks/models/publish.py` measured all figures of this card.{document}

## Limits

- The model classifies the expression that a face shows, not what the person feels.
- The training data are pictures from the web of the early 2010s, mostly of light-skinned adults who pose. The accuracy
  on other groups, on children and on faces with masks was not measured.
- The recall of rare classes, above all disgust, can be much lower than the accuracy.

{by_face}

## Confidence

{confidence}

## Data

FER-2013 (Goodfellow et al., ICML 2013 challenge) has gray pictures of 48x48 pixels from a web image search. FER-2013 is
distributed for research, and is not a part of edgekit. The net was trained on the split Training and on the votes of
FER+ (Barsoum et al. 2016). The epochs were chosen on the split PublicTest.

{photographs}

{training}{licence}
The licence of the weights is MIT, the licence of edgekit. The training data is for research. Check whether the law of
your country permits your use of a model that was trained on this data.
"""


def card(document: Mapping[str, Any], training: str, docs: Path | None, folder: Path) -> str:
    """Return the card of a model.

    Args:
        document: Facts and figures of the model, as `publish.py` puts them together.
        training: The section on the training, from `TRAINING` to `LICENCE`.
        docs: The folder of the docs, if `publish.py` has written the document and the picture of the photographs there.
        folder: The card's folder, to which the links are relative.
    """
    picture = link = ""
    if docs is not None:
        target = f"{Path(os.path.relpath(docs, folder)).as_posix()}/models/{document['name']}"
        link = (
            f" [{document['name']}.json]({target}.json)\nhas further ones, such as other protocols and 95 % intervals."
        )
        if document["photographs"]:
            picture = f"\n\n![Confusion matrix and calibration on photographs]({target}-photographs.png)"
    return _CARD.format(
        **{name: document[name] for name in ("name", "architecture", "parameters", "macs", "size_bytes")},
        front=_front_matter(document),
        label_list=", ".join(document["labels"]),
        document=link,
        results=_results(document),
        purpose=_PURPOSES[document["name"]],
        confidence=_confidence(document) + picture,
        by_face=_by_face(document),
        photographs=_USES_OF_PHOTOGRAPHS[document["name"]],
        training=training,
        licence=LICENCE,
    )


def training_section(text: str) -> str:
    """Return the section on the training of a card."""
    return TRAINING + text.partition(TRAINING)[2].partition(LICENCE)[0]


def _measured(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Yield data, protocol, kind of data and result of each measurement on prepared images."""
    for protocol, result in (document["fer2013"] or {}).items():
        yield f"FER-2013 {SPLIT}", protocol, "fer2013", result
    for protocol, result in (document["ferplus"] or {}).items():
        yield f"FER+ {SPLIT}", f"{protocol}, majority among seven classes", "ferplus", result
        yield f"FER+ {SPLIT}", f"{protocol}, eight classes", "ferplus", result["eight_classes"]


def _front_matter(document: Mapping[str, Any]) -> str:
    lines = ["---", "license: mit", "library_name: edgekit", "pipeline_tag: image-classification"]
    lines += ["tags:", "- onnx", "- facial-expression-recognition", "- raspberry-pi"]
    lines += ["datasets:", "- fer2013", "- ferplus", "metrics:", "- accuracy"]
    entries = [
        (kind, data, "accuracy", f"Accuracy, {protocol}", result["accuracy"])
        for data, protocol, kind, result in _measured(document)
        if protocol in _DECIDING
    ]
    if photos := document["photographs"]:
        entries.append(("photographs", "Photographs", "accuracy", "Accuracy", photos["accuracy"]))
    if entries:
        lines += ["model-index:", f"- name: {document['name']}", "  results:"]
    for kind, data, metric, name, value in entries:
        lines += ["  - task:", "      type: image-classification", "      name: Facial expression recognition"]
        lines += ["    dataset:", f"      type: {kind}", f"      name: {data}", "    metrics:"]
        lines += [f"    - type: {metric}", f"      name: {name}", f"      value: {100 * value:.2f}"]
    return "\n".join([*lines, "---"])


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; all columns but the first are aligned to the right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _results(document: Mapping[str, Any]) -> str:
    rows: list[Sequence[object]] = [
        _row(data, protocol, result) for data, protocol, _, result in _measured(document) if protocol in _IN_CARD
    ]
    rows += [(f"{data} {SPLIT}", "", "not measured", "") for data, key in (("FER-2013", "fer2013"), ("FER+", "ferplus"))
             if not document[key]]  # fmt: skip
    end = ""
    if photos := document["photographs"]:
        rows.append(_row("photographs", "all; wrong if no face is detected", photos))
        classes, recall = ", ".join(photos["recall_of"]), photos["mean_recall_of"]
        end = (
            f"\n\nOn photographs, the mean recall of the classes {classes} is {recall:.2%}. The recall\n"
            "of a class is the share of its images that get the right label."
        )
    else:
        rows.append(("photographs", "", "not measured", ""))
    return _table(("data", "protocol", "accuracy", "correct images"), rows) + end


def _row(data: str, protocol: str, result: Mapping[str, Any]) -> Sequence[object]:
    return data, protocol, f"{result['accuracy']:.2%}", f"{result['correct']} of {result['total']}"


def _by_face(document: Mapping[str, Any]) -> str:
    """Return the sections on the accuracy of each class, and of dark, small and turned faces."""
    if same := _SAME_PREDICTIONS.get(document["name"]):
        return same
    recall = f"## Recall per class\n\n{_recall(document)}"
    if document["name"] not in _FOR_CAMERAS:
        return recall
    return f"{recall}\n\n## Accuracy by brightness, size and pose\n\n{_served(document)}"


def _recall(document: Mapping[str, Any]) -> str:
    columns: dict[str, Mapping[str, float | None]] = {}
    if document["fer2013"]:
        columns["FER-2013"] = document["fer2013"]["center-crop"]["per_class"]
    if document["ferplus"]:
        columns["FER+"] = document["ferplus"]["center-crop"]["per_class"]
    counts: Mapping[str, int] = {}
    if photos := document["photographs"]:
        columns["photographs"], counts = photos["per_class"], photos["images_per_class"]
    rows = []
    for label in document["labels"] if columns else ():
        shares = [_percent(recalls[label]) for recalls in columns.values()]
        shares[-1] += f" of {counts[label]:,}" if label in counts else ""
        rows.append((label, *shares))
    return _table(("class", *columns), rows) if rows else "Not measured."


def _confidence(document: Mapping[str, Any]) -> str:
    temperature, below = document["temperature"], document["uncertain_below"]
    text = "The model is not calibrated."
    if temperature != 1:
        text = f"The model was calibrated on PublicTest. The temperature of {temperature:.3f} is part of the file."
    if document["photographs"]:
        error = document["photographs"]["with_face"]["calibration_error"]
        text += f" On photographs,\nprobabilities and accuracy differ by {100 * error:.1f} points on average."
    parts = [text]
    data, result = _distribution(document)
    if result:
        points = [
            (f"{each['threshold']:g}", f"{each['coverage']:.1%}", _percent(each["accuracy"]))
            for each in result["risk_coverage"]
            if each["threshold"] in (*_THRESHOLDS, below)
        ]
        parts += [
            "If the largest probability of a face is below a threshold, the face is labelled `uncertain`. The effect\n"
            f"on {data}:",
            _table(("threshold", "faces with a label", "accuracy of these faces"), points),
        ]
    effect = "" if below else ", so every face gets a label"
    return "\n\n".join([*parts, f"The threshold in the model file is {below:g}{effect}."])


def _served(document: Mapping[str, Any]) -> str:
    data, result = _distribution(document)
    if not result:
        return "Not measured."
    rows = [
        (
            "" if index else f"{name}: {found['measure']}",
            band["band"],
            f"{band['total']:,}",
            _percent(band["accuracy"]),
        )
        for name, found in result["by"].items()
        for index, band in enumerate(found["bands"])
    ]
    table = _table(("property", "value", "faces", "accuracy"), rows)
    return f"Measured on {data}:\n\n{table}"


def _distribution(document: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the data of the sections on confidence and on properties of faces, and the result on it."""
    if document["photographs"]:
        return "photographs with a detected face", document["photographs"]
    return f"FER-2013 {SPLIT}", document["fer2013_distribution"] if document["fer2013"] else {}


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def results_table(documents: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of docs/reference/results.md: a column per model, a row per measure that decides."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for document in documents:
        name = document["name"]
        for data, protocol, kind, result in _measured(document):
            if protocol in _DECIDING:
                command = "`--data fer2013.tar.gz`" + " `--ferplus ferplus_votes.csv`" * (kind == "ferplus")
                command += " `--protocol ten-crop`" * (protocol == "ten-crop")
                rows.setdefault((f"{data}, {protocol}", command), {})[name] = _right(result)
        if photos := document["photographs"]:
            command = f"`--photos photos.tar --recall-of {','.join(FIELD_CLASSES)}`"
            rows.setdefault(("photographs", command), {})[name] = _right(photos)
            recall = f"{photos['mean_recall_of']:.2%}"
            rows.setdefault(("photographs, mean recall of five classes", ""), {})[name] = recall
    names = [document["name"] for document in documents]
    table = [
        (measure, *(values.get(name, "") for name in names), command) for (measure, command), values in rows.items()
    ]
    return _table(("data, measure", *(f"`{name}`" for name in names), "`edgekit eval MODEL …`"), table) + "\n"


def _right(result: Mapping[str, Any]) -> str:
    return f"{result['accuracy']:.2%} ({result['correct']} of {result['total']})"
