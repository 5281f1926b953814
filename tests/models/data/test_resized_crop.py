"""Random resized crops: position, area, aspect ratio and mirroring."""

from __future__ import annotations

import torch

from edgekit.models.data.augment import ResizedCrop, draw_crops, resized_crops

WHOLE = torch.tensor([[1.0, 0.5, 0.5, 0.5, 0.9]])  # all of the area, square, not mirrored


def ramp(side: int) -> torch.Tensor:
    """Return a picture whose values increase from left to right."""
    return torch.linspace(0, 255, side).round().to(torch.uint8).expand(1, 1, side, side).contiguous()


def test_the_whole_picture_stays_as_it_is_or_is_mirrored() -> None:
    picture = ramp(16)
    whole = resized_crops(picture, WHOLE, ResizedCrop(), 16)
    torch.testing.assert_close(whole, picture / 255, atol=1e-5, rtol=0)
    mirrored = WHOLE.clone()
    mirrored[0, 4] = 0.1
    torch.testing.assert_close(resized_crops(picture, mirrored, ResizedCrop(), 16), whole.flip(3), atol=1e-5, rtol=0)


def test_a_part_lies_at_the_position_of_its_numbers() -> None:
    numbers = torch.tensor([[0.0, 0.5, 0.0, 0.0, 0.9]])  # the smallest, square, top left
    quarter = resized_crops(ramp(64), numbers, ResizedCrop(min_area=0.25), 32)
    torch.testing.assert_close(quarter, ramp(64)[..., :32, :32] / 255, atol=1e-5, rtol=0)


def test_narrow_parts_keep_their_area_and_all_parts_stay_inside() -> None:
    numbers = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.9]])  # wide: its ratio is 4
    wide = resized_crops(ramp(64), numbers, ResizedCrop(min_area=0.25, max_ratio=4), 8)
    assert 0.9 < float(wide[0, 0, 0, -1]) <= 1  # as wide as the picture
    generator = torch.Generator().manual_seed(0)
    drawn = draw_crops(50, generator)
    assert drawn.shape == (50, 5)
    parts = resized_crops(ramp(64).expand(50, -1, -1, -1), drawn, ResizedCrop(), 8)
    assert parts.shape == (50, 1, 8, 8)
    assert 0 <= float(parts.min()) <= float(parts.max()) <= 1
    assert float(parts.std(dim=0).mean()) > 0.1
