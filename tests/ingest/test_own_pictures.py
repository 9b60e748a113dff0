"""Own pictures: a folder or a list becomes rows, and where the archive keeps their files."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from served import client, make_bundle, make_service, search, stripes

from vireid.deploy.bundle import Bundle
from vireid.errors import GalleryError, SourceError
from vireid.ingest.index import crops_of, index
from vireid.ingest.times import seconds
from vireid.search.archive import Archive, files_of
from vireid.search.drivers.open import open_gallery
from vireid.server.search_service import SearchService


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
        ("camera,time\ngate,\n", "has no column `path`; a list has"),
        ("Path,Camera\nx.jpg,1\n", r"no column `path` \(is it `Path`\? rename it\)"),
        ("path,kamera\nx.jpg,1\n", "unknown columns `kamera`"),
        ("path,camera,camera\nx.jpg,1,2\n", "column `camera` stands twice"),
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


def test_a_source_that_is_no_folder_list_picture_or_video(tmp_path: Path) -> None:
    (tmp_path / "files.zip").write_bytes(b"PK")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").touch()
    for source, told in (
        (tmp_path / "absent", "there is no file or folder"),
        (tmp_path / "nowhere", "is a link that leads nowhere"),
        (tmp_path / "files.zip", r"neither a folder, a \.csv, a picture nor a video"),
        (Path("rtsp://192.0.2.7:554/stream1"), "^rtsp://192.0.2.7:554/stream1 is an address .* ffmpeg -i rtsp://192"),
        (tmp_path / "empty", "is empty"),
        (tmp_path / "texts", r"holds no picture and no video, but files of other kinds \(1\): a\.txt"),
    ):
        with pytest.raises(SourceError, match=told):
            list(crops_of(source))


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
        ("20261324210411", "time is like .* got '20261324210411'"),
        ("46350.87", "looks like the day number of a spreadsheet: write it as a date"),
    ],
)
def test_what_is_no_time_is_told(text: str, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        seconds(text, "list.csv, line 2")


def test_a_gallery_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "night").mkdir()
    monkeypatch.chdir(tmp_path / "night")
    assert files_of(".", None) == tmp_path / "night.files"
    for url in ("", "/", "lance:/"):
        with pytest.raises(GalleryError, match="expected the path of a gallery, got"):
            files_of(url, None)


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


# --- which row a picture is -------------------------------------------------------------------------------------------


def put(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.RandomState(seed).randint(0, 256, (8, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize((32, 64)).save(path)
    return path


@pytest.fixture
def service(bundle: Bundle, tmp_path: Path) -> SearchService:
    return make_service(tmp_path / "files", bundle, fill=False)


def indexed(service: SearchService, source: Path, **options: bool) -> tuple[int, int, int]:
    found = index(service.archive, service.searcher.extractor, crops_of(source), **options)
    assert not found.refused
    return found.added, found.present, found.beside


def test_pictures_of_one_name_in_two_folders_are_two_rows(service: SearchService, tmp_path: Path) -> None:
    first, second = put(tmp_path / "27/crops/1.png", 1), put(tmp_path / "28/crops/1.png", 2)
    put(tmp_path / "28/crops/2.png", 3)
    assert indexed(service, first.parent) == (1, 0, 0)
    for _ in range(2):
        assert indexed(service, second.parent) in ((2, 0, 1), (0, 2, 0))
    rows = list(service.archive.gallery.rows())
    digest = hashlib.sha256(second.read_bytes()).hexdigest()
    assert [row.id for row in rows] == ["crops/1.png", "crops/2.png", f"crops~{digest[:12]}/1.png"]
    assert [row.path for row in rows] == [str(first), str(second.with_name("2.png")), str(second)]
    assert rows[2].digest == digest and len({row.thumbnail for row in rows}) == 3
    api = client(service)
    for path, row in ((first, rows[0]), (second, rows[2])):
        hit = search(api, path.read_bytes())["hits"][0]
        assert hit["id"] == row.id and hit["similarity"] > 0.999


def test_one_folder_in_several_spellings_and_moved_is_one_source(
    service: SearchService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a/crops/gate/1.png", 1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("a/crops")
    assert indexed(service, tmp_path / "a/crops") == (1, 0, 0)
    for spelling in ("a/crops", "a/crops/", "./a/../a/crops", "link"):
        assert indexed(service, Path(spelling)) == (0, 1, 0)
    (tmp_path / "a").rename(tmp_path / "b")
    assert indexed(service, tmp_path / "b/crops") == (0, 1, 0)


def test_a_picture_that_changed_is_kept_beside_the_former_one_or_replaces_it(
    service: SearchService, tmp_path: Path
) -> None:
    path = put(tmp_path / "crops/1.png", 1)
    assert indexed(service, path.parent) == (1, 0, 0)
    put(path, 2)
    assert indexed(service, path.parent) == (1, 0, 1)
    assert indexed(service, path.parent) == (0, 1, 0)
    put(path, 3)
    assert indexed(service, path.parent, overwrite=True) == (1, 0, 0)
    assert search(client(service), path.read_bytes())["hits"][0]["id"] == "crops/1.png"
    assert service.archive.gallery.count() == 2


def test_a_row_of_an_earlier_version_is_known_by_its_path(service: SearchService, tmp_path: Path) -> None:
    path = put(tmp_path / "crops/1.png", 1)
    assert indexed(service, path.parent) == (1, 0, 0)
    [row] = service.archive.gallery.fetch(["crops/1.png"])
    service.archive.gallery.upsert([replace(row, digest="")])
    assert indexed(service, path.parent) == (0, 1, 0)
    service.archive.gallery.upsert([replace(row, digest="", path="/elsewhere/crops/1.png")])
    assert indexed(service, path.parent) == (1, 0, 1)


def test_two_lists_with_the_same_names(service: SearchService, tmp_path: Path) -> None:
    lists = []
    for day in (1, 2):
        put(tmp_path / f"{day}/a.png", day)
        lists.append(tmp_path / f"{day}/list.csv")
        lists[-1].write_text("path,camera\na.png,gate\n")
    (tmp_path / "1/again.csv").write_text("path,camera\n./a.png,gate\n")
    assert indexed(service, lists[0]) == (1, 0, 0) and indexed(service, lists[1]) == (1, 0, 1)
    for path in (*lists, tmp_path / "1/again.csv"):
        assert indexed(service, path) == (0, 1, 0)
    own = tmp_path / "2/own.csv"
    own.write_text("path,id\na.png,a.png\n")
    found = index(service.archive, service.searcher.extractor, crops_of(own))
    assert (found.added, len(found.refused)) == (0, 1) and "its id 'a.png' is that of another picture" in found.refused[
        0
    ]
    assert indexed(service, own, overwrite=True) == (1, 0, 0)


def test_an_id_twice_in_a_list(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,id\na.png,p\nb.png,p\n")
    with pytest.raises(SourceError, match="lines 2 and 3: the id 'p' is there twice; give every picture"):
        list(crops_of(path))
    path.write_text("path,id\na.png,b.png\nb.png,\n")
    with pytest.raises(SourceError, match=r"lines 2 and 3: the id 'b\.png' is there twice"):
        list(crops_of(path))
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate/a.png").touch()
    path.write_text("path\ngate\\a.png\n")
    [crop] = crops_of(path)
    assert (crop.id, crop.path) == ("gate/a.png", tmp_path / "gate/a.png")


def test_names_that_no_gallery_keeps_are_named_and_the_others_indexed(service: SearchService, tmp_path: Path) -> None:
    put(tmp_path / "crops/1.png", 1)
    put(tmp_path / "crops/line\nend.png", 2)
    os.link(tmp_path / "crops/1.png", os.path.join(os.fsencode(tmp_path), b"crops/\xd0\xd0.png"))
    put(tmp_path / "crops" / ("d" * 200) / ("e" * 200) / ("f" * 200 + ".png"), 3)
    found = index(service.archive, service.searcher.extractor, crops_of(tmp_path / "crops"))
    assert (found.added, len(found.refused)) == (2, 2)
    assert any("not valid Unicode" in line for line in found.refused)
    assert any("at most 512 bytes" in line for line in found.refused)


def test_a_single_picture_is_indexed_as_in_its_folder(service: SearchService, tmp_path: Path) -> None:
    path = put(tmp_path / "gate/1.png", 1)
    assert indexed(service, path) == (1, 0, 0)
    assert indexed(service, path.parent) == (0, 1, 0)
    [row] = service.archive.gallery.rows()
    assert (row.id, row.camera) == ("gate/1.png", "gate")
