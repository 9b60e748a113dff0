"""Videos into a gallery: which crops, their times and ids, segments, tracks, hostile names, and the command."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra `video`")
pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("lancedb", reason="needs the extra `search`")
from filmed import COLORS, HEIGHT, WIDTH, Walkers, boxes_csv, film, place, steps
from served import make_bundle
from typer.testing import CliRunner, Result

from vireid.cli.app import app
from vireid.declaration import configured
from vireid.deploy.bundle import Bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.errors import BoxesError, SettingsError, SourceError
from vireid.ingest import segments as segment
from vireid.ingest.boxes import Box
from vireid.ingest.index import index, index_piece, pieces_of
from vireid.ingest.segments import chosen
from vireid.ingest.video_settings import VideoSettings
from vireid.search.archive import Archive
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Record

START = "2026-11-24T21:04:11+01:00"
START_S = 1795550651.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("segments"))


@pytest.fixture(scope="module")
def extractor(bundle: Bundle) -> FeatureExtractor:
    return FeatureExtractor(bundle, device="cpu")


def archive(folder: Path, extractor: FeatureExtractor) -> Archive:
    return Archive(open_gallery("memory:", extractor.dim, extractor.bundle.config.digest), folder)


def rows(of: Archive) -> list[Record]:
    return list(of.gallery.rows())


@pytest.fixture
def walkers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Walkers:
    """In place of a network; its folder is `tmp_path / "detector"`."""
    found = Walkers()
    monkeypatch.setattr(segment, "detector_of", lambda settings: found)
    (tmp_path / "detector").mkdir()
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (tmp_path / "detector" / name).write_bytes(b"{}")
    return found


# --- which crops ------------------------------------------------------------------------------------------------------


def test_crops_of_a_track_are_few_apart_and_spread() -> None:
    many = [Box(number / 10, 0, 0, 30, 100, "1") for number in range(200)]
    low = [Box(number / 10, 0, 0, 30, 39, "2") for number in range(50)]
    narrow = [Box(number / 10, 0, 0, 19, 100, "3") for number in range(50)]
    settings = VideoSettings(boxes=Path("b"), interval_s=1.0, max_crops=5)
    assert [box.time_s for box, _ in chosen(sorted(many + low + narrow), settings)] == [0, 5, 10, 14, 19]
    short = VideoSettings(boxes=Path("b"), interval_s=4.0, max_crops=9)
    assert [box.time_s for box, _ in chosen(many[:95], short)] == [0, 4, 8]
    assert len(chosen([*many[:1], *many[:1]], VideoSettings(boxes=Path("b"), interval_s=0))) == 1
    loose = sorted(Box(number / 10, left, 0, left + 30, 100) for number in range(25) for left in (0, 50))
    found = chosen(loose, settings)
    assert [(box.time_s, place) for box, place in found] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(SettingsError, match="give one of them"):
        configured(VideoSettings, None, {"detector": "a", "boxes": "b"})
    with pytest.raises(SettingsError, match="`fps`: expected number > 0"):
        configured(VideoSettings, None, {"boxes": "b", "fps": 0})


# --- boxes from a file ------------------------------------------------------------------------------------------------


def test_a_crop_is_the_person_at_that_moment(tmp_path: Path, extractor: FeatureExtractor) -> None:
    video = film(tmp_path / "night/gate/a.mp4", steps(40))
    boxes = boxes_csv(tmp_path / "boxes.csv", steps(40), video="gate/a.mp4")
    settings = VideoSettings(boxes=boxes, interval_s=1.0, margin=0.25)
    [piece] = pieces_of(tmp_path / "night", videos=settings)
    assert piece.name == "night/gate/a.mp4#0000" and repr(pickle.loads(pickle.dumps(piece))) == repr(piece)
    crops = list(piece.crops())
    assert [crop.id for crop in crops] == [crop.id for crop in piece.crops()]
    assert [crop.id for crop in crops[:3]] == [
        "night/gate/a.mp4#0000-p0/0.000", "night/gate/a.mp4#0000-p1/0.000", "night/gate/a.mp4#0000-p0/1.000",
    ]  # fmt: skip
    assert len(crops) == 8 and {crop.camera for crop in crops} == {"gate"}
    assert {crop.track for crop in crops} == {"night/gate/a.mp4#0000-p0", "night/gate/a.mp4#0000-p1"}
    for crop in crops:
        person, time_s = int(crop.row[-1]), float(crop.id.rpartition("/")[2])
        picture = np.asarray(crop.open()).astype(int)
        left, top, right, bottom = place(person, time_s)
        x, y = max(0, math.floor(left - 6)), max(0, math.floor(top - 16))  # the margin, clipped to the frame
        assert picture.shape == (min(HEIGHT, math.ceil(bottom + 16)) - y, min(WIDTH, math.ceil(right + 6)) - x, 3)
        colored = np.nonzero((np.abs(picture - COLORS[person]) < 60).all(-1))
        assert len(colored[0]) > 0.8 * 24 * 64 and math.isnan(crop.time_s)
        assert abs(colored[1].mean() + 0.5 + x - (left + right) / 2) < 0.7  # somebody moves 1.5 pixels a frame or more
    assert video.is_file()


def test_times_and_zones(tmp_path: Path, extractor: FeatureExtractor) -> None:
    at = {"creation_time": "2026-11-24T20:04:11Z"}
    film(tmp_path / "v/made.mp4", steps(30), metadata=at)
    film(tmp_path / "v/gate_20261124_210411.mp4", steps(30), metadata=at)
    boxes = tmp_path / "boxes"
    boxes.mkdir()
    for name in ("made", "gate_20261124_210411"):
        boxes_csv(boxes / f"{name}.csv", steps(30), people=1)
    settings = VideoSettings(boxes=boxes)
    named, made = pieces_of(tmp_path / "v", videos=settings)
    local = datetime(2026, 11, 24, 21, 4, 11).timestamp()  # a name has no zone: this machine's
    assert [crop.time_s for crop in named.crops()] == [local, local + 1, local + 2]
    assert [crop.time_s for crop in made.crops()] == [START_S, START_S + 1, START_S + 2]
    [given] = pieces_of(tmp_path / "v/gate_20261124_210411.mp4", videos=settings, start_s=5.0)
    assert [(crop.time_s, crop.camera) for crop in given.crops()] == [(5, "gate"), (6, "gate"), (7, "gate")]
    (tmp_path / "list.csv").write_text(f"path,camera,time,tags\nv/made.mp4,roof,{START},late\n", encoding="utf-8")
    boxes_csv(tmp_path / "one.csv", steps(30), people=1, video="v/made.mp4")
    [listed] = pieces_of(tmp_path / "list.csv", videos=VideoSettings(boxes=tmp_path / "one.csv"))
    first = next(iter(listed.crops()))
    assert (first.id, first.camera, first.time_s, first.tags) == (
        "v/made.mp4#0000-p0/0.000",
        "roof",
        START_S,
        ("late",),
    )
    with pytest.raises(SourceError, match="a start is for one video"):
        list(pieces_of(tmp_path / "v", videos=settings, start_s=5.0))


def test_pictures_and_videos_are_indexed_once(tmp_path: Path, bundle: Bundle, extractor: FeatureExtractor) -> None:
    film(tmp_path / "night/gate/a.mp4", steps(30))
    data = bundle.path.parent / "data"
    (tmp_path / "night/gate/3_1_0.png").write_bytes((data / "3_1_0.png").read_bytes())
    boxes = boxes_csv(tmp_path / "boxes.csv", steps(30))
    settings, of = VideoSettings(boxes=boxes), archive(tmp_path / "files", extractor)
    found = index(of, extractor, pieces_of(tmp_path / "night", videos=settings))
    assert (found.added, found.present, found.refused) == (7, 0, ())
    before = rows(of)
    found = index(of, extractor, pieces_of(tmp_path / "night", videos=settings))
    assert (found.added, found.present) == (0, 7) and rows(of) == before
    film(tmp_path / "night/hall/b.mp4", steps(3))
    with pytest.raises(BoxesError, match="no column `video`"):
        list(pieces_of(tmp_path / "night", videos=settings))


def test_a_track_becomes_one_row(tmp_path: Path, extractor: FeatureExtractor) -> None:
    film(tmp_path / "a.mp4", steps(40))
    settings = VideoSettings(boxes=boxes_csv(tmp_path / "boxes.csv", steps(40)))
    [piece] = pieces_of(tmp_path / "a.mp4", videos=settings, start_s=100)
    single, whole = archive(tmp_path / "single", extractor), archive(tmp_path / "whole", extractor)
    assert index_piece(single, extractor, piece).added == 8
    assert index_piece(whole, extractor, piece, rows="tracks").added == 2
    assert index_piece(whole, extractor, piece, rows="tracks") == index_piece(whole, extractor, piece, rows="tracks")
    assert index_piece(whole, extractor, piece, rows="tracks").present == 2
    for row in rows(whole):
        assert row.id == row.track and row.time_s == 100
        parts = [each for each in rows(single) if each.track == row.track]
        mean = np.mean([record.vector for record in single.gallery.fetch([part.id for part in parts])], axis=0)
        [kept] = whole.gallery.fetch([row.id])
        np.testing.assert_allclose(kept.vector, mean / np.linalg.norm(mean), atol=1e-6)
        assert whole.thumbnails.read(row.id) in [single.thumbnails.read(part.id) for part in parts]


# --- detection --------------------------------------------------------------------------------------------------------


def test_segments_are_detected_once_and_tracked(tmp_path: Path, extractor: FeatureExtractor, walkers: Walkers) -> None:
    film(tmp_path / "a.mp4", steps(60))
    settings = VideoSettings(detector=tmp_path / "detector", segment_s=2.0, fps=10)
    of = archive(tmp_path / "files", extractor)

    def pieces() -> list[Any]:
        return list(pieces_of(tmp_path / "a.mp4", videos=settings, start_s=1000, store=of.folder / "boxes"))

    assert [piece.name for piece in pieces()] == [f"a.mp4#{number:04d}" for number in range(3)]
    found = index(of, extractor, pieces())
    assert found.refused == () and walkers.seen == 60 and len(list(of.folder.glob("boxes/*.csv"))) == 3
    for row in rows(of):  # two people, two seconds each segment
        inside, _, time_s = row.id.rpartition("/")
        assert row.track == inside and row.time_s == pytest.approx(1000 + float(time_s), abs=1e-6)
    tracks = {row.track for row in rows(of)}
    assert tracks == {f"a.mp4#{number:04d}-{track}" for number in range(3) for track in range(2)}
    before = rows(of)
    assert index(of, extractor, pieces()).added == 0 and walkers.seen == 60 and rows(of) == before
    again = archive(tmp_path / "again", extractor)
    index(again, extractor, pieces()[::-1])  # in any order
    assert rows(again) == before and walkers.seen == 60
    faster = VideoSettings(detector=tmp_path / "detector", segment_s=2.0, fps=5, tracker="none")
    untracked = archive(tmp_path / "untracked", extractor)
    index(untracked, extractor, pieces_of(tmp_path / "a.mp4", videos=faster, store=of.folder / "boxes"))
    assert walkers.seen == 90 and {row.track for row in rows(untracked)} == {""}
    assert len(rows(untracked)) == 12 and rows(untracked)[0].id == "a.mp4#0.000/0"


def test_only_sampled_frames_become_arrays(tmp_path: Path, walkers: Walkers, monkeypatch: pytest.MonkeyPatch) -> None:
    made, pixels = list[int](), segment.pixels

    def counted(frame: Any) -> np.ndarray:
        made.append(frame.pts)
        return pixels(frame)

    monkeypatch.setattr(segment, "pixels", counted)
    video, settings = film(tmp_path / "a.mp4", steps(60)), VideoSettings(detector=tmp_path / "detector", fps=2)
    [piece] = segment.segments_of(segment.Source("a.mp4", ("a.mp4",), video, "a"), settings, tmp_path / "boxes")
    piece.boxes()
    assert walkers.seen == len(made) == len(set(made)) == 12


def test_boxes_that_version_0_1_found_are_reused(tmp_path: Path, walkers: Walkers) -> None:
    """The name of their file is a digest over the names that settings had in 0.1."""
    video = film(tmp_path / "a.mp4", steps(10))
    settings = VideoSettings(detector=tmp_path / "detector", fps=4.0, min_score=0.4)
    [piece] = segment.segments_of(segment.Source("a.mp4", ("a.mp4",), video, "a"), settings, tmp_path / "boxes")
    weights = hashlib.sha256(b"{}" + b"{}" + hashlib.sha256(b"{}").digest()).hexdigest()
    decides = {
        "format": 1, "video": str(video.resolve()), "bytes": video.stat().st_size,
        "changed": video.stat().st_mtime_ns, "start": 0.0, "end": "inf", "weights": weights, "tracker": "bytetrack",
        "rate": 4.0, "least_score": 0.4, "label": "person",
    }  # fmt: skip
    assert piece.key() == hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def test_what_was_read_of_a_broken_video_is_kept(tmp_path: Path, extractor: FeatureExtractor, walkers: Walkers) -> None:
    whole = film(tmp_path / "whole.mp4", steps(100), movflags="faststart").read_bytes()
    (tmp_path / "v").mkdir()
    (tmp_path / "v/b_cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "v/a_junk.mp4").write_bytes(b"nothing")
    (tmp_path / "v/c_whole.mp4").write_bytes(whole)
    settings, of = VideoSettings(detector=tmp_path / "detector"), archive(tmp_path / "files", extractor)
    for time in range(2):
        pieces = pieces_of(tmp_path / "v", videos=settings, store=of.folder / "boxes")
        found = index(of, extractor, pieces)
        junk, cut = found.refused
        assert "a_junk.mp4 cannot be read as a video" in junk and "b_cut.mp4 is damaged or cut off" in cut
        count = {name: sum(row.id.startswith(f"v/{name}") for row in rows(of)) for name in ("b_cut", "c_whole")}
        assert 6 < count["b_cut"] < count["c_whole"] and (found.added == 0) == (time == 1)
    assert walkers.seen < 100  # each once, at 5 a second


def test_hostile_names(tmp_path: Path, extractor: FeatureExtractor) -> None:
    given = film(tmp_path / "a.mp4", steps(12)).read_bytes()
    names = [
        "x#0001-1",
        "http:",
        "-i",
        "%d",
        "a\nb",
        "人 😀",
        "$(touch x)",
        "z" * 240,
        "a'; drop",
        "pipe:0",
        "concat:a|b",
    ]
    raw = [name.encode() + b".mp4" for name in names] + [b"bad\xff.mp4"]
    folder = tmp_path / "v"
    folder.mkdir()
    for name in raw:
        (Path(folder.as_posix().encode().decode()) / name.decode(errors="surrogateescape")).write_bytes(given)
    boxes_csv(tmp_path / "any.csv", steps(12), people=1)
    boxes = tmp_path / "boxes"
    boxes.mkdir()
    for name in raw:
        text = name.decode(errors="surrogateescape")
        (boxes / text).with_suffix(".csv").write_bytes((tmp_path / "any.csv").read_bytes())
    of = archive(tmp_path / "files", extractor)
    found = index(of, extractor, pieces_of(folder, videos=VideoSettings(boxes=boxes)))
    assert found.added == 2 * len(names)
    assert len(found.refused) >= 1 and all("rename the file" in line for line in found.refused)
    kept = rows(of)
    assert {row.id.rpartition("#")[0] for row in kept} == {f"v/{name}.mp4" for name in names}
    assert len({row.track for row in kept}) == len(names)
    assert {path.parent.parent.name for path in of.folder.rglob("*.jpg")} == {"thumbnails"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "any.csv", "boxes", "files", "v"]


# --- the command ------------------------------------------------------------------------------------------------------


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_without_the_package_nothing_is_begun(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    video, boxes = film(tmp_path / "gate.mp4", steps(30)), boxes_csv(tmp_path / "boxes.csv", steps(30))
    monkeypatch.setitem(sys.modules, "av", None)
    told = call("index", bundle.path, video, "--gallery", tmp_path / "g", "--boxes", boxes)
    assert told.exit_code == 1 and "pip install 'vireid[video]'" in told.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boxes.csv", "gate.mp4"]


def test_the_command(tmp_path: Path, bundle: Bundle) -> None:
    video = film(tmp_path / "v/gate.mp4", steps(30))
    boxes = boxes_csv(tmp_path / "boxes.csv", steps(30))
    words = ("index", bundle.path, video, "--gallery", tmp_path / "g")
    done = call(*words, "--boxes", boxes, "--start", START, "--rows", "tracks", "--interval", 0.5)
    assert done.exit_code == 0 and "added 2 pictures" in done.stdout, done.output
    first, second = open_gallery(tmp_path / "g").rows()
    assert first.time_s == second.time_s == START_S and first.camera == "gate"
    for more, code, text in (
        (("--detector", tmp_path / "none"), 1, "no detector in"),
        (("--boxes", tmp_path / "none"), 1, "no file or folder"),
        (("--boxes", boxes, "--start", "yesterday"), 2, "--start: time is like"),
        (("--boxes", boxes, "--detector", tmp_path), 2, "give one of them"),
    ):  # fmt: skip
        told = call(*words, *more)
        assert told.exit_code == code and text in told.stderr, told.output
