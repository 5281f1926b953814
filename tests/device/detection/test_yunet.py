"""YuNet: the same faces as OpenCV's FaceDetectorYN, frames of any size, and refused model files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekit.device.detection import create_detector
from edgekit.device.detection.yunet import YuNet, decode, input_sizes, suppress
from edgekit.downloads import YUNET
from edgekit.errors import InputError
from edgekit.files import sha256_of
from tests.device.videos import video_frames
from tests.toy_yunet import HEADS, STRIDES_PX

PICTURES = ("astronaut.png", "chelsea.png", "coffee.png", "three_faces.jpg")
CLIPS = ("fer_test.mp4", "carphone_pristine.mp4")


def images_of(shared: Path) -> list[np.ndarray]:
    media = shared / "data/media"
    images = [cv2.imread(str(media / name)) for name in PICTURES]
    for name in CLIPS:
        images += video_frames(media / name)[::40]
    return images


def opencvs_faces(path: Path, image: np.ndarray, content_wh: tuple[int, int], canvas_wh: tuple[int, int]):
    """Return boxes, landmarks and scores of FaceDetectorYN for the net's input image, in pixels of `image`."""
    seen = cv2.resize(image, content_wh, interpolation=cv2.INTER_LINEAR)
    right, bottom = canvas_wh[0] - content_wh[0], canvas_wh[1] - content_wh[1]
    seen = cv2.copyMakeBorder(seen, 0, bottom, 0, right, cv2.BORDER_CONSTANT)
    faces = cv2.FaceDetectorYN.create(str(path), "", canvas_wh, 0.6, 0.3, 5000).detect(seen)[1]
    faces = np.zeros((0, 15), np.float32) if faces is None else faces[np.argsort(-faces[:, 14], kind="stable")]
    to_frame = np.array([image.shape[1] / content_wh[0], image.shape[0] / content_wh[1]])
    xyxy = np.concatenate((faces[:, :2], faces[:, :2] + faces[:, 2:4]), axis=1) * np.tile(to_frame, 2)
    return xyxy, faces[:, 4:14].reshape(-1, 5, 2) * to_frame, faces[:, 14]


