"""Transfer matrix as a picture: a cell for each run and test set, the darker the higher its mAP."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from vireid.evaluation.transfer_matrix import SHOWN, Cell, TransferMatrix
from vireid.figures.fonts import Font, chinese_file, font, readable, width, wrap
from vireid.system import replacing

SCALE = 2  # pixels per unit below: sharp on dense screens and in print
MARGIN, CELL, LINE, GAP = 20, (132, 56), 15, 3
LABEL = 200  # of a row, at most
INK, FAINT, PAPER, FRAME = (28, 32, 38), (104, 112, 122), (255, 255, 255), (205, 120, 0)
LIGHT, DARK = (236, 242, 250), (12, 60, 120)  # mAP of 0 and of 1
TITLE = "Trained on (rows), tested on (columns)"
NOTE = f"percent: {' / '.join(SHOWN)}; color: mAP; framed: the data that the run was trained on"


def draw_transfer(matrix: TransferMatrix, path: Path) -> Path:
    """Write the matrix as PNG and return the path."""
    with replacing(path) as partial:
        _Sheet(matrix).draw().save(partial, format="PNG", dpi=(72 * SCALE * 2, 72 * SCALE * 2))
    return path


def shade(share: float) -> tuple[int, int, int]:
    """The color of a share from 0 to 1.

    >>> shade(0.0), shade(1.0)
    ((236, 242, 250), (12, 60, 120))
    """
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(LIGHT, DARK, strict=True))
    return red, green, blue


class _Sheet:
    """Sizes, fonts and places of one picture."""

    def __init__(self, matrix: TransferMatrix) -> None:
        self.matrix, self.chinese = matrix, chinese_file()
        self.title, self.text, self.small = (font(SCALE * size, self.chinese) for size in (15, 12, 10))
        wide = SCALE * (CELL[0] - 12)
        self.heads = [
            [*self.lines(data, self.text, wide), *self.lines(protocol.partition("/")[2], self.small, wide)]
            for data, protocol in matrix.columns
        ]
        self.sides = [
            [*self.lines(trained_on, self.text, SCALE * LABEL), *self.lines(run, self.small, SCALE * LABEL)]
            for trained_on, run in matrix.rows
        ]
        self.left = SCALE * (MARGIN + 12) + max(width(text, chosen) for side in self.sides for text, chosen in side)
        self.top = SCALE * (MARGIN + 34 + LINE * max(map(len, self.heads)))
        self.steps = [SCALE * (side + GAP) for side in CELL]

    def lines(self, text: str, chosen: Font, max_width: int) -> list[tuple[str, Font]]:
        return [(line, chosen) for line in wrap(readable(text, self.chinese), chosen, max_width)]

    def draw(self) -> Image.Image:
        rows, columns = len(self.matrix.rows), len(self.matrix.columns) + 1  # the last one holds milliseconds
        right, bottom = self.left + columns * self.steps[0], self.top + rows * self.steps[1]
        note = wrap(NOTE, self.small, right - SCALE * MARGIN)
        right = max(right, SCALE * 2 * MARGIN + width(TITLE, self.title))
        self.sheet = Image.new("RGB", (right + SCALE * MARGIN, bottom + SCALE * (MARGIN + LINE * len(note))), PAPER)
        self.pen = ImageDraw.Draw(self.sheet)
        self.write(SCALE * MARGIN, SCALE * MARGIN, [(TITLE, self.title)], INK)
        for column, head in enumerate([*self.heads, [("ms per picture", self.text)]]):
            self.write(self.left + column * self.steps[0], self.top - SCALE * (LINE * len(head) + 4), head, FAINT)
        for number, (row, side) in enumerate(zip(self.matrix.rows, self.sides, strict=True)):
            top, cells = self.top + number * self.steps[1], self.matrix.row(*row)
            self.write(SCALE * MARGIN, top + (self.steps[1] - SCALE * LINE * len(side)) // 2, side, INK)
            for column, cell in enumerate(cells):
                self.cell(self.left + column * self.steps[0], top, cell)
            middle = top + (self.steps[1] - SCALE * LINE) // 2
            self.write(self.left + len(cells) * self.steps[0], middle, [(f"{cells[0].ms:.2f}", self.text)], INK)
        self.write(SCALE * MARGIN, bottom + SCALE * 8, [(line, self.small) for line in note], FAINT)
        return self.sheet

    def cell(self, left: int, top: int, cell: Cell) -> None:
        """A colored field with rank 1 and mAP, framed where the data is the run's own."""
        share = cell.mean.get("mAP")
        box = (left, top, left + SCALE * CELL[0] - 1, top + SCALE * CELL[1] - 1)
        fill, ink = (PAPER, FAINT) if share is None else (shade(share), PAPER if share > 0.6 else INK)
        self.pen.rectangle(box, fill=fill, outline=FRAME if cell.own else None, width=2 * SCALE)
        place = left + (SCALE * CELL[0] - width(cell.figures, self.text)) // 2
        middle = top + SCALE * (CELL[1] - LINE) // 2
        self.write(place, middle, [(cell.figures, self.text)], ink)

    def write(self, left: int, top: int, lines: list[tuple[str, Font]], color: tuple[int, int, int]) -> None:
        for number, (text, chosen) in enumerate(lines):
            self.pen.text((left, top + number * SCALE * LINE), text, fill=color, font=chosen)
