"""Videos as sources: two of one name, one that was moved or goes on, and gray values of 16 bits."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av", reason="needs the extra `video`")
pytest.importorskip("fastapi", reason="needs the extra `serve`")
import av
from filmed import boxes_csv, film, steps
from served import make_bundle

from vireid.deploy.bundle import Bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.images import GrayRule
from vireid.ingest.identity import HEADER, PART, video_digest
from vireid.ingest.index import Indexed, index, pieces_of
from vireid.ingest.video import Stills, Video, pixels
from vireid.ingest.video_settings import VideoSettings
from vireid.search.archive import Archive
from vireid.search.drivers.open import open_gallery


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("videos"))


def test_two_videos_of_one_name(bundle: Bundle, tmp_path: Path) -> None:
    first, second = film(tmp_path / "27/gate/rec.mp4", steps(12)), film(tmp_path / "28/gate/rec.mp4", steps(12), gop=5)
    boxes = boxes_csv(tmp_path / "boxes.csv", steps(12))
    extractor, gallery = FeatureExtractor(bundle), open_gallery("memory:", model=bundle.config)
    archive, settings = Archive(gallery, tmp_path / "files"), VideoSettings(boxes=boxes, interval_s=0.5)

    def indexed(folder: Path) -> Indexed:
        return index(archive, extractor, pieces_of(folder, videos=settings))

    added = indexed(first.parent).added
    assert added > 1 and indexed(second.parent).added == added
    ids = [row.id for row in gallery.rows()]
    other = f"gate~{video_digest(second)[:12]}/rec.mp4#"
    assert sum(each.startswith("gate/rec.mp4#") for each in ids) == sum(each.startswith(other) for each in ids) == added
    assert len({row.track for row in gallery.rows()}) == 4  # two people in each
    assert {row.digest for row in gallery.rows()} == {video_digest(first), video_digest(second)}
    (tmp_path / "27").rename(tmp_path / "moved")
    for folder in (tmp_path / "moved/gate", second.parent):
        again = indexed(folder)
        assert (again.added, again.present) == (0, added)


def test_the_digest_of_a_video_stays_when_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    content = bytes(range(256)) * ((HEADER + PART) // 256)
    path.write_bytes(content)
    first = video_digest(path)
    path.write_bytes(b"another header" + content[14:] + b"more")
    assert video_digest(path) == first
    path.write_bytes(content[:-1] + b"x")
    assert video_digest(path) != first and video_digest(tmp_path / "absent") == ""


def test_gray_values_of_sixteen_bits_in_a_video(bundle: Bundle, tmp_path: Path) -> None:
    values = np.kron(np.random.RandomState(1).randint(7000, 9000, (18, 22)), np.ones((8, 8))).astype(np.uint16)
    with av.open(str(tmp_path / "thermal.mkv"), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 176, 144, "gray16le"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(values + number, "gray16le")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    np.testing.assert_array_equal(Stills(tmp_path / "thermal.mkv").at(0.0), values)
    with Video(tmp_path / "thermal.mkv") as video:
        shown = pixels(next(video.frames())[1])
    assert shown.dtype == np.uint8 and shown.shape == (144, 176, 3) and np.ptp(shown) == 255
    (tmp_path / "boxes.csv").write_text("time,left,top,right,bottom\n0,16,24,64,120\n")
    settings = VideoSettings(boxes=tmp_path / "boxes.csv", margin=0)
    crop = values[24:120, 16:64]
    for rule in (GrayRule(), GrayRule(6000, 12_000)):
        extractor, gallery = FeatureExtractor(bundle), open_gallery("memory:", model=bundle.config, gray=rule)
        pieces = pieces_of(tmp_path / "thermal.mkv", videos=settings)
        index(Archive(gallery, tmp_path / "files"), extractor, pieces)
        [row] = gallery.fetch([row.id for row in gallery.rows()])
        expected = extractor.with_gray(rule)(crop, "infrared")[0]
        assert row.modality == 1 and row.vector @ expected == pytest.approx(1, abs=1e-6)