def tiny_model(path: Path, *, outputs: dict[str, np.ndarray], height: int | str, width: int | str) -> Path:
    """Write a model with constant outputs."""
    nodes = [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(v)) for name, v in outputs.items()]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, v.shape) for name, v in outputs.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def empty_outputs(height: int, width: int) -> dict[str, np.ndarray]:
    return {
        f"{head}_{stride}": np.zeros((1, (height // stride) * (width // stride), size), np.float32)
        for head, size in HEADS.items()
        for stride in STRIDES_PX
    }


def test_finds_the_faces_opencv_finds(shared: Path) -> None:
    for edition, input_size_px in (("2026may", 160), ("2026may", 320), ("2026may", 640), ("2023mar", 640)):
        path = shared / f"data/yunet/face_detection_yunet_{edition}.onnx"
        detector = YuNet(path, input_size_px, 0.6)
        faces = 0
        for image in images_of(shared):
            sizes = input_sizes((image.shape[1], image.shape[0]), input_size_px, detector.fixed_size_hw)
            xyxy, landmarks_xy, scores = opencvs_faces(path, image, *sizes)
            found = detector.detect(image)
            assert len(found) == len(scores)
            np.testing.assert_allclose(found.xyxy, xyxy, atol=2)
            np.testing.assert_allclose(found.landmarks_xy, landmarks_xy, atol=2)
            np.testing.assert_allclose(found.scores, scores, atol=0.01)
            faces += len(found)
        assert faces >= 10, (edition, input_size_px)
    assert sha256_of(shared / "data/yunet" / YUNET.name) == YUNET.sha256


@pytest.mark.parametrize("size_px", [256, 320])
def test_another_size_than_that_of_the_file_is_refused(yunet_640: Path, size_px: int) -> None:
    with pytest.raises(InputError):
        create_detector(str(yunet_640), input_size_px=size_px, notify=pytest.fail)
    for fitting in (640, None):
        fixed = create_detector(str(yunet_640), input_size_px=fitting, notify=pytest.fail)
        assert (fixed.fixed_size_hw, fixed.input_size_px) == ((640, 640), 640)


def white_cell(height: int, width: int, x: int, y: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[y : y + 32, x : x + 32] = 255
    return image


def test_follows_frames_that_change_their_size(yunet: Path) -> None:
    image = white_cell(320, 320, 64, 96)
    detector = YuNet(yunet, 320, 0.6)
    for frame in (image, image[:160], image[:, :160], image):
        found = detector.detect(frame).xyxy
        assert len(found) > 0
        np.testing.assert_array_equal(found, YuNet(yunet, 320, 0.6).detect(frame).xyxy)


def test_boxes_and_landmarks_lie_where_the_face_is(yunet: Path) -> None:
    for image in (white_cell(320, 320, 64, 96), white_cell(160, 320, 64, 96)):
        found = YuNet(yunet, 320, 0.7).detect(image)
        np.testing.assert_allclose(found.xyxy, [[64, 96, 96, 128]])
        np.testing.assert_allclose(found.landmarks_xy[0, 2], [80, 96 + 0.55 * 32], rtol=1e-5)
    (small,) = YuNet(yunet, 320, 0.7).detect(cv2.resize(image, (640, 320), interpolation=cv2.INTER_NEAREST)).xyxy
    np.testing.assert_allclose(small, [128, 192, 192, 256])


def test_a_blank_frame_has_no_faces(yunet: Path) -> None:
    found = YuNet(yunet, 320, 0.7).detect(np.zeros((240, 320, 3), np.uint8))
    assert found.xyxy.shape == (0, 4)
    assert found.scores.shape == (0,)
    assert found.landmarks_xy.shape == (0, 5, 2)


class TestInputSizes:
    @given(st.integers(1, 5000), st.integers(1, 5000), st.integers(32, 1280))
    def test_the_frame_keeps_its_shape_in_sides_of_multiples_of_32(self, width, height, input_size_px):
        content_wh, canvas_wh = input_sizes((width, height), input_size_px)
        assert max(content_wh) == input_size_px
        assert all(side % 32 == 0 and 0 <= side - inner < 32 for side, inner in zip(canvas_wh, content_wh, strict=True))
        scale = input_size_px / max(width, height)
        assert abs(content_wh[0] - width * scale) <= 0.5 or content_wh[0] == 1
        assert abs(content_wh[1] - height * scale) <= 0.5 or content_wh[1] == 1

    @pytest.mark.parametrize(("frame_wh", "content_wh"), [((1280, 720), (640, 360)), ((30, 60), (320, 640))])
    def test_a_model_of_fixed_size_sees_the_whole_frame(self, frame_wh, content_wh):
        assert input_sizes(frame_wh, 320, (640, 640)) == (content_wh, (640, 640))


def test_box_and_landmarks_are_read_from_the_cell() -> None:
    outputs = empty_outputs(64, 96)
    cell = 2 * (96 // 16) + 3  # row 2, column 3 of the grid of 16 pixels
    outputs["cls_16"][0, cell] = 0.64
    outputs["obj_16"][0, cell] = 1.0
    outputs["bbox_16"][0, cell] = [0.5, 0.25, np.log(2), np.log(3)]
    outputs["kps_16"][0, cell] = np.arange(10) / 10
    xyxy, scores, landmarks_xy = decode(outputs, 96, 0.6)
    np.testing.assert_allclose(scores, [0.8], rtol=1e-6)
    np.testing.assert_allclose(xyxy, [[3.5 * 16 - 16, 2.25 * 16 - 24, 3.5 * 16 + 16, 2.25 * 16 + 24]], rtol=1e-5)
    expected = (np.array([3, 2]) + np.arange(10).reshape(5, 2) / 10) * 16
    np.testing.assert_allclose(landmarks_xy, [expected], rtol=1e-5)


def test_probabilities_are_limited_to_zero_and_one() -> None:
    outputs = empty_outputs(64, 96)
    outputs["cls_16"][:] = outputs["obj_16"][:] = -1.0
    outputs["cls_8"][0, 5] = 4.0
    outputs["obj_8"][0, 5] = 0.49
    np.testing.assert_allclose(decode(outputs, 96, 0.6)[1], [0.7], rtol=1e-6)


@pytest.mark.parametrize("stride", STRIDES_PX)
def test_every_grid_is_read(stride: int) -> None:
    outputs = empty_outputs(64, 96)
    outputs[f"cls_{stride}"][0, -1] = outputs[f"obj_{stride}"][0, -1] = 1.0
    xyxy, _, _ = decode(outputs, 96, 0.6)
    np.testing.assert_allclose(xyxy.reshape(2, 2).mean(axis=0), [96 - stride, 64 - stride])


class TestSuppress:
    @given(st.lists(st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 30)] * 2, st.integers(0, 20)), max_size=30))
    def test_is_greedy_by_score(self, boxes):
        xyxy = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in boxes], np.float32).reshape(-1, 4)
        scores = np.array([score / 20 for *_, score in boxes], np.float32)
        expected: list[int] = []
        for index in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
            if all(iou(xyxy[index], xyxy[other]) <= 0.3 for other in expected):
                expected.append(index)
        assert suppress(xyxy, scores, 0.3, 5000) == expected

    def test_only_the_best_candidates_take_part(self):
        xyxy = np.array([[i * 10, 0, i * 10 + 5, 5] for i in range(4)], np.float32)
        assert suppress(xyxy, np.array([0.1, 0.9, 0.5, 0.7], np.float32), 0.3, 2) == [1, 3]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def one_face(**changes: float) -> dict[str, np.ndarray]:
    outputs = empty_outputs(64, 96)
    outputs["cls_32"][0, 4] = outputs["obj_32"][0, 4] = 1.0
    for head, value in changes.items():
        outputs[head][0, 4] = value
    return outputs


def test_another_model_is_refused(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "m.onnx", outputs={"logits": np.zeros((1, 7), np.float32)}, height=64, width=64)
    with pytest.raises(InputError):
        YuNet(path, 320, 0.7)


def test_an_input_that_is_no_picture_and_a_file_that_is_no_model_are_refused(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "m.onnx", outputs=one_face(), height=64, width=96)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, path)
    (tmp_path / "text.onnx").write_text("just text\n")
    for name in ("m.onnx", "text.onnx", "missing.onnx"):
        with pytest.raises(InputError):
            YuNet(tmp_path / name, 320, 0.7).detect(np.zeros((64, 96, 3), np.uint8))


def test_a_small_model_of_the_right_form_is_taken(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "m.onnx", outputs=one_face(), height=64, width=96)
    found = YuNet(path, 320, 0.7).detect(np.zeros((128, 192, 3), np.uint8))
    np.testing.assert_allclose(found.xyxy, [[32, 32, 96, 96]])


def test_too_little_memory_for_the_input_is_reported_with_its_size(
    yunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Failed to allocate\nmemory")

    detector = YuNet(yunet, 320, 0.7)
    monkeypatch.setattr("edgekit.device.detection.yunet.run_session", fail)
    with pytest.raises(InputError, match="320x256"):
        detector.detect(np.zeros((240, 320, 3), np.uint8))
