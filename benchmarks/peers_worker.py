"""(module) Classifies the faces of `peers.py` with one program, in the environment of this program.

python peers_worker.py NAME FACES.json ANSWERS.json [MODEL]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import types
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

# Takes a decoded photograph, and the entry of its face in FACES.json.
Predict = Callable[[Any, Mapping[str, Any]], str]
# Where OpenCV Zoo's net expects eyes, nose and corners of the mouth in its image of 112x112 pixels.
_ZOO_LANDMARKS_XY = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
_ZOO_LABELS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


def edgekit(model: str) -> tuple[Predict, str]:
    """Return edgekit's classification of a face, and its model file."""
    from edgekit.device.detections import Detections
    from edgekit.device.engines.classifier import Classifier
    from edgekit.device.frame import Frame
    from edgekit.device.pipeline.loop import crop_faces
    from edgekit.model_store import resolve_model

    path = resolve_model(model, (".onnx",))
    classifier = Classifier(path, 1)

    def predict(image: Any, face: Mapping[str, Any]) -> str:
        faces = Detections(np.array([face["xyxy"]], np.float32), np.ones(1, np.float32))
        crops = crop_faces(Frame(0, 0.0, 0.0, image), faces, classifier.contract)
        return classifier.contract.labels[int(classifier.logits(crops).argmax())]

    return predict, str(path)


def fer() -> Predict:
    from fer.fer import FER

    detector = FER()

    def predict(image: Any, face: Mapping[str, Any]) -> str:
        x0, y0, x1, y1 = map(round, face["xyxy"])
        [found] = detector.detect_emotions(image, face_rectangles=[(x0, y0, x1 - x0, y1 - y0)]) or [
            {"emotions": {"": 1}}
        ]
        return max(found["emotions"], key=found["emotions"].get)

    return predict


def facial_emotion_recognition() -> Predict:
    import torch

    torch.set_num_threads(1)
    # The package loads weights that were saved on a GPU, and imports a detector that is not used here.
    torch.load = partial(torch.load, map_location="cpu", weights_only=True)
    sys.modules["facenet_pytorch"] = types.ModuleType("facenet_pytorch")
    sys.modules["facenet_pytorch"].MTCNN = lambda **_: None  # type: ignore[attr-defined]
    from facial_emotion_recognition import EmotionRecognition

    net = EmotionRecognition(device="cpu")

    def predict(image: Any, face: Mapping[str, Any]) -> str:
        with torch.no_grad():
            return str(net._predict(cv2.cvtColor(_cut(image, face), cv2.COLOR_BGR2GRAY)))

    return predict


def hsemotion_onnx() -> Predict:
    import urllib.request  # noqa: F401 - the package uses it without an import

    from hsemotion_onnx.facial_emotions import HSEmotionRecognizer

    net = HSEmotionRecognizer()
    return lambda image, face: net.predict_emotions(cv2.cvtColor(_cut(image, face), cv2.COLOR_BGR2RGB))[0]


def deepface() -> Predict:
    from deepface import DeepFace

    def predict(image: Any, face: Mapping[str, Any]) -> str:
        [found] = DeepFace.analyze(_cut(image, face), ["emotion"], detector_backend="skip", silent=True)
        return str(found["dominant_emotion"])

    return predict


def opencv_zoo(model: str) -> tuple[Predict, str]:
    """Return the classification by OpenCV Zoo's net, and its file."""
    net = cv2.dnn.readNet(model)

    def predict(image: Any, face: Mapping[str, Any]) -> str:
        turned = _similarity(np.array(_ZOO_LANDMARKS_XY), np.array(face["landmarks_xy"]))
        aligned = cv2.warpAffine(image, turned, (112, 112), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        net.setInput(cv2.dnn.blobFromImage(aligned, 1 / 127.5, mean=(127.5, 127.5, 127.5), swapRB=True))
        return _ZOO_LABELS[int(net.forward().argmax())]

    return predict, model


def _similarity(points_xy: Any, targets_xy: Any) -> Any:
    """Return the (2, 3) matrix of turn, scale and shift that moves the points (N, 2) nearest to the targets (N, 2)."""
    points, targets = (xy[:, 0] + 1j * xy[:, 1] for xy in (points_xy, targets_xy))
    centred = points - points.mean()
    turn = np.vdot(centred, targets) / np.vdot(centred, centred).real
    shift = targets.mean() - turn * points.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _cut(image: Any, face: Mapping[str, Any]) -> Any:
    x0, y0, x1, y1 = (max(round(value), 0) for value in face["xyxy"])
    return image[y0:y1, x0:x1]


def main() -> None:
    """Write the label of each face, and the median time per face."""
    name, faces, answers, *model = sys.argv[1:]
    cv2.setNumThreads(1)
    file = None
    if name in ("default", "fer2013", "edgecnn"):
        predict, file = edgekit(*model or [name])
    elif name == "opencv-zoo":
        predict, file = opencv_zoo(*model)
    else:
        predict = globals()[name.replace("-", "_")]()
    labels, times_ms = [], []
    for face in json.loads(Path(faces).read_text()):
        image = cv2.imread(face["path"])
        start = time.process_time()
        labels.append(predict(image, face))
        times_ms.append(1000 * (time.process_time() - start))
    answer = {"labels": labels, "median_ms": statistics.median(times_ms), "model": file}
    Path(answers).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
