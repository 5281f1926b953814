"""Contact sheets: one PNG per class with some of its images, for inspection."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import InputError
from edgekit.files import atomic_path, check_writable, real_path
from edgekit.models.data.check import MAX_BLANKS, SAMPLE, Findings, Record, Scan
from edgekit.models.data.pixels import stack
from edgekit.preprocess import ImageU8

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

Mark = tuple[str, tuple[int, int, int]]

_TILES = 10
_TILE_PX = 72
_GAP_PX = 6
_MARGIN_PX = 20
_CAPTION_PX = 64
_LEGEND_PX = 30
_PAPER = (250, 250, 248)
_INK = (30, 30, 30)
_FAINT = (110, 110, 110)
_BLANK = ("blank", (214, 39, 40))
_CONFLICTING = ("same image with another label", (255, 127, 14))
_CROSSING = ("same image in another split", (31, 119, 180))
_LONGEST_CAPTION = 40


def check_sheet_folder(folder: Path, data: Path | None) -> None:
    """Check that contact sheets of `data` can be written to `folder`, before any image is read. Nothing is created.

    Raises:
        InputError: `folder` is a file, or lies in the folder `data`: the sheets would be images of the data.
        StorageError: `folder` cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"'{folder}' is a file: name a folder for the contact sheets")
    if data is not None and data.is_dir() and real_path(folder).is_relative_to(real_path(data)):
        raise InputError(f"'{folder}' lies in the data '{data}', where sheets would be images: name another folder")
    check_writable(folder / "0.png")


def save_sheets(scan: Scan, findings: Findings, folder: Path) -> list[Path]:
    """Draw one PNG per class in `folder`, which is created, and return the paths in label order.

    Each PNG shows up to 100 random images, blank ones last. Images with a fault have a coloured border.

    Raises:
        StorageError: A file cannot be written.
    """
    conflicting, crossing = (
        {record.digest for group in groups for record in group} for groups in (findings.conflicting, findings.crossing)
    )
    paths = []
    for number, class_name in enumerate(scan.classes):
        shown = [index for index in scan.thumbnails if scan.records[index].class_name == class_name]
        sound = [index for index in shown if not scan.records[index].is_blank]
        blank = [index for index in shown if scan.records[index].is_blank][:MAX_BLANKS]
        order = [*sound[: SAMPLE - len(blank)], *blank]
        tiles = [(scan.thumbnails[index], _mark(scan.records[index], conflicting, crossing)) for index in order]
        counts = {split: findings.counts[split][class_name] for split in scan.splits}
        paths.append(sheet_path(folder, number, class_name))
        parts = "   ".join(f"{caption(split)} {count:,}" for split, count in counts.items())
        subtitle = f"{sum(counts.values()):,} images:   {parts}"
        save_sheet(paths[-1], class_name, subtitle, tiles, (_BLANK, _CONFLICTING, _CROSSING))
    return paths


def _mark(record: Record, conflicting: set[bytes], crossing: set[bytes]) -> Mark | None:
    if record.is_blank:
        return _BLANK
    if record.digest in conflicting:
        return _CONFLICTING
    return _CROSSING if record.digest in crossing else None


def sheet_path(folder: Path, number: int, class_name: str) -> Path:
    """Return the path of the sheet of a class."""
    plain = re.sub(r"[^\w.-]+", "_", class_name)[:_LONGEST_CAPTION]
    return folder / f"{number}-{plain}.png"


def save_sheet(
    path: Path, title: str, subtitle: str, tiles: Sequence[tuple[ImageU8, Mark | None]], legend: Sequence[Mark]
) -> None:
    """Draw one contact sheet: rows of images uint8 (H, W, 1 or 3 RGB), with a border in the colour of a mark.

    The marks of `legend` that occur are explained below the images.

    Raises:
        StorageError: The file cannot be written.
    """
    from PIL import Image, ImageDraw

    step = _TILE_PX + _GAP_PX
    rows = max(-(-len(tiles) // _TILES), 1)
    marks = [mark for mark in legend if any(found == mark for _, found in tiles)]
    top = _MARGIN_PX + _CAPTION_PX
    width = 2 * _MARGIN_PX + _TILES * step - _GAP_PX
    height = top + rows * step - _GAP_PX + _MARGIN_PX + (_LEGEND_PX if marks else 0)
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN_PX, _MARGIN_PX - 6), caption(title), fill=_INK, font=_font(26))
    pen.text((_MARGIN_PX, _MARGIN_PX + 30), subtitle, fill=_FAINT, font=_font(15))
    for number, (thumbnail, mark) in enumerate(tiles):
        x = _MARGIN_PX + number % _TILES * step
        y = top + number // _TILES * step
        if mark:
            pen.rectangle((x - 2, y - 2, x + _TILE_PX + 1, y + _TILE_PX + 1), fill=mark[1])
        tile = Image.fromarray(stack([thumbnail], gray=False)[0]).resize((_TILE_PX, _TILE_PX), Image.Resampling.BICUBIC)
        sheet.paste(tile, (x, y))
    x = _MARGIN_PX
    for text, colour in marks:
        y = height - _MARGIN_PX - 14
        pen.rectangle((x, y, x + 13, y + 13), fill=colour)
        pen.text((x + 20, y - 2), text, fill=_FAINT, font=_font(14))
        x += 44 + round(pen.textlength(text, font=_font(14)))
    with atomic_path(path) as temporary:
        sheet.save(temporary, optimize=True)


def caption(text: str) -> str:
    """Return a name from the data as one printable line of limited length."""
    safe = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return safe if len(safe) <= _LONGEST_CAPTION else f"{safe[: _LONGEST_CAPTION - 1]}…"


@functools.cache
def _font(size_px: int) -> FreeTypeFont:
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size_px)
