"""Damaged files of a gallery and of what lies beside it: the file is named, and no library's error comes through."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from galleries import DIM, records

from vireid.errors import GalleryDamaged, MarksError
from vireid.search.archive import Archive
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Gallery
from vireid.search.marks import MarkStore

pytest.importorskip("lancedb", reason="extra: search")

CALLS = {
    "fetch": lambda g: g.fetch([each.id for each in records(2)]),
    "rows": lambda g: list(g.rows()),
    "search": lambda g: g.search(np.eye(1, DIM, dtype=np.float32), 2),
    "upsert": lambda g: g.upsert(records(2)),
    "delete": lambda g: g.delete(ids=[records(1)[0].id]),
}


def made(folder: Path) -> Path:
    gallery = open_gallery(folder / "night", dim=DIM)
    gallery.add(records(5))
    gallery.close()
    return folder / "night"


def cut(folder: Path, pattern: str) -> None:
    for path in folder.rglob(pattern):
        path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize("hurt", ["cut", "zeros", "absent"])
def test_damaged_rows_are_named_in_every_call(tmp_path: Path, hurt: str) -> None:
    place = made(tmp_path)
    for path in place.glob("records.lance/data/*"):
        size = path.stat().st_size
        path.unlink()
        if hurt != "absent":
            path.write_bytes(bytes(size if hurt == "zeros" else 20))
    for name, call in CALLS.items():
        gallery: Gallery = open_gallery(place)
        with pytest.raises(
            GalleryDamaged, match=r"files of the gallery .*night are damaged, missing or not readable"
        ) as e:
            call(gallery)
        assert "\n" not in str(e.value) and e.value.http_status == 503, name


def test_a_gallery_without_its_list_of_files_is_named(tmp_path: Path) -> None:
    place = made(tmp_path)
    cut(place, "*.manifest")
    with pytest.raises(GalleryDamaged, match="put back a whole copy of the folder"):
        open_gallery(place)


def test_marks_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.sqlite"
    MarkStore(whole).close()
    base = sqlite3.connect(tmp_path / "other.sqlite")
    base.execute("create table marks (name text)")
    base.close()
    (tmp_path / "cut.sqlite").write_bytes(whole.read_bytes()[:5000])
    (tmp_path / "junk.sqlite").write_bytes(b"no database at all " * 200)
    (tmp_path / "folder.sqlite").mkdir()
    for name in ("other", "cut", "junk", "folder"):
        with pytest.raises(MarksError, match=rf"{name}\.sqlite cannot be used as the file of marks"):
            MarkStore(tmp_path / f"{name}.sqlite")


def test_a_gallery_that_lost_its_folder_of_files_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gallery = open_gallery("memory:", DIM)
    Archive(gallery, tmp_path / "empty.files").close()
    assert caplog.text == ""
    gallery = open_gallery("memory:", DIM)
    gallery.add(records(3))
    with caplog.at_level(logging.WARNING):
        Archive(gallery, tmp_path / "lost.files").close()
    assert "the gallery has 3 rows and" in caplog.text and "lost.files is not there" in caplog.text
