"""Ranked lists: query pictures with their nearest gallery pictures, right or wrong framed, as one image.

Right and wrong differ in frame color and in a mark (tick, cross), so the picture can be read without color vision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vireid.data.table import Table
from vireid.errors import ArgumentError
from vireid.figures.fonts import INSTALL, Font, chinese_file, font, readable, width, wrap
from vireid.figures.stamp_words import said_in
from vireid.images import read, resize
from vireid.system import replacing
from vireid.types import MODALITIES, Language

SCALE = 2  # pixels per unit below: sharp on dense screens and in print
MARGIN, GAP, AFTER_QUERY, LINE = 20, 8, 22, 15
FRAME = 4
INK, FAINT, PAPER = (28, 32, 38), (104, 112, 122), (255, 255, 255)
QUERY, RIGHT, WRONG = (72, 80, 92), (0, 128, 84), (205, 44, 28)
WORDS = {
    "en": {
        "title": "Ranked lists",
        "query": "query",
        "camera": "cam",
        "visible": "visible",
        "infrared": "infrared",
        "identity": "person",
        "right": "same person",
        "wrong": "another person",
        "similarity": "number: similarity",
    },
    "zh": {
        "title": "检索排序结果",
        "query": "查询",
        "camera": "摄像头",
        "visible": "可见光",
        "infrared": "红外",
        "identity": "行人",
        "right": "同一人",
        "wrong": "不同的人",
        "similarity": "数字：相似度",
    },
}


@dataclass(frozen=True)
class Drawn:
    """The file that was written, the language of its words, and a note where that is not the requested one."""

    path: Path
    lang: str
    note: str = ""


def choose_queries(table: Table, queries: np.ndarray, ranked: np.ndarray, count: int = 8) -> np.ndarray:
    """`count` places (n,) in `queries`: half with a right first image, half with a wrong one, of different people.

    `queries` (Q,) and `ranked` (Q, k) are rows of the table, -1 where a list is shorter. The choice depends on nothing
    else, so that the same evaluation shows the same queries; right ones come first.
    """
    if count < 1:
        raise ArgumentError(f"a picture of ranked lists needs at least 1 query, got {count}")
    usable = np.flatnonzero((ranked >= 0).any(axis=1))
    right = table.pid[ranked[usable, 0]] == table.pid[queries[usable]]
    kinds = [spread(table, queries, usable[right]), spread(table, queries, usable[~right])]
    share = [min(len(kinds[0]), (count + 1) // 2), min(len(kinds[1]), count // 2)]
    share[0] = min(len(kinds[0]), count - share[1])
    share[1] = min(len(kinds[1]), count - share[0])
    return np.concatenate([_even(kind, n) for kind, n in zip(kinds, share, strict=True)]).astype(np.int64)


def spread(table: Table, queries: np.ndarray, places: np.ndarray, enough: int = 8) -> np.ndarray:
    """One place per identity, or, where that makes fewer than `enough`, one of each first, then a second, and so on.

    Within a turn the order of `places` (n,) is kept; they are places in `queries` (Q,).
    """
    pid = table.pid[queries[places]]
    order = np.argsort(pid, kind="stable")
    starts = np.r_[True, pid[order][1:] != pid[order][:-1]] if len(order) else np.zeros(0, bool)
    turn = np.empty(len(places), dtype=np.int64)
    turn[order] = np.arange(len(order)) - np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
    once = places[turn == 0]
    return once if len(once) >= enough else places[np.argsort(turn, kind="stable")]


def _even(places: np.ndarray, count: int) -> np.ndarray:
    """`count` of the places at even steps."""
    return places[np.linspace(0, len(places), count, endpoint=False).astype(np.int64)] if count else places[:0]


def ranked_list(
    table: Table,
    queries: np.ndarray,
    ranked: np.ndarray,
    similarity: np.ndarray,
    path: Path | str,
    *,
    title: str = "",
    stamp: Mapping[str, str] | None = None,
    lang: Language = "en",
    picture: tuple[int, int] = (144, 72),
) -> Drawn:
    """Write a picture of ranked lists: a row per query, the query first, then its nearest images from left to right.

    `queries` (Q,) and `ranked` (Q, k) are rows of the table (-1: none there), `similarity` (Q, k) what they were ranked
    by; `picture` is the height and width of one image in units of two pixels. Where this machine has no Chinese font
    the words are English and the returned note says so. Raises PictureError for an unreadable picture, ValueError for
    arrays that do not fit together.
    """
    if lang not in WORDS:
        raise ArgumentError(f"lang is one of {', '.join(WORDS)}, got {lang!r}")
    if ranked.ndim != 2 or ranked.shape != similarity.shape or len(queries) != len(ranked) or not ranked.size:
        raise ArgumentError(
            "expected queries (Q,), ranked and similarity (Q, k), got "
            f"{queries.shape}, {ranked.shape}, {similarity.shape}"
        )
    chinese, note = chinese_file(), ""
    if lang == "zh" and chinese is None:
        lang, note = "en", f"the words are English: no Chinese font was found; {INSTALL}"
    sheet = _Sheet(table, lang, chinese, picture, ranked.shape)
    image = sheet.draw(queries, ranked, similarity, title, stamp or {})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        image.save(partial, format="PNG", dpi=(72 * SCALE * 2, 72 * SCALE * 2))
    return Drawn(path, lang, note)


class _Sheet:
    """Sizes, fonts and words of one picture."""

    def __init__(
        self, table: Table, lang: Language, chinese: Path | None, picture: tuple[int, int], shape: tuple[int, ...]
    ) -> None:
        self.table, self.words, self.chinese, self.translated = table, WORDS[lang], chinese, said_in(lang)
        self.height, self.width = (SCALE * side for side in picture)
        self.rows, self.columns = shape
        self.step = self.width + SCALE * (GAP + 2 * FRAME)
        self.left = SCALE * (MARGIN + FRAME)
        self.right = self.left + self.step + SCALE * AFTER_QUERY + self.columns * self.step - SCALE * (GAP + FRAME)
        self.title, self.text, self.small = (font(SCALE * size, chinese) for size in (17, 11, 10))

    def draw(
        self, queries: np.ndarray, ranked: np.ndarray, similarity: np.ndarray, title: str, stamp: Mapping[str, str]
    ) -> Image.Image:
        caption = wrap(
            self.legible(
                "; ".join(f"{self.translated(name)}: {self.translated(value)}" for name, value in stamp.items())
            ),
            self.small,
            self.right - SCALE * MARGIN,
        )
        row = self.height + SCALE * (2 * FRAME + 2 * LINE + 16)
        top = SCALE * (MARGIN + 52)
        bottom = top + self.rows * row
        size = (self.right + SCALE * MARGIN, bottom + SCALE * (10 + LINE * len(caption) + MARGIN))
        self.sheet = Image.new("RGB", size, PAPER)
        self.pen = ImageDraw.Draw(self.sheet)
        self.write((SCALE * MARGIN, SCALE * MARGIN), title or self.words["title"], self.title, INK)
        self.legend(SCALE * (MARGIN + 3))
        heading = top - SCALE * (LINE + 6)
        self.write((self.left, heading), self.words["query"], self.text, FAINT)
        for rank in range(self.columns):
            self.write((self.place(rank), heading), str(rank + 1), self.text, FAINT)
        for index, query in enumerate(queries):
            self.row(top + index * row, int(query), ranked[index], similarity[index])
        if caption:
            self.pen.line((SCALE * MARGIN, bottom, self.right, bottom), fill=(214, 218, 223), width=SCALE)
        for number, line in enumerate(caption):
            self.write((SCALE * MARGIN, bottom + SCALE * (8 + LINE * number)), line, self.small, FAINT)
        return self.sheet

    def row(self, top: int, query: int, ranked: np.ndarray, similarity: np.ndarray) -> None:
        pid = int(self.table.pid[query])
        self.picture(self.left, top, query, QUERY)
        below = top + self.height + SCALE * (FRAME + 4)
        self.write((self.left, below), f"{self.words['identity']} {pid}", self.small, INK)
        self.write((self.left, below + SCALE * LINE), self.where(query), self.small, FAINT)
        for rank, (gallery, value) in enumerate(zip(ranked.tolist(), similarity.tolist(), strict=True)):
            if gallery < 0:
                continue
            right = int(self.table.pid[gallery]) == pid
            left = self.place(rank)
            self.picture(left, top, gallery, RIGHT if right else WRONG)
            self.badge(left + self.width - SCALE * 4, top + SCALE * 4, right)
            self.write((left, below), f"{value:.3f}", self.small, INK)
            self.write((left, below + SCALE * LINE), self.where(gallery), self.small, FAINT)

    def place(self, rank: int) -> int:
        """Left edge of the gallery picture at this rank (from 0)."""
        return self.left + self.step * (rank + 1) + SCALE * AFTER_QUERY

    def where(self, row: int) -> str:
        """Camera and modality in words."""
        return f"{self.words['camera']} {self.table.camid[row]} {self.words[MODALITIES[self.table.modality[row]]]}"

    def picture(self, left: int, top: int, row: int, color: tuple[int, int, int]) -> None:
        frame = SCALE * FRAME
        self.pen.rectangle(
            (left - frame, top - frame, left + self.width + frame - 1, top + self.height + frame - 1), fill=color
        )
        path = self.table.full_path(row)
        self.sheet.paste(Image.fromarray(resize(read(path), (self.height, self.width))), (left, top))

    def badge(self, x: int, y: int, right: bool) -> None:
        """A disk with a tick or a cross, its center at (x, y)."""
        r = SCALE * 9
        self.pen.ellipse((x - r, y - r, x + r, y + r), fill=RIGHT if right else WRONG, outline=PAPER, width=SCALE)
        u, pen = SCALE, 2 * SCALE
        if right:
            self.pen.line(
                ((x - 4 * u, y + u // 2), (x - u, y + 3 * u), (x + 4 * u, y - 3 * u)), PAPER, pen, joint="curve"
            )
        else:
            self.pen.line(((x - 3 * u, y - 3 * u), (x + 3 * u, y + 3 * u)), PAPER, pen)
            self.pen.line(((x - 3 * u, y + 3 * u), (x + 3 * u, y - 3 * u)), PAPER, pen)

    def legend(self, top: int) -> None:
        """What the marks mean, at the right end of the title line."""
        x = self.right
        self.write(
            (x := x - width(self.words["similarity"], self.text), top), self.words["similarity"], self.text, FAINT
        )
        for name, right in (("wrong", False), ("right", True)):
            word = self.words[name]
            x -= SCALE * 20 + width(word, self.text)
            self.write((x, top), word, self.text, INK)
            x -= SCALE * 15
            self.badge(x, top + SCALE * 7, right)
            x -= SCALE * 4

    def write(self, at: tuple[int, int], text: str, chosen: Font, color: tuple[int, int, int]) -> None:
        self.pen.text(at, self.legible(text), fill=color, font=chosen)

    def legible(self, text: str) -> str:
        return readable(text, self.chinese)
