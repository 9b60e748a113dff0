"""Boxes that do not belong to the videos are an error before the first row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("av", reason="needs the extra `video`")
from filmed import boxes_csv, film, steps

from vireid.errors import BoxesError, SourceError, VireidError
from vireid.ingest.index import pieces_of
from vireid.ingest.video_settings import VideoSettings

HEAD = "time,left,top,right,bottom\n"
FRAMES = "frame,left,top,right,bottom\n"


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 3 seconds, 176 x 144."""
    return film(tmp_path_factory.mktemp("v") / "gate/a.mp4", steps(30))


def refusal(source: Path, boxes: Path, kind: type[VireidError] = BoxesError) -> str:
    with pytest.raises(kind) as caught:
        next(pieces_of(source, videos=VideoSettings(boxes=boxes)))
    assert boxes.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEAD + "0.5,0.2,0.2,0.4,0.9\n1,0.2,0.2,0.4,0.9\n", "look like fractions of the frame"),
        (HEAD + "0.5,20,20,40,55\n", "all lower than --min-height 40 pixels, the highest has 35; are they in percent"),
        (HEAD + "0.5,900,500,1000,700\n1,10,10,60,90\n1,800,500,900,700\n", "lie outside of its frames, 2 of 3"),
        (HEAD + "0.5,-90,-80,-10,-10\n", "lie outside of its frames, 1 of 1"),
        (HEAD + "500,10,10,60,90\n", r"continue until 500\.00 s and the video ends at 3\.00 s"),
        (FRAMES + "30,10,10,60,90\n", r"frame 30 \(the first is 0\) .* has 30"),
        (HEAD, "has no box of this video"),
        ("video," + HEAD + "hall/b.mp4,0.5,10,10,60,90\n", "its column `video` has hall/b.mp4; expected a.mp4"),
    ],
)
def test_boxes_of_something_else_are_refused(gate: Path, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "b.csv").write_text(text)
    assert re.search(told, refusal(gate, tmp_path / "b.csv"))


def test_some_boxes_that_are_small_or_at_the_edge_are_fine(gate: Path, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(HEAD + "0,10,10,60,90\n1,-30,10,40,90\n2,1,1,9,9\n2.95,150,60,190,170\n")
    [piece] = pieces_of(gate, videos=VideoSettings(boxes=tmp_path / "b.csv"))
    assert len(list(piece.crops())) == 3


def test_every_video_is_looked_at_before_the_first(
    gate: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    film(tmp_path / "v/a.mp4", steps(30))
    film(tmp_path / "v/b.mp4", steps(30))
    boxes_csv(tmp_path / "one.csv", steps(30))
    assert "no column `video`" in refusal(tmp_path / "v", tmp_path / "one.csv")
    good = boxes_csv(tmp_path / "named.csv", steps(30), video="a.mp4").read_text()
    pieces = pieces_of(tmp_path / "v", videos=VideoSettings(boxes=tmp_path / "named.csv"))
    assert len(list(pieces)) == 2 and "has no box of 1 of 2 videos: v/b.mp4" in caplog.text
    (tmp_path / "late.csv").write_text(good + "b.mp4,0.5,0.1,0.1,0.4,0.9,x\n")
    assert "the boxes of v/b.mp4" in refusal(tmp_path / "v", tmp_path / "late.csv")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").touch()
    assert "holds no video" in refusal(tmp_path / "pictures", tmp_path / "named.csv", SourceError)
