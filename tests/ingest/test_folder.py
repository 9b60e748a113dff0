"""A folder of pictures: what is taken, what is left out, and that the latter is counted under its reason."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from vireid.images import SUFFIXES
from vireid.ingest.folder import LeftOut, Listing, list_folder


def put(path: Path, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 8)).save(path, kind)
    return path


def listed(root: Path) -> tuple[list[str], dict[str, int]]:
    found = list_folder(root, SUFFIXES)
    return ["/".join(parts) for parts in found.files], dict(found.left_out.counts)


def lines(root: Path) -> list[str]:
    return list(list_folder(root, SUFFIXES).left_out.lines())


def test_pictures_are_taken_by_suffix_or_by_how_they_begin(tmp_path: Path) -> None:
    for name in ("b/z.JPG", "b/a.tif", "a.jfif", "a.gif", "a.b/c.heic", "IMG_0001"):
        put(tmp_path / name)
    (tmp_path / "README").write_text("no picture")
    (tmp_path / "a.jpg.part").touch()
    (tmp_path / "raw.CR2").touch()
    files, left_out = listed(tmp_path)
    assert files == ["IMG_0001", "a.b/c.heic", "a.gif", "a.jfif", "b/a.tif", "b/z.JPG"]
    assert left_out == {"files of other kinds": 3}
    assert lines(tmp_path) == ["files of other kinds (3; .cr2 1, .part 1, no suffix 1): README, a.jpg.part, raw.CR2"]


@pytest.mark.parametrize(
    "folder",
    [".Trash-1000/files", ".thumbnails", "gate/@eaDir", "#recycle", "#snapshot/x", "$RECYCLE.BIN/S-1", "lost+found",
     "gate/.@__thumb", "@SynoEAStream", "FOUND.000", "__MACOSX", "System Volume Information"],
)  # fmt: skip
def test_what_systems_keep_among_the_files_is_left_out(tmp_path: Path, folder: str) -> None:
    put(tmp_path / "gate/1.png")
    put(tmp_path / folder / "2.png")
    put(tmp_path / folder / "more/3.png")
    assert listed(tmp_path) == (["gate/1.png"], {"files of the system or in hidden folders": 2})
    named = put(tmp_path / folder / "2.png").parent
    assert listed(named)[0] == ["2.png", "more/3.png"]  # the user named it


def test_hidden_files_are_counted_and_not_named(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")
    put(tmp_path / ".b.png")
    assert listed(tmp_path) == (["a.png"], {"hidden files": 2})
    assert lines(tmp_path) == ["hidden files (2), whose names begin with a dot"]


def test_masks_of_synthetic_people_are_left_out(tmp_path: Path) -> None:
    for name in ("cam1/1.png", "masks/cam1/1.png", "masks/cam1/2.png", "gate/masks/3.png"):
        put(tmp_path / name)
    assert listed(tmp_path)[0] == ["cam1/1.png", "gate/masks/3.png", "masks/cam1/1.png", "masks/cam1/2.png"]
    (tmp_path / "synthetic.json").write_text("{}")
    names, reasons = listed(tmp_path)
    assert names == ["cam1/1.png", "gate/masks/3.png"] and reasons["masks of synthetic people"] == 2


def test_galleries_are_left_out(tmp_path: Path) -> None:
    put(tmp_path / "gate/1.png")
    put(tmp_path / "g/records.lance/1.png")
    put(tmp_path / "g.files/thumbnails/ab/2.jpg")
    put(tmp_path / "elsewhere/thumbnails/ab/3.jpg")
    (tmp_path / "elsewhere/audit.jsonl").touch()
    put(tmp_path / "thumbnails/4.png")  # a folder of the user's that has the name
    assert listed(tmp_path) == (["gate/1.png", "thumbnails/4.png"], {"folders of galleries": 3})


def test_links_are_followed_and_nothing_is_listed_twice(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    put(root / "gate/1.png")
    put(tmp_path / "nas/hall/2.png")
    put(tmp_path / "nas/3.png")
    links = {
        "a_latest": root / "gate", "hall": tmp_path / "nas/hall", "one.png": tmp_path / "nas/3.png",
        "same.png": root / "gate/1.png", "broken.png": tmp_path / "gone.png", "circle": root / "circle",
        "gate/up": tmp_path, "gate/here": root,
    }  # fmt: skip
    for name, target in links.items():
        (root / name).symlink_to(target)
    files, left_out = listed(root)
    assert files == ["gate/1.png", "hall/2.png", "one.png"]
    assert left_out == {
        "links to what is listed under its own name": 2,
        "links that lead nowhere": 2,
        "links to a folder around the one that is indexed": 2,
    }
    assert "links that lead nowhere (2): broken.png, circle" in lines(root)


def test_pipes_sockets_and_closed_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "closed/b.png")
    os.mkfifo(tmp_path / "c.png")
    with socket.socket(socket.AF_UNIX) as opened:
        monkeypatch.chdir(tmp_path)
        opened.bind("d.png")
    scandir = os.scandir

    def refuse(place: str) -> object:
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    files, left_out = listed(tmp_path)
    assert files == ["a.png"]
    assert left_out == {"pipes, sockets and devices": 2, "folders that cannot be opened": 1}
    assert "folders that cannot be opened (1): closed (Permission denied)" in lines(tmp_path)


def test_names_of_any_bytes(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    for name in (b"\xd0\xd0.png", b"line\nend.png", b"\xff.txt"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    files, _ = listed(tmp_path)
    assert set(map(os.fsencode, files)) == {b"a.png", b"\xd0\xd0.png", b"line\nend.png"}
    assert lines(tmp_path) == ["files of other kinds (1): \\udcff.txt"]


def test_many_names_are_cut_short() -> None:
    left_out = LeftOut()
    for number in range(7):
        left_out.add("files of other kinds", f"{number}.txt")
    [line] = left_out.lines()
    assert line == "files of other kinds (7): 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more" and left_out.total == 7
    both = LeftOut()
    both.take_over(left_out)
    both.take_over(left_out)
    assert both.total == 14 and len(both.names["files of other kinds"]) == 14
    assert not Listing(Path(), [], both).has((".mp4",)) and Listing(Path(), [("a.MP4",)], both).has((".mp4",))
