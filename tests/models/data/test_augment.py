"""Augmentation of batches: crops, mirroring, rotation, brightness, contrast and cutout."""

from __future__ import annotations

import torch

from edgekit.models.data.augment import Augmentation, ResizedCrop, augment, draw

IMAGES = torch.arange(6 * 48 * 48).reshape(6, 1, 48, 48).remainder(251).to(torch.uint8)


def _numbers(count: int = 6, seed: int = 0) -> torch.Tensor:
    return draw(count, torch.Generator().manual_seed(seed), Augmentation(crop_px=44))


def test_random_crops_are_cut_from_the_image() -> None:
    crops = augment(IMAGES, _numbers(), Augmentation(crop_px=44, flip=False))
    for image, crop in zip(IMAGES, crops, strict=True):
        windows = image[0].float().mul(1 / 255).unfold(0, 44, 1).unfold(1, 44, 1)  # (5, 5, 44, 44)
        assert bool((windows == crop[0]).all(dim=(2, 3)).any())


def test_half_of_the_images_are_mirrored() -> None:
    images = IMAGES[:1, :, 2:46, 2:46].expand(2000, -1, -1, -1)
    crops = augment(images, _numbers(2000), Augmentation(crop_px=44))
    plain = images[0].float() * (1 / 255)
    same = (crops == plain).all(dim=(1, 2, 3))
    mirrored = (crops == plain.flip(-1)).all(dim=(1, 2, 3))
    assert bool((same | mirrored).all())
    assert 900 < int(mirrored.sum()) < 1100


def test_affine_without_moves_is_the_plain_crop() -> None:
    numbers = torch.full((6, 11), 0.5)  # no rotation, no zoom, centred, not mirrored
    crops = augment(IMAGES, numbers, Augmentation(crop_px=44, rotation_deg=10, scale=0.1))
    torch.testing.assert_close(crops, IMAGES[:, :, 2:46, 2:46] / 255, rtol=0, atol=1e-4)


def test_rotation_turns_by_the_drawn_angle() -> None:
    image = torch.zeros(1, 1, 48, 48, dtype=torch.uint8)
    image[0, 0, 23:25, 24:44] = 255  # from the centre to the right
    numbers = torch.full((1, 11), 0.5)
    numbers[0, 3] = 1.0
    crop = augment(image, numbers, Augmentation(crop_px=48, flip=False, rotation_deg=90))
    assert float(crop[0, 0, 4:20, 23:25].mean() + crop[0, 0, 28:44, 23:25].mean()) > 0.9
    assert float(crop[0, 0, 23:25, 30:44].mean()) < 0.1


def test_resized_crops_show_parts_of_the_image_in_the_size_of_the_crop() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).expand(50, 3, 64, 64)
    augmentation = Augmentation(crop_px=32, resized=ResizedCrop(min_area=0.25, max_ratio=1.0))
    crops = augment(ramp, draw(50, torch.Generator().manual_seed(0), augmentation), augmentation)
    assert crops.shape == (50, 3, 32, 32)
    shown = (crops[:, 0, 0, -1] - crops[:, 0, 0, 0]) * 255 / 64  # share of the width; negative: mirrored
    assert 0.45 < shown.abs().min() < 0.6
    assert 0.9 < shown.abs().max() <= 1
    assert 10 < (shown < 0).sum() < 40


def test_brightness_and_contrast_stay_in_range() -> None:
    crops = augment(IMAGES, _numbers(), Augmentation(crop_px=44, brightness=0.5, contrast=0.9))
    assert float(crops.min()) >= 0
    assert float(crops.max()) <= 1
    assert not torch.equal(crops, augment(IMAGES, _numbers(), Augmentation(crop_px=44)))


def test_cutout_changes_the_configured_share_of_images() -> None:
    white = torch.full((2000, 1, 48, 48), 255, dtype=torch.uint8)
    crops = augment(white, _numbers(2000), Augmentation(crop_px=44, cutout_px=12, cutout_probability=0.5))
    holes = (crops == 0).sum(dim=(1, 2, 3))
    assert 0.45 < float((holes > 0).float().mean()) < 0.55
    assert int(holes.max()) == 144


def test_parts_of_a_batch_equal_the_whole_batch() -> None:
    settings = Augmentation(crop_px=44, rotation_deg=10, scale=0.1, brightness=0.1, cutout_px=8, cutout_probability=0.5)
    numbers = _numbers()
    whole = augment(IMAGES, numbers, settings)
    parts = [augment(IMAGES[rank::2], numbers[rank::2], settings) for rank in range(2)]
    torch.testing.assert_close(torch.stack(parts, dim=1).flatten(0, 1), whole, rtol=0, atol=0)
