"""YuNet: the same faces as OpenCV's FaceDetectorYN, frames of any size, and refused model files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.device.detection import create_detector
from edgekit.device.detection.yunet import YuNet, decode, input_sizes
from edgekit.downloads import YUNET
from edgekit.errors import InputError
from edgekit.files import sha256_of
from tests.device.videos import video_frames
from tests.toy_yunet import HEADS, STRIDES_PX, save_toy_yunet

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


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(32, 1280))
def test_the_frame_keeps_its_shape_in_sides_of_multiples_of_32(width, height, input_size_px):
    content_wh, canvas_wh = input_sizes((width, height), input_size_px)
    assert max(content_wh) == input_size_px
    assert all(side % 32 == 0 and 0 <= side - inner < 32 for side, inner in zip(canvas_wh, content_wh, strict=True))
    scale = input_size_px / max(width, height)
    assert abs(content_wh[0] - width * scale) <= 0.5 or content_wh[0] == 1
    assert abs(content_wh[1] - height * scale) <= 0.5 or content_wh[1] == 1


def test_a_model_of_fixed_size_sees_the_whole_frame():
    assert input_sizes((1280, 720), 320, (640, 640)) == ((640, 360), (640, 640))
    assert input_sizes((30, 60), 320, (640, 640)) == ((320, 640), (640, 640))


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


def test_another_model_and_a_file_that_is_no_model_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("just text\n")
    for path in (tiny_model, tmp_path / "text.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(InputError):
            YuNet(path, 320, 0.7)


def test_a_model_with_two_inputs_lacks_no_outputs_in_the_message(tmp_path: Path) -> None:
    path = save_toy_yunet(tmp_path / "two.onnx", 64, 64)
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [1]))
    onnx.save(model, path)
    with pytest.raises(InputError, match="not a YuNet: it has 2 inputs: give a face_detection_yunet"):
        YuNet(path, 320, 0.7)
