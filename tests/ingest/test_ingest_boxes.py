"""Files of boxes: CSV and MOT, by time and by frame, of one and of many videos, and what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("av", reason="needs the extra `video`")
from filmed import film, steps

from vireid.errors import BoxesError
from vireid.ingest.boxes import Box, boxes_of, check_source, read_written, write_boxes


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_times_tracks_and_several_videos(tmp_path: Path) -> None:
    file = write(
        tmp_path / "boxes.csv",
        "# from somewhere\nvideo, time, left, top, right, bottom, track, score, pid\n"
        "gate/a.mp4,1.5,1,2,31,82,t1,0.5,p1\n\ngate/a.mp4,0.25,1,2,31.5,82,,,\nhall/a.mp4,0,5,5,9,9,t1,,\n",
    )
    assert not check_source(file)
    found = boxes_of(file, tmp_path / "absent.mp4", ("gate/a.mp4", "night/gate/a.mp4"))
    assert found == [Box(0.25, 1, 2, 31.5, 82), Box(1.5, 1, 2, 31, 82, "t1", 0.5, "p1")]
    assert [box.track for box in boxes_of(file, tmp_path / "absent.mp4", ("x", "hall/a.mp4"))] == ["t1"]
    assert boxes_of(file, tmp_path / "absent.mp4", ("a.mp4",)) == []  # which one, nobody knows


def test_frames_are_counted_by_the_times_of_the_video(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.5, 2.0]
    video = film(tmp_path / "a.mkv", times)
    file = write(tmp_path / "boxes.csv", "frame,left,top,right,bottom\n3,1,2,3,4\n2,1,2,3,4\n")
    assert check_source(file)
    assert [box.time_s for box in boxes_of(file, video, ("a.mkv",))] == [0.5, 2.0]
    mot = write(tmp_path / "gt.txt", "1,7,10,20,30,60,1,-1,-1\n4,-1,10,20,30,60,0.4,-1\n2,7,1,2,3,4,0,1,1\n")
    assert boxes_of(mot, video, ("a.mkv",)) == [Box(0, 10, 20, 40, 80, "7"), Box(2.0, 10, 20, 40, 80, "", 0.4)]
    beyond = write(tmp_path / "beyond.txt", "5,7,10,20,30,60\n")
    with pytest.raises(BoxesError, match=r"boxes in frame 4 \(the first is 0\) and .* has 4; .* counted from 1"):
        boxes_of(beyond, video, ("a.mkv",))


def test_a_folder_has_a_file_for_each_video(tmp_path: Path) -> None:
    text = "time,left,top,right,bottom\n1,1,2,3,4\n"
    folder = write(tmp_path / "boxes/gate/a.csv", text).parents[1]
    write(folder / "gate/b.mp4.csv", text.replace("1,1", "2,1"))
    write(folder / "c.txt", "1,7,10,20,30,60,1\n")
    write(tmp_path / "outside.csv", text)
    assert not check_source(folder)
    video = film(tmp_path / "c.mp4", steps(3))
    for name, time_s in (("gate/a.mp4", 1.0), ("gate/b.mp4", 2.0), ("c.mp4", 0.0)):
        assert [box.time_s for box in boxes_of(folder, video, (name, "night/" + name))] == [time_s]
    for name in ("gate/none.mp4", "../outside.mp4", str(tmp_path / "outside.mp4")):
        with pytest.raises(BoxesError, match="holds no boxes for"):
            boxes_of(folder, video, (name,))


HEAD = "time,left,top,right,bottom\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("time,left,top,right\n", "expected the columns left, top, right, bottom and time or frame"),
        ("time,frame,left,top,right,bottom\n", "time or frame"),
        ("time,left,top,right,bottom,who\n", "expected the columns"),
        (HEAD + "\n0,1,2,3,4\n0,5,2,3,4\n", "line 4: a box has left < right"),
        (HEAD + "0,1,2,3\n", "line 2: expected 5 cells like the header, came 4"),
        (HEAD + "x,1,2,3,4\n", "line 2: time is a number with a decimal point, got 'x'"),
        (HEAD + "-1,1,2,3,4\n", "line 2: time is in seconds"),
        (HEAD + "nan,1,2,3,4\n", "line 2: time is a number"),
        (HEAD.replace(",", ";") + "0,5;1;2;3;4\n", "line 2: time is a number with a decimal point, got '0,5'"),
        (HEAD + "0,200,100,60,160\n", "line 2: .* right and bottom are places and not width and height"),
        ("frame,left,top,right,bottom\n1.5,1,2,3,4\n", "line 2: frame is a whole number"),
        ("frame,left,top,right,bottom\n-1,1,2,3,4\n", "line 2: frame is a number from 0"),
        ("time,left,top,right,bottom,score\n0,1,2,3,4,95\n", "line 2: score is from 0 to 1, got 95; divide percent"),
        ("time,left,top,right,bottom,score\n0,1,2,3,4,-0.1\n", "line 2: score is from 0 to 1"),
        ("time,left,top,right,bottom,left\n0,1,2,3,4,5\n", "line 1 .*: column `left` stands twice"),
        ("video," + HEAD + "a.mp4,0,1,2,3,4\n,0,1,2,3,4\n", "line 3: expected the name of a video .* came nothing"),
        ("frame,left,top,right,bottom\n#N/A,1,2,3,4\n", "line 2: frame is a number .* got '#N/A'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BoxesError, match=told):
        boxes_of(write(tmp_path / "b.csv", text), tmp_path / "a.mp4", ("a.mp4",))


def test_other_files_are_told(tmp_path: Path) -> None:
    for text, told in (
        ("1,2,3\n", "line 1: expected frame"),
        ("1|7|1|2|3|4|1\n", "with commas between them"),
        ("frame,id,x1,y1,x2,y2\n1,7,1,2,3,4\n", "line 1: frame is a number"),  # places and not width and height
        ("frame,id,x,y,w,h\n1,7,1,2,3,4\nframe,id,x,y,w,h\n", "line 3: frame is a number"),
        ("0,7,1,2,3,4,1\n", "frame is from 1"),
        ("1.5,7,1,2,3,4,1\n", "line 1: frame is a whole number"),
        ("1,7.5,1,2,3,4,1\n", "line 1: track is a whole number"),
        ("1,1e300,1,2,3,4,1\n", "line 1: track is a whole number"),
    ):
        with pytest.raises(BoxesError, match=told):
            boxes_of(write(tmp_path / "b.txt", text), tmp_path / "a.mp4", ("a.mp4",))
    (tmp_path / "b.csv").write_bytes(b"time,left\n\xff\xfe")
    with pytest.raises(BoxesError, match="save it as CSV in UTF-8"):
        check_source(tmp_path / "b.csv")
    with pytest.raises(BoxesError, match="no file or folder of boxes"):
        check_source(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    "text",
    [
        "\n1,7,10,20,30,60,1\n\n  \n2,7,10,20,30,60,1\n\n",
        "frame,id,bb_left,bb_top,bb_width,bb_height,conf,x,y,z\n1,7,10,20,30,60,1,-1,-1,-1\n2,7,10,20,30,60,1,-1,-1,-1\n",
        "Frame;Track ID;x;y;w;h\n1;7;10;20;30;60\n2;7;10;20;30;60\n",
        "# of our tracker\nframe_id track_id bbox_left bbox_top bbox_width bbox_height\n1 7 10 20 30 60\n"
        "2 7 10 20 30 60\n",
        "1  7  10  20  30  60  1\n2  7  10  20  30  60  1\n",
    ],
)
def test_files_of_the_mot_challenge_as_trackers_write_them(tmp_path: Path, text: str) -> None:
    video = film(tmp_path / "a.mp4", steps(3))
    found = boxes_of(write(tmp_path / "a.txt", text), video, ("a.mp4",))
    assert [box[1:6] for box in found] == [(10, 20, 40, 80, "7")] * 2


def test_what_is_written_is_read(tmp_path: Path) -> None:
    boxes = [Box(0.1, 1.25, 2, 30, 60, "0", 0.5), Box(1 / 3, 1, 2, 30, 60, "", 0.75)]
    path = tmp_path / "deep/boxes.csv"
    write_boxes(path, boxes, {"video": "a\nb\ud800", "damage": "here"})
    assert read_written(path) == (
        [boxes[0], boxes[1]._replace(time_s=0.333333)],
        {"damage": "here", "video": "a\nb\ud800"},
    )
    assert [file.name for file in path.parent.iterdir()] == ["boxes.csv"]
    assert boxes_of(path, tmp_path / "a.mp4", ("a.mp4",)) == read_written(path)[0]  # the same form
    with pytest.raises(BoxesError, match="not written by vireid"):
        read_written(write(tmp_path / "other.csv", "time,left,top,right,bottom\n"))
