"""Contact sheets: rows of pictures with a caption, as one PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

SIDE = 192  # pixels of a cell
GAP, LINE = 8, 18
INK, FAINT, PAPER = "#222222", "#888888", "#ffffff"


@dataclass(frozen=True)
class SheetRow:
    """Pictures side by side and what to say about them; a missing picture leaves its place empty."""

    caption: str
    pictures: Sequence[Image.Image | None]
    faint: bool = False


def contact_sheet(columns: Sequence[str], rows: Sequence[SheetRow], side: int = SIDE) -> Image.Image:
    """One picture with a heading over each column and a caption under each row; pictures are `side` pixels large."""
    pitch = side + GAP
    sheet = Image.new("RGB", (len(columns) * pitch + GAP, LINE + GAP + len(rows) * (pitch + LINE)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for index, name in enumerate(columns):
        draw.text((GAP + index * pitch, GAP // 2), name, FAINT, font)
    for row_index, row in enumerate(rows):
        top = LINE + GAP + row_index * (pitch + LINE)
        for index, picture in enumerate(row.pictures):
            if picture is not None:
                sheet.paste(_cell(picture, side, row.faint), (GAP + index * pitch, top))
        draw.text((GAP, top + side + 2), _fitting(row.caption, draw, font, sheet.width - 2 * GAP), INK, font)
    return sheet


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def _cell(picture: Image.Image, side: int, faint: bool) -> Image.Image:
    """A picture in its cell; small ones are enlarged with their pixels showing, instead of blurred."""
    small = max(picture.size) * 2 <= side
    how = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    cell = ImageOps.pad(picture.convert("RGB"), (side, side), how, color=PAPER)
    return Image.blend(cell, Image.new("RGB", cell.size, PAPER), 0.6) if faint else cell


def _fitting(
    text: str, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int
) -> str:
    while draw.textlength(text, font) > width:
        text = text.removesuffix("…")[:-1] + "…"
    return text
