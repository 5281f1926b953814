"""Do ultralytics and OpenVINO's Model API give the labels of edgekit, if a file has their metadata, too?

    python benchmarks/export/other_programs.py MODEL.onnx PICTURES -o out/other

The script writes a copy of MODEL with `names`, `task` and `imgsz` (ultralytics) and with `model_info` (Model API). Each
program classifies the pictures in an environment of its own in the output folder. The script prints the number of
pictures with edgekit's label. edgekit writes no such metadata, because labels differ: see docs/explanation/notes.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGES = {
    "model-api": ("openvino-model-api==0.4.7", "opencv-python-headless==4.11.0.86", "onnx==1.23.2"),
    "ultralytics": ("ultralytics==8.4.190", "onnxruntime==1.32.0", "onnx==1.23.2"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Print how many pictures get the same label."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--program", choices=PACKAGES, help="(classify in this program's environment)")
    given = parser.parse_args(argv)
    pictures = sorted(given.pictures.rglob("*.jpg"))
    if given.program:
        labels = (
            _model_api(given.model, pictures) if given.program == "model-api" else _ultralytics(given.model, pictures)
        )
        given.output.write_text(json.dumps(labels))
        return
    given.output.mkdir(parents=True, exist_ok=True)
    described, expected = given.output / "described.onnx", edgekit_labels(given.model, pictures)
    describe(given.model, described)
    for program, packages in PACKAGES.items():
        folder, answers = given.output / program, given.output / f"{program}.json"
        if not (folder / "installed").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            subprocess.run([folder / "bin/pip", "install", "--quiet", *packages], check=True)
            (folder / "installed").touch()
        command = [folder / "bin/python", __file__, described, given.pictures, "-o", answers, "--program", program]
        if subprocess.run(command).returncode:
            print(f"{program}: cannot run the file")
            continue
        equal = sum(a == b for a, b in zip(json.loads(answers.read_text()), expected, strict=True))
        print(f"{program}: edgekit's label on {equal} of {len(pictures)} pictures")


def describe(model: Path, target: Path) -> None:
    """Write a copy of a model file with the metadata of both programs, as near to its contract as their words allow."""
    import onnx

    document = onnx.load(model)
    contract = json.loads({entry.key: entry.value for entry in document.metadata_props}["edgekit"])
    spec = contract["input"]
    entries = {
        "names": str(dict(enumerate(contract["labels"]))),
        "task": "classify",
        "imgsz": str(spec["size_hw"]),
        "stride": "1",
        "batch": "1",
        "model_info model_type": "Classification",
        "model_info labels": " ".join(contract["labels"]),
        "model_info resize_type": "crop" if contract["crop"]["fit"] == "square" else "standard",
        "model_info reverse_input_channels": str(spec["channels"] != "bgr"),
        "model_info output_raw_scores": "True",
    }
    if spec["element_type"] == "float32":
        for name, values in (("mean_values", spec["mean"]), ("scale_values", spec["std"])):
            entries[f"model_info {name}"] = " ".join(str(value / spec["scale"]) for value in values)
    for key, value in entries.items():
        entry = document.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(document, target)


def edgekit_labels(model: Path, pictures: Sequence[Path]) -> list[str]:
    """Return edgekit's label of each picture."""
    import cv2

    import edgekit

    net = edgekit.load_model(str(model))
    return [net.predict(cv2.imread(str(path))).labels[0] for path in pictures]


def _model_api(model: Path, pictures: Sequence[Path]) -> list[str]:
    import cv2
    from model_api.models import Model

    net = Model.create_model(str(model))
    return [net(cv2.imread(str(path))).top_labels[0].name for path in pictures]


def _ultralytics(model: Path, pictures: Sequence[Path]) -> list[str]:
    import cv2
    from ultralytics import YOLO

    net = YOLO(str(model), task="classify")
    results = [net.predict(cv2.imread(str(path)), verbose=False)[0] for path in pictures]
    return [result.names[result.probs.top1] for result in results]


if __name__ == "__main__":
    main()
