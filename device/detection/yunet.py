"""The YuNet face detector on ONNX Runtime.

Wu, Peng, Yu: YuNet, a tiny millisecond-level face detector (Machine Intelligence Research, 2023). The net has three
grids with cells of 8, 16 and 32 pixels. Each cell outputs two probabilities whose geometric mean is the score, a box
and five landmarks. The unit of both is the side of the cell: the centre of the box and the landmarks are offsets from
the cell's corner, and width and height of the box are logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort

from edgekit.device.detections import Detections
from edgekit.device.engines.session import default_intra_op_threads, open_session, run_session
from edgekit.errors import InputError, TemporaryError
from edgekit.preprocess import FloatArray, ImageU8
from edgekit.text import counted, one_line

# Of two boxes whose intersection over union is larger, the one with the lower score is discarded.
NMS_THRESHOLD = 0.3
# Largest number of candidates for non-maximum suppression.
TOP_K = 5000

_STRIDES_PX = (8, 16, 32)
_HEAD_SIZES = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
_OUTPUTS = tuple(f"{head}_{stride}" for head in _HEAD_SIZES for stride in _STRIDES_PX)


class YuNet:
    """Detects faces with a YuNet file. Use one object per thread: it keeps its input buffer."""

    name = "yunet"

    def __init__(
        self,
        model_path: Path,
        input_size_px: int,
        score_threshold: float,
        intra_op_threads: int | None = None,
    ) -> None:
        """Load the model.

        Args:
            model_path: A face_detection_yunet .onnx file. The edition of May 2026 takes any input size; that of March
                2023 is fixed at 640 x 640.
            input_size_px: Longer side of the net's input; no effect on a file of fixed size.
            score_threshold: Faces with a lower score are discarded.
            intra_op_threads: Threads within one inference; default: `default_intra_op_threads`.

        Raises:
            InputError: The file cannot be loaded, or is not a YuNet.
        """
        self._path = model_path
        self._session = open_session(model_path, intra_op_threads or default_intra_op_threads())
        self._score_threshold = score_threshold
        self.fixed_size_hw = _check_model(self._session, model_path)
        # May be set at any time, see `Sizable`.
        self.input_size_px = max(self.fixed_size_hw) if self.fixed_size_hw else input_size_px
        self._input_name = self._session.get_inputs()[0].name
        # The input of the net. `_letterbox` makes a new one if one of the next two sizes changes.
        self._tensor: FloatArray = np.zeros((1, 3, 0, 0), np.float32)
        self._prepared_px = 0  # `input_size_px` for which it was made
        self._frame_wh = (0, 0)  # size of the frame for which it was made
        self._scaled_wh = (0, 0)  # size of the scaled frame in it

    def detect(self, image_bgr: ImageU8) -> Detections:
        """Return the faces of a uint8 (H, W, 3) image, with landmarks.

        Raises:
            InputError: The inference fails.
            TemporaryError: There is too little memory.
        """
        tensor = self._letterbox(image_bgr)
        try:
            values = run_session(self._session, self._path, _OUTPUTS, {self._input_name: tensor})
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            kind = TemporaryError if isinstance(error, TemporaryError) else InputError
            raise kind(
                f"detector '{self._path}' fails on an input of {tensor.shape[3]}x{tensor.shape[2]} pixels: use a "
                f"larger --min-face or a smaller input ({one_line(str(error))})"
            ) from error
        outputs = dict(zip(_OUTPUTS, values, strict=True))
        xyxy, scores, landmarks_xy = decode(outputs, tensor.shape[3], self._score_threshold)
        kept = suppress(xyxy, scores, NMS_THRESHOLD, TOP_K)
        # From pixels of the scaled frame to pixels of the frame.
        to_frame_xy: FloatArray = np.divide(self._frame_wh, self._scaled_wh, dtype=np.float32)
        return Detections(xyxy[kept] * np.tile(to_frame_xy, 2), scores[kept], landmarks_xy[kept] * to_frame_xy)

    def _letterbox(self, image_bgr: ImageU8) -> FloatArray:
        """Return the net's input, float32 (1, 3, h, w): the scaled image in the upper left corner, black elsewhere."""
        height, width = image_bgr.shape[:2]
        if (width, height) != self._frame_wh or self.input_size_px != self._prepared_px:
            self._frame_wh, self._prepared_px = (width, height), self.input_size_px
            self._scaled_wh, (input_w, input_h) = input_sizes(self._frame_wh, self.input_size_px, self.fixed_size_hw)
            self._tensor = np.zeros((1, 3, input_h, input_w), np.float32)
        if self._scaled_wh != self._frame_wh:
            # Bilinear, because area averaging takes 8 to 40 times as long, often longer than the net, and the detector
            # finds no more faces with it.
            image_bgr = np.asarray(cv2.resize(image_bgr, self._scaled_wh, interpolation=cv2.INTER_LINEAR), np.uint8)
        scaled_w, scaled_h = self._scaled_wh
        self._tensor[0, :, :scaled_h, :scaled_w] = image_bgr.transpose(2, 0, 1)  # (H, W, 3) to (3, H, W)
        return self._tensor


