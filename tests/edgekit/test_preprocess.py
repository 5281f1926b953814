"""Preprocessing from a face box to the input tensor of a net."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import preprocess
from edgekit.contract import CropSpec, Fit, InputSpec
from edgekit.device.imaging import resize

GRAY_CROP = CropSpec(margin=0.1, grayscale=True, resize_hw=(48, 48), center_crop_hw=(44, 44))
COLOUR_CROP = CropSpec(margin=0.1, grayscale=False, resize_hw=(48, 48), center_crop_hw=(44, 44))
coordinates = st.floats(-3000, 3000, width=32)
sides = st.integers(1, 2000)


def random_image(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def input_spec(channels: str, scale: float = 1 / 255, mean: float = 0.0, std: float = 1.0) -> InputSpec:
    count = 1 if channels == "gray" else 3
    return InputSpec("input", (44, 44), channels, scale, (mean,) * count, (std,) * count)


def never_resize(image, size_wh):
    raise AssertionError(f"resized {image.shape} to {size_wh}")


class TestSquareCropBox:
    @given(st.tuples(*[coordinates] * 4), sides, sides, st.floats(0, 2))
    def test_is_a_square_inside_the_frame(self, corners, frame_w, frame_h, margin):
        x0, x1 = sorted(corners[:2])
        y0, y1 = sorted(corners[2:])
        left, top, right, bottom = preprocess.square_crop_box((x0, y0, x1, y1), (frame_w, frame_h), margin)
        assert 0 <= left < right <= frame_w
        assert 0 <= top < bottom <= frame_h
        assert right - left == bottom - top

    @given(
        st.floats(0, 200),
        st.floats(0, 200),
        st.floats(2, 100),
        st.floats(2, 100),
        st.floats(0, 1),
        st.floats(1000, 2000),
    )
    def test_shares_the_boxs_centre_where_it_fits(self, width, height, x, y, margin, offset):
        box = (offset + x, offset + y, offset + x + width, offset + y + height)
        left, top, right, bottom = preprocess.square_crop_box(box, (4000, 4000), margin)
        assert abs((left + right) / 2 - (box[0] + box[2]) / 2) <= 0.51
        assert abs((top + bottom) / 2 - (box[1] + box[3]) / 2) <= 0.51
        assert abs((right - left) - max((width + height) / 2 * (1 + 2 * margin), 1)) <= 0.51

    def test_a_tall_box_becomes_a_square_of_its_mean_side(self):
        assert preprocess.square_crop_box((100, 100, 180, 200), (640, 480), 0) == (95, 105, 185, 195)

    def test_the_margin_is_added_on_every_side(self):
        assert preprocess.square_crop_box((100, 100, 200, 200), (640, 480), 0.25) == (75, 75, 225, 225)

    @pytest.mark.parametrize(
        ("box", "expected"),
        [
            ((-50, 10, 50, 110), (0, 10, 100, 110)),
            ((590, 400, 690, 500), (540, 380, 640, 480)),
            ((-9000, -9000, -8900, -8900), (0, 0, 100, 100)),
        ],
    )
    def test_is_moved_not_cut_where_it_would_leave_the_frame(self, box, expected):
        assert preprocess.square_crop_box(box, (640, 480), 0) == expected

    def test_is_at_most_the_frames_shorter_side(self):
        assert preprocess.square_crop_box((0, 0, 640, 480), (640, 480), 0.5) == (80, 0, 560, 480)


class TestCropFace:
    @pytest.mark.parametrize(("crop", "channels"), [(GRAY_CROP, 1), (COLOUR_CROP, 3)])
    @pytest.mark.parametrize("shape", [(100, 120, 3), (100, 120)])
    def test_has_the_nets_size_and_the_crops_channels(self, crop, channels, shape):
        face = preprocess.crop_face(random_image(*shape), (10, 10, 60, 70), crop, (44, 44), resize)
        assert face.shape == (44, 44, channels)
        assert face.dtype == np.uint8

    def test_equals_cutting_resizing_and_centre_cropping_by_hand(self):
        image = random_image(200, 200, 3)
        face = preprocess.crop_face(image, (40, 40, 140, 140), GRAY_CROP, (44, 44), resize)
        by_hand = cv2.resize(image[30:150, 30:150], (48, 48), interpolation=cv2.INTER_AREA)
        by_hand = cv2.cvtColor(by_hand, cv2.COLOR_BGR2GRAY)[2:46, 2:46]
        assert np.abs(face[..., 0].astype(int) - by_hand).max() <= 1

    def test_a_picture_of_the_right_size_is_not_resized(self):
        image = random_image(48, 48)
        face = preprocess.crop_image(image, GRAY_CROP, (44, 44), never_resize)
        np.testing.assert_array_equal(face[..., 0], image[2:46, 2:46])

    def test_colour_crops_are_red_green_blue(self):
        blue = np.zeros((48, 48, 3), np.uint8)
        blue[..., 0] = 200
        np.testing.assert_array_equal(
            preprocess.crop_image(blue, COLOUR_CROP, (44, 44), never_resize)[0, 0], [0, 0, 200]
        )

    def test_a_gray_picture_has_three_equal_channels_where_the_crop_has_colour(self):
        face = preprocess.crop_image(random_image(48, 48), COLOUR_CROP, (44, 44), never_resize)
        np.testing.assert_array_equal(face[..., 0], face[..., 2])


class TestToGray:
    def test_is_opencvs_within_one(self):
        image = random_image(300, 400, 3)
        opencvs = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        assert np.abs(preprocess.to_gray(image).astype(int) - opencvs).max() <= 1

    @pytest.mark.parametrize("value", [0, 1, 127, 255])
    def test_keeps_equal_channels(self, value):
        assert (preprocess.to_gray(np.full((2, 2, 3), value, np.uint8)) == value).all()

    def test_returns_a_gray_picture_as_it_is(self):
        image = random_image(5, 6)
        assert preprocess.to_gray(image) is image


class TestCrops:
    @given(st.integers(1, 60), st.integers(1, 60), st.data())
    def test_the_centre_crop_is_torchvisions(self, height, width, data):
        size_hw = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
        image = np.arange(height * width, dtype=np.uint32).reshape(height, width, 1)
        top, left = int(round((height - size_hw[0]) / 2.0)), int(round((width - size_hw[1]) / 2.0))  # noqa: RUF046
        expected = image[top : top + size_hw[0], left : left + size_hw[1]]
        np.testing.assert_array_equal(preprocess.center_crop(image, size_hw), expected)

    def test_the_centre_crop_takes_a_batch(self):
        images = random_image(3, 48, 48, 1)
        crops = preprocess.center_crop(images, (44, 44))
        for image, crop in zip(images, crops, strict=True):
            np.testing.assert_array_equal(crop, preprocess.center_crop(image, (44, 44)))

    def test_ten_crops_are_corners_centre_and_their_mirror_images(self):
        images = random_image(2, 48, 50, 3)
        crops = preprocess.ten_crops(images, (44, 46))
        assert crops.shape == (2, 10, 44, 46, 3)
        corners = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
        for image, ten in zip(images, crops, strict=True):
            views = [view[y : y + 44, x : x + 46] for view in (image, np.fliplr(image)) for y, x in corners]
            for crop, expected in zip(ten, views, strict=True):
                np.testing.assert_array_equal(crop, expected)


class TestToTensor:
    def test_scales_and_puts_channels_first(self):
        crops = random_image(2, 44, 44, 3)
        tensor = preprocess.to_tensor(crops, input_spec("rgb"))
        assert tensor.dtype == np.float32
        assert tensor.flags.c_contiguous
        np.testing.assert_allclose(tensor, crops.transpose(0, 3, 1, 2) / 255, atol=1e-6)

    def test_blue_green_red_nets_get_their_order(self):
        crops = random_image(1, 44, 44, 3)
        tensor = preprocess.to_tensor(crops, input_spec("bgr"))
        np.testing.assert_allclose(tensor[:, 0], crops[..., 2] / 255, atol=1e-6)

    @pytest.mark.parametrize(("mean", "std"), [(0.5, 0.25), (1.0, 1.0), (0.0, 2.0)])
    def test_mean_and_standard_deviation_apply_after_the_scale(self, mean, std):
        crops = random_image(1, 44, 44, 1)
        tensor = preprocess.to_tensor(crops, input_spec("gray", mean=mean, std=std))
        np.testing.assert_allclose(tensor[:, 0], (crops[..., 0] / 255 - mean) / std, atol=1e-5)

    def test_each_channel_has_its_own_mean(self):
        spec = InputSpec("input", (44, 44), "rgb", 1.0, (0.0, 10.0, 20.0), (1.0, 1.0, 2.0))
        tensor = preprocess.to_tensor(np.full((1, 44, 44, 1), 30, np.uint8), spec)
        np.testing.assert_array_equal(tensor[0, :, 0, 0], [30, 20, 5])

    @pytest.mark.parametrize("mean", [0.0, 0.5])
    def test_one_gray_channel_is_repeated_for_a_net_that_takes_three(self, mean):
        crops = random_image(2, 44, 44, 1)
        tensor = preprocess.to_tensor(crops, input_spec("rgb", mean=mean))
        assert tensor.shape == (2, 3, 44, 44)
        np.testing.assert_array_equal(tensor[:, 0], tensor[:, 2])

    def test_colour_is_refused_for_a_gray_net(self):
        with pytest.raises(ValueError, match="gray"):
            preprocess.to_tensor(random_image(1, 44, 44, 3), input_spec("gray"))


class TestToInput:
    def test_uint8_gray_crops_are_fed_as_they_are_without_a_copy(self):
        crops = random_image(2, 44, 44, 1)
        fed = preprocess.to_input(crops, replace(input_spec("gray", mean=0.5), element_type="uint8"))
        assert fed.dtype == np.uint8
        assert fed.shape == (2, 1, 44, 44)
        assert np.shares_memory(fed, crops)

    @pytest.mark.parametrize(("channels", "order"), [("rgb", [0, 1, 2]), ("bgr", [2, 1, 0])])
    def test_uint8_colours_come_in_the_nets_order(self, channels, order):
        crops = random_image(2, 44, 44, 3)
        fed = preprocess.to_input(crops, replace(input_spec(channels), element_type="uint8"))
        assert fed.flags.c_contiguous
        np.testing.assert_array_equal(fed, crops[..., order].transpose(0, 3, 1, 2))

    def test_uint8_gray_is_repeated_and_colour_refused_as_for_floats(self):
        fed = preprocess.to_input(random_image(1, 44, 44, 1), replace(input_spec("rgb"), element_type="uint8"))
        assert fed.shape == (1, 3, 44, 44)
        with pytest.raises(ValueError, match="gray"):
            preprocess.to_input(random_image(1, 44, 44, 3), replace(input_spec("gray"), element_type="uint8"))

    def test_floats_are_scaled(self):
        crops, spec = random_image(1, 44, 44, 1), input_spec("gray", mean=0.5)
        np.testing.assert_array_equal(preprocess.to_input(crops, spec), preprocess.to_tensor(crops, spec))


def test_softmax_sums_to_one_and_never_overflows() -> None:
    probabilities = preprocess.softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]], np.float32))
    np.testing.assert_allclose(probabilities, [[1, 0], [0.5, 0.5]])


def test_the_probabilities_of_several_views_are_averaged() -> None:
    views = np.log(np.array([[[0.9, 0.1]], [[0.5, 0.5]]], np.float32))
    np.testing.assert_allclose(np.exp(preprocess.log_mean_probabilities(views)), [[0.7, 0.3]], atol=1e-6)


def test_mirror_images_follow_the_crops() -> None:
    crops = random_image(2, 4, 6, 3)
    np.testing.assert_array_equal(preprocess.with_mirror_images(crops), [*crops, *crops[:, :, ::-1]])


@pytest.mark.parametrize(("fit", "expected"), [("square", [[30, 40]] * 2), ("stretch", [[15, 55]] * 2)])
def test_an_image_without_a_face_box_is_cut_or_stretched(fit: Fit, expected: list[list[int]]) -> None:
    image = np.array([[0, 10, 20, 30, 40, 50, 60, 70]] * 2, np.uint8)
    fitted = preprocess.fit_image(image, CropSpec(0.25, True, (2, 2), (2, 2), fit), resize)
    np.testing.assert_array_equal(fitted[..., 0], expected)


@pytest.mark.parametrize("shape", [(2, 8), (2, 8, 3)])
def test_an_image_without_a_face_box_is_padded_with_gray_above_and_below(shape: tuple[int, ...]) -> None:
    image = random_image(*shape)
    fitted = preprocess.fit_image(image, CropSpec(0.25, False, (8, 8), (8, 8), "pad"), never_resize)
    np.testing.assert_array_equal(fitted[3:5], image[..., ::-1] if image.ndim == 3 else np.stack([image] * 3, axis=2))
    assert (np.delete(fitted, [3, 4], axis=0) == 128).all()


def test_a_square_image_is_the_same_for_every_fit() -> None:
    image = random_image(60, 60)
    fits = [preprocess.fit_image(image, replace(COLOUR_CROP, fit=fit), resize) for fit in get_args(Fit)]
    assert all((each == fits[0]).all() for each in fits)


def test_the_central_part_is_what_a_face_box_of_the_whole_image_gives() -> None:
    for height, width in [(33, 100), (101, 64), (48, 49), (7, 5)]:
        image = random_image(height, width)
        cut = preprocess.crop_image(image, COLOUR_CROP, (44, 44), resize)
        box = preprocess.crop_face(image, (0, 0, width, height), COLOUR_CROP, (44, 44), resize)
        np.testing.assert_array_equal(cut, box)
