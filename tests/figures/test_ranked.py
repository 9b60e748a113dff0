"""Ranked lists: which queries are shown, what the picture holds, and its words without a Chinese font."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vireid.data.table import Table, table_from_columns
from vireid.errors import PictureError
from vireid.figures import fonts, ranked
from vireid.figures.ranked import FRAME, MARGIN, RIGHT, SCALE, WRONG, choose_queries, ranked_list


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Ten people, two pictures of each and modality."""
    rows = [(f"{m}/{pid}_{i}.png", pid, m + 1, m, "test") for m in (0, 1) for pid in range(10) for i in range(2)]
    for path, pid, _, modality, _ in rows:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 32), (20 * pid, 100, 255 * modality)).save(tmp_path / path)
    names = ("path", "pid", "camid", "modality", "split")
    return table_from_columns(tmp_path, dict(zip(names, zip(*rows, strict=True), strict=True)), "manifest")


def lists(table: Table, right: int) -> tuple[np.ndarray, np.ndarray]:
    """Infrared queries; the first `right` of them have their own person first."""
    queries, gallery = np.flatnonzero(table.modality == 1), np.flatnonzero(table.modality == 0)
    first = np.array([g if n < right else gallery[n - 4] for n, g in enumerate(gallery)])
    return queries, np.stack([first, np.roll(gallery, 7), np.full(len(gallery), -1)], axis=1)


@pytest.mark.parametrize(("right", "shares"), [(20, (8, 0)), (0, (0, 8)), (10, (4, 4)), (2, (2, 6))])
def test_right_and_wrong_queries_are_mixed(table: Table, right: int, shares: tuple[int, int]) -> None:
    queries, rows = lists(table, right)
    chosen = choose_queries(table, queries, rows)
    correct = table.pid[rows[chosen, 0]] == table.pid[queries[chosen]]
    assert (int(correct.sum()), int((~correct).sum())) == shares
    assert len(set(chosen.tolist())) == 8 and correct.tolist() == sorted(correct.tolist(), reverse=True)
    assert np.array_equal(chosen, choose_queries(table, queries, rows))


def test_different_people_come_first_and_empty_lists_are_left_out(table: Table) -> None:
    queries, rows = lists(table, 20)
    assert len(set(table.pid[queries[choose_queries(table, queries, rows)]].tolist())) == 8
    assert len(choose_queries(table, queries, rows, 50)) == 10  # one of each person, where that makes eight
    rows[3:] = -1
    assert sorted(choose_queries(table, queries, rows).tolist()) == [0, 1, 2]
    rows[:] = -1
    assert len(choose_queries(table, queries, rows)) == 0
    with pytest.raises(ValueError, match="at least 1 query"):
        choose_queries(table, queries, rows, 0)


def test_the_picture_frames_right_and_wrong(table: Table, tmp_path: Path) -> None:
    queries, rows = lists(table, 1)
    values = np.full(rows.shape, 0.5)
    stamp = {"protocol": "a/b", "draw": "none"}
    drawn = ranked_list(table, queries[:2], rows[:2], values[:2], tmp_path / "f/r.png", title="T", stamp=stamp)
    assert (drawn.lang, drawn.note) == ("en", "") and not list(tmp_path.rglob("*.partial"))
    with Image.open(drawn.path) as image:
        pixels = np.asarray(image)
    sheet = ranked._Sheet(table, "en", None, (144, 72), (2, 3))
    top = SCALE * (MARGIN + 52)
    step = sheet.height + SCALE * (2 * FRAME + 2 * ranked.LINE + 16)
    for line, colors in enumerate((RIGHT, WRONG)):
        assert tuple(pixels[top + line * step + 50, sheet.place(0) - 2]) == colors
        middle = pixels[top + line * step + sheet.height // 2, sheet.place(0) + sheet.width // 2]
        assert tuple(middle) == (20 * int(table.pid[rows[line, 0]]), 100, 0)
    assert (pixels[top : top + step // 2, sheet.place(2) :] == 255).all()  # nothing where the list has ended
    badge = pixels[top - 10 : top + 30, sheet.place(0) + sheet.width - 30 : sheet.place(0) + sheet.width + 14]
    assert (badge == 255).all(axis=2).any() and (badge == RIGHT).all(axis=2).any()


def test_chinese_words_need_a_font_and_otherwise_are_english(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, rows = lists(table, 1)
    monkeypatch.setattr(ranked, "chinese_file", lambda: None)
    drawn = ranked_list(
        table, queries[:1], rows[:1], rows[:1] * 1.0, tmp_path / "r.png", lang="zh", stamp={"run": "夜"}
    )
    assert drawn.lang == "en" and "no Chinese font" in drawn.note
    assert fonts.readable("夜 1", None) == "? 1" and fonts.readable("夜 1", tmp_path) == "夜 1"


def test_chinese_font_is_found_by_its_name(tmp_path: Path) -> None:
    assert fonts.chinese_file((str(tmp_path),)) is None
    for name in ("a/simsun.ttc", "b/NotoSansCJK-Regular.ttc", "b/NotoSansCJK-Bold.ttc", "b/DejaVuSans.ttf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    fonts.chinese_file.cache_clear()
    assert fonts.chinese_file((str(tmp_path),)) == tmp_path / "b/NotoSansCJK-Regular.ttc"


def test_long_captions_are_wrapped() -> None:
    chosen = fonts.font(20)
    lines = fonts.wrap("short words and onewordthatisfarlongerthanthelineiswide end", chosen, 120)
    assert all(fonts.width(line, chosen) <= 120 for line in lines) and len(lines) > 4
    assert "".join(lines).replace(" ", "") == "shortwordsandonewordthatisfarlongerthanthelineiswideend"
    assert fonts.wrap("", chosen, 120) == []


def test_what_is_refused(table: Table, tmp_path: Path) -> None:
    queries, rows = lists(table, 1)
    with pytest.raises(ValueError, match="lang is one of en, zh"):
        ranked_list(table, queries, rows, rows * 1.0, tmp_path / "r.png", lang="fr")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="expected queries"):
        ranked_list(table, queries[:1], rows, rows * 1.0, tmp_path / "r.png")
    table.full_path(int(rows[0, 0])).write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"0_0\.png cannot be read"):
        ranked_list(table, queries, rows, rows * 1.0, tmp_path / "r.png")
    assert not (tmp_path / "r.png").exists()