def input_sizes(
    frame_wh: tuple[int, int], input_size_px: int, fixed_size_hw: tuple[int, int] | None = None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size to which the frame is scaled, and the size of the net's input, both as (width, height).

    The scaled frame keeps its aspect ratio, and the rest of the input is black. Its longer side is `input_size_px`, and
    the sides of the input are the next multiples of 32. For a net with the input size `fixed_size_hw`, the frame is
    scaled to fit into it.
    """
    width, height = frame_wh
    if fixed_size_hw:
        input_h, input_w = fixed_size_hw
        return _scaled_wh(frame_wh, min(input_w / width, input_h / height)), (input_w, input_h)
    scaled_wh = _scaled_wh(frame_wh, input_size_px / max(width, height))
    stride_px = _STRIDES_PX[-1]  # the largest
    input_w, input_h = (math.ceil(side / stride_px) * stride_px for side in scaled_wh)
    return scaled_wh, (input_w, input_h)


def _scaled_wh(size_wh: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return a size times `scale` in whole pixels, at least one."""
    width, height = size_wh
    return max(round(width * scale), 1), max(round(height * scale), 1)


def decode(
    outputs: Mapping[str, FloatArray], input_width_px: int, score_threshold: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the candidates with a score of at least the threshold.

    Args:
        outputs: The net's outputs by name, each float32 (1, cells, values), cells row by row.
        input_width_px: Width of the net's input.
        score_threshold: Smallest score of a decoded cell.

    Returns:
        xyxy float32 (N, 4), scores float32 (N,) and landmarks float32 (N, 5, 2) in pixels of the net's input.
    """
    boxes, scores, landmarks = [], [], []
    for stride in _STRIDES_PX:
        face_probability = outputs[f"cls_{stride}"][0, :, 0].clip(0, 1)  # (cells,)
        object_probability = outputs[f"obj_{stride}"][0, :, 0].clip(0, 1)
        score = np.sqrt(face_probability * object_probability)
        (cells,) = np.nonzero(score >= score_threshold)
        rows, columns = np.divmod(cells, input_width_px // stride)
        corner_xy = np.stack((columns, rows), axis=1).astype(np.float32)  # (N, 2): of the cells, in cells
        box = outputs[f"bbox_{stride}"][0, cells]  # (N, 4): centre x, y from the corner; log width, height; in cells
        centre_xy = corner_xy + box[:, :2]
        half_wh = np.exp(box[:, 2:]) / 2
        boxes.append(np.concatenate((centre_xy - half_wh, centre_xy + half_wh), axis=1) * stride)
        points_xy = outputs[f"kps_{stride}"][0, cells].reshape(-1, 5, 2)
        landmarks.append((corner_xy[:, np.newaxis] + points_xy) * stride)
        scores.append(score[cells])
    return np.concatenate(boxes), np.concatenate(scores), np.concatenate(landmarks)


def suppress(xyxy: FloatArray, scores: FloatArray, iou_threshold: float, top_k: int) -> list[int]:
    """Return the indices that greedy non-maximum suppression keeps, the highest score first.

    A box is kept unless its intersection over union with an earlier kept box exceeds `iou_threshold`. Only the `top_k`
    highest scores are considered.
    """
    areas = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
    remaining = np.argsort(-scores, kind="stable")[:top_k]
    kept: list[int] = []
    while remaining.size:
        best, remaining = int(remaining[0]), remaining[1:]
        kept.append(best)
        overlap_wh = np.minimum(xyxy[best, 2:], xyxy[remaining, 2:]) - np.maximum(xyxy[best, :2], xyxy[remaining, :2])
        overlap = overlap_wh.clip(0).prod(axis=1)
        union = areas[best] + areas[remaining] - overlap
        remaining = remaining[overlap <= iou_threshold * union]
    return kept


def _check_model(session: ort.InferenceSession, path: Path) -> tuple[int, int] | None:
    """Return the fixed input height and width of a file, None if it takes any size."""
    inputs, names = session.get_inputs(), [node.name for node in session.get_outputs()]
    missing = [name for name in _OUTPUTS if name not in names]
    if len(inputs) != 1 or missing:
        lacks = f" and lacks the outputs {', '.join(missing)}" if missing else ""
        raise InputError(
            f"detector model '{path}' is not a YuNet: it has {counted(len(inputs), 'input')}{lacks}: "
            "give a face_detection_yunet .onnx file"
        )
    shape = inputs[0].shape
    # (batch, 3, H, W); a size that is not fixed has a name instead of a number.
    is_fixed = len(shape) == 4 and isinstance(shape[2], int) and isinstance(shape[3], int)
    return (shape[2], shape[3]) if is_fixed else None
