"""Camera augmentation: each effect has the drawn strength, and images that are not selected stay unchanged."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from edgekit.models.data.augment import Augmentation, augment, draw
from edgekit.models.data.camera import COLUMNS, Camera, photographed
from edgekit.models.training.recipes import RECIPES

# The columns of the random numbers of `photographed`.
GAMMA, GAIN, ANGLE, SHADING, START, BLUR, LOSS, DEVIATION, COMPRESSION = range(COLUMNS)
ALMOST_ONE = 1 - 1e-6


def smooth_image(side: int = 48) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    image: np.ndarray = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    return image


def taken(image: np.ndarray, camera: Camera, **values: float) -> Tensor:
    """Return an image (S, S) after camera augmentation; random numbers that `values` does not name are 0.5."""
    numbers = torch.full((1, COLUMNS), 0.5, dtype=torch.float64)
    for name, value in values.items():
        numbers[0, globals()[name]] = value
    return photographed(torch.from_numpy(image)[None, None], numbers, camera)[0, 0]


@pytest.mark.parametrize("side", [48, 44])  # 44 is not a multiple of the blocks' side
@pytest.mark.parametrize("quality", [20, 60, 90])
def test_compression_is_that_of_a_jpeg_file(quality: int, side: int) -> None:
    image = smooth_image(side)
    square = ((90 - quality) / 70) ** 0.5
    own = taken(image, Camera(1, least_quality=20), COMPRESSION=square) * 255
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    decoded = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE).astype(np.float32)
    inner = slice(0, 40)  # the encoder pads the image at its border in another way
    difference, change = (np.abs(decoded - other)[inner, inner] for other in (own.numpy(), image))
    # Coefficients halfway between two quantisation steps may be rounded differently.
    assert np.median(difference) < 0.5
    assert difference.mean() < 0.35 * change.mean()


def test_blur_is_a_gaussian_of_the_drawn_sigma() -> None:
    image = smooth_image()
    own = taken(image, Camera(1, blur_px=1.2), BLUR=ALMOST_ONE) * 255
    expected = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.2)
    assert np.abs(own.numpy() - expected)[6:-6, 6:-6].max() < 1.0
    assert torch.allclose(taken(image, Camera(1, blur_px=1.2), BLUR=0) * 255, torch.from_numpy(image).float())


def test_low_resolution_removes_detail_and_keeps_the_rest() -> None:
    fine, coarse = np.indices((48, 48)).sum(axis=0) % 2 * 200, np.indices((48, 48))[1] * 5
    camera = Camera(1, least_resolution=0.5)
    low = [taken(image.astype(np.uint8), camera, LOSS=ALMOST_ONE)[4:-4, 4:-4] * 255 for image in (fine, coarse)]
    assert float(low[0].std()) < 5
    assert np.abs(low[1].numpy() - coarse[4:-4, 4:-4]).max() < 1
    assert float((taken(fine.astype(np.uint8), camera, LOSS=0) * 255).std()) == pytest.approx(100, abs=0.5)


def test_noise_has_the_drawn_deviation_and_differs_between_images_and_channels() -> None:
    gray = torch.full((2, 3, 48, 48), 128, dtype=torch.uint8)
    numbers = torch.full((2, COLUMNS), 0.5)
    numbers[:, DEVIATION] = 0.5**0.5
    numbers[1, START] = 0.6
    noise = photographed(gray, numbers, Camera(1, noise=0.04)) - 128 / 255
    assert noise.std().item() == pytest.approx(0.02, rel=0.05)
    assert abs(float(torch.corrcoef(noise.flatten(end_dim=1).flatten(1)).fill_diagonal_(0).abs().max())) < 0.1
    again = photographed(gray, numbers, Camera(1, noise=0.04)) - 128 / 255
    assert torch.equal(noise, again)


def test_light_changes_by_gamma_gain_and_a_gradient() -> None:
    image = np.full((48, 48), 102, np.uint8)  # 0.4 of white
    camera = Camera(1, gamma=0.6)
    assert float(taken(image, camera, GAMMA=1)[0, 0]) == pytest.approx(0.4**1.6)
    assert float(taken(image, camera, GAMMA=0)[0, 0]) == pytest.approx(0.4 ** (1 / 1.6))
    assert float(taken(image, Camera(1, gain=0.2), GAIN=1)[0, 0]) == pytest.approx(0.4 * 1.2)
    assert float(taken(image, Camera(1, gain=0.2), GAIN=0)[0, 0]) == pytest.approx(0.4 * 0.8)
    shaded = taken(image, Camera(1, shading=0.3), SHADING=1, ANGLE=0)
    assert shaded[:, 0].tolist() == pytest.approx([0.4 * 0.7] * 48)
    assert shaded[0, -1].item() == pytest.approx(0.4 * 1.3)
    down = taken(image, Camera(1, shading=0.3), SHADING=1, ANGLE=0.25)
    assert torch.allclose(down, shaded.T, atol=1e-6)
    assert float(taken(np.full((48, 48), 255, np.uint8), Camera(1, gain=0.2), GAIN=1).max()) == 1


def test_framing_is_off_by_as_much_as_a_detector() -> None:
    image = torch.zeros(4000, 1, 48, 48, dtype=torch.uint8)
    image[..., 23:25, 23:25] = 255
    numbers = draw(4000, torch.Generator().manual_seed(0), Augmentation(44, camera=Camera(1)))
    spots = []
    for camera in (Camera(1), Camera(1, framing_shift=0.06), Camera(1, framing_scale=0.08)):
        crops = augment(image, numbers, Augmentation(44, flip=False, camera=camera))[:, 0]
        mass = crops / crops.sum(dim=(1, 2), keepdim=True)
        spots.append((mass.sum(dim=1) * torch.arange(44)).sum(dim=1) - 21.5)
    plain, shifted, scaled = spots
    assert float(plain.abs().max()) == pytest.approx(2, abs=0.05)  # the random crop: 48 to 44 px
    assert float(shifted.abs().max()) == pytest.approx(2 + 0.06 * 48, abs=0.05)
    assert float(scaled.abs().max()) == pytest.approx(2 / 0.92, abs=0.05)


def test_half_of_the_images_are_plain_and_draw_the_numbers_of_a_recipe_without_camera() -> None:
    images = torch.from_numpy(smooth_image())[None, None].expand(400, -1, -1, -1).contiguous()
    recipe = RECIPES["camera"]
    last = recipe.stage(recipe.epochs - 1)[0].plain_augmentation
    assert last == Augmentation(crop_px=44)
    numbers, plain = (draw(400, torch.Generator().manual_seed(0), each) for each in (recipe.plain_augmentation, last))
    assert torch.equal(numbers[:, : plain.shape[1]], plain)
    same = (augment(images, numbers, recipe.plain_augmentation) == augment(images, plain, last)).all(dim=(1, 2, 3))
    assert 0.4 < float(same.float().mean()) < 0.6


def test_a_batch_may_have_no_image_for_the_camera() -> None:
    """The last batch of an epoch can have a single image."""
    recipe = RECIPES["camera"].plain_augmentation
    numbers = draw(1, torch.Generator(), recipe)
    assert recipe.camera is not None
    numbers[:, -COLUMNS - 1] = recipe.camera.probability
    images = torch.from_numpy(smooth_image())[None, None]
    plain = augment(images, numbers[:, : -COLUMNS - 1], replace(recipe, camera=None))
    assert torch.equal(augment(images, numbers, recipe), plain)


def test_an_image_does_not_depend_on_the_others_in_its_batch() -> None:
    augmentation = RECIPES["camera"].plain_augmentation
    images = torch.from_numpy(smooth_image())[None, None].expand(16, 3, -1, -1).contiguous()
    numbers = draw(16, torch.Generator().manual_seed(0), augmentation)
    whole = augment(images, numbers, augmentation)
    parts = [augment(images[rank::2], numbers[rank::2], augmentation) for rank in range(2)]
    # A coefficient that is rounded differently changes a block by less than 0.05.
    torch.testing.assert_close(torch.stack(parts, dim=1).flatten(0, 1), whole, rtol=0, atol=0.05)
    assert float((torch.stack(parts, dim=1).flatten(0, 1) - whole).abs().mean()) < 1e-4
