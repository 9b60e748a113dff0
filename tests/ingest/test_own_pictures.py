"""Own pictures: a folder or a list becomes rows, and where the archive keeps their files."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from served import client, make_bundle, make_service, search, stripes

from vireid.deploy.bundle import Bundle
from vireid.errors import GalleryError, SourceError
from vireid.ingest.index import crops_of, index
from vireid.ingest.times import seconds
from vireid.search.archive import Archive, files_of
from vireid.search.drivers.open import open_gallery


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("app"))


def test_a_folder_is_indexed_once_and_goes_on(bundle: Bundle, tmp_path: Path) -> None:
    data = bundle.path.parent / "data"
    for number, name in enumerate(("3_1_0.png", "3_3_0.png", "4_1_1.jpg")):
        (tmp_path / f"mine/gate {number}/day").mkdir(parents=True)
        (tmp_path / f"mine/gate {number}/day/{name}").write_bytes((data / name).read_bytes())
    (tmp_path / "mine/broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (tmp_path / "mine/notes.txt").write_text("no picture")
    service = make_service(tmp_path / "files", bundle, fill=False)
    extractor = service.searcher.extractor
    found = index(service.archive, extractor, crops_of(tmp_path / "mine"))
    assert (found.added, found.present, len(found.refused)) == (3, 0, 1) and "broken.jpg" in found.refused[0]
    rows = list(service.archive.gallery.rows())
    assert [row.camera for row in rows] == ["gate 0", "gate 1", "gate 2"]
    assert rows[0].id == "mine/gate 0/day/3_1_0.png" and [row.modality for row in rows] == [0, 1, 0]
    assert all(math.isnan(row.time_s) for row in rows)
    assert index(service.archive, extractor, crops_of(tmp_path / "mine")).present == 3
    timed = crops_of(tmp_path / "mine", file_time=True, modality="infrared")
    assert index(service.archive, extractor, timed, overwrite=True).added == 3
    rows = list(service.archive.gallery.rows())
    assert len(rows) == 3 and {row.modality for row in rows} == {1} and not any(math.isnan(row.time_s) for row in rows)
    hit = search(client(service), (data / "4_1_1.jpg").read_bytes(), modality="infrared")["hits"][0]
    assert hit["id"] == "mine/gate 2/day/4_1_1.jpg" and hit["time_s"] > 0


def test_a_list_says_camera_time_modality_and_more(bundle: Bundle, tmp_path: Path) -> None:
    data = bundle.path.parent / "data"
    (tmp_path / "list.csv").write_text(
        "path,camera,time,modality,pid,tags\n"
        f"{data / '3_1_0.png'},gate,2026-11-24T21:00:00+01:00,visible,p3,hat|late\n"
        f"{data / '3_3_0.png'},,1795500000.5,,,\n",
        encoding="utf-8",
    )
    first, second = crops_of(tmp_path / "list.csv")
    assert first.camera == "gate" and first.time_s == 1795550400.0 and first.tags == ("hat", "late")
    assert second.camera == "list" and second.time_s == 1795500000.5 and second.modality == "auto"
    for text, told in (
        ("file\nx.jpg\n", "no column `path`"),
        ("Path,Camera\nx.jpg,1\n", r"no column `path` \(is it `Path`\? rename it\)"),
        ("path,kamera\nx.jpg,1\n", "unknown columns `kamera`"),
        ("path,camera,camera\nx.jpg,1,2\n", "two columns `camera`"),
        ("path,time\nx.jpg,yesterday\n", "line 2: time is like"),
        ("path,modality\nx.jpg,thermal2\n", "line 2: modality is"),
        ("path,camera\n,a\n", "line 2: expected a path"),
        ("path,camera\nx.jpg\n", "line 2: expected 2 cells"),
        ("path,id\nx.jpg,a\n./x.jpg,b\n", "line 3: .*x.jpg is listed twice, first in line 2"),
    ):
        (tmp_path / "bad.csv").write_text(text, encoding="utf-8")
        with pytest.raises(SourceError, match=told):
            list(crops_of(tmp_path / "bad.csv"))
    for delimiter, word in ((";", "thermal"), ("\t", "IR")):
        (tmp_path / "words.tsv").write_text(f"path,modality\nday\\x.jpg,{word}\n".replace(",", delimiter))
        [crop] = crops_of(tmp_path / "words.tsv")
        assert crop.modality == "infrared" and crop.id == "day/x.jpg"
    (tmp_path / "late.csv").write_text("path,time\n" + "x.jpg,\n" + "y.jpg,later\n")
    with pytest.raises(SourceError, match="line 3"):  # before the first line is given
        next(iter(crops_of(tmp_path / "late.csv")))
    for nothing in (tmp_path / "absent", tmp_path / "files.zip"):
        with pytest.raises(SourceError, match=r"neither a folder, a \.csv nor a video"):
            list(crops_of(nothing))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no picture"):
        list(crops_of(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("text", "unix"),
    [
        ("2026-11-24T20:04:11Z", 1795550651.0),
        ("20261124T200411Z", 1795550651.0),
        ("2026-11-24 21:04:11+01:00", 1795550651.0),
        ("1795550651", 1795550651.0),
        ("1795550651.25", 1795550651.25),
    ],
)
def test_times_are_unix_seconds_or_dates(text: str, unix: float) -> None:
    assert seconds(text, "here") == unix


def test_compact_dates_are_dates_and_no_seconds() -> None:
    for text, date in (("20261124210411", datetime(2026, 11, 24, 21, 4, 11)), ("20261124", datetime(2026, 11, 24))):
        assert seconds(text, "here") == date.timestamp()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1795550651000", "look like milliseconds: divide"),
        ("1795550651000000", "look like microseconds"),
        ("1795550651000000000", "look like nanoseconds"),
        ("12.5", "not a time between 1990 and 2100"),
        ("0", "not a time between"),
        ("1e400", "time is like"),
        ("nan", "time is like"),
        ("-1795550651", "not a time between"),
        ("24.11. 21:04:11", "time is like"),
        ("11/24/2026 9:04:11 PM", "time is like"),
        ("20261324210411", "time is like"),
    ],
)
def test_what_is_no_time_is_told(text: str, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        seconds(text, "list.csv, line 2")


def test_where_the_files_lie(tmp_path: Path) -> None:
    assert files_of("lance:a/night", None) == files_of("a/night", None) == Path("a/night.files")
    assert files_of("memory:", tmp_path) == tmp_path
    with pytest.raises(GalleryError, match="--files"):
        files_of("milvus:http://host", None)


def test_a_thumbnail_is_named_by_a_digest_whatever_the_id(tmp_path: Path) -> None:
    archive = Archive(open_gallery("memory:", 4), tmp_path / "files")
    for id in ("../../../etc/passwd", "/etc/passwd", "a" * 500, "x\n\u202e人"):
        name = archive.thumbnails.write(id, stripes())
        assert (tmp_path / "files/thumbnails" / name).is_file() and name[2] == "/" and len(name) == 3 + 64 + 4
        assert archive.thumbnails.read(id)
    assert {path.parent.parent.parent for path in tmp_path.rglob("*.jpg")} == {tmp_path / "files"}
    assert archive.thumbnails.read("\ud800") is None and archive.thumbnails.remove(["absent"]) == 0
