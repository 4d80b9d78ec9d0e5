"""Contact sheets: small images of items with their titles, as one picture."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from catalog.catalog import Catalog

CELL, GAP, LINE, LINES = 144, 12, 15, 2
"""Pixels: side of an image, between images, height of a line of a title, and lines of it."""
COLUMNS = 8
PAPER, INK, EMPTY, SOFT = "#faf8f4", "#24292b", "#efeae0", "#5e6462"
FONT_SIZE = 12


def contact_sheet(catalog: Catalog, items: Sequence[int], columns: int = COLUMNS) -> Image.Image:
    """Images of `items`, row by row, each above its title; an empty frame where there is no image."""
    columns = max(1, min(columns, len(items)))
    rows = -(-len(items) // columns)
    high = CELL + LINES * LINE + GAP
    size = columns * (CELL + GAP) + GAP, rows * (high + GAP) + GAP
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    for place, item in enumerate(items):
        left = GAP + place % columns * (CELL + GAP)
        top = GAP + place // columns * (high + GAP)
        _draw_image(sheet, pen, font, catalog, item, (left, top))
        for number, line in enumerate(_lines(pen, font, _title(catalog, item))):
            at = (left, top + CELL + 5 + number * LINE)
            pen.text(at, line, fill=INK, font=font)
    return sheet


def _draw_image(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    catalog: Catalog,
    item: int,
    corner: tuple[int, int],
) -> None:
    pixels = catalog.item_image(item, CELL)
    if pixels is not None:
        sheet.paste(Image.fromarray(pixels), corner)
        return
    left, top = corner
    pen.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=EMPTY)
    middle = (left + CELL // 2, top + CELL // 2)
    pen.text(middle, "no image", fill=SOFT, font=font, anchor="mm")


def _title(catalog: Catalog, item: int) -> str:
    row = catalog.items[item]
    return " ".join((row["title"] or row["text"] or row["item_id"]).split())


def _lines(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    text: str,
) -> list[str]:
    """The beginning of a text in at most `LINES` lines of a cell's width."""
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < LINES:
        line = words.pop(0)
        while words and pen.textlength(f"{line} {words[0]}", font) <= CELL:
            line = f"{line} {words.pop(0)}"
        if (words and len(lines) == LINES - 1) or pen.textlength(line, font) > CELL:
            while len(line) > 1 and pen.textlength(f"{line}…", font) > CELL:
                line = line[:-1]
            line += "…"
        lines.append(line)
    return lines
