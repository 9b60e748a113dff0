"""Pixel cache: Pillow's pixels, resume after a kill, changed sources, bad pictures, a full disk, two builders."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vireid.data import cache, cache_build
from vireid.data.table import Table, table_from_columns
from vireid.errors import DataError
from vireid.images import GrayRule, read, resize

SIZE = (24, 12)


def picture_table(root: Path, rows: int = 12, suffix: str = "png") -> Table:
    """A folder of noise pictures of different sizes and its table."""
    random = np.random.RandomState(rows)
    names = [f"cam{row % 3}/{row:04d}.{suffix}" for row in range(rows)]
    for name in names:
        height, width = random.randint(20, 60, 2)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(0, 256, (height, width, 3), dtype=np.uint8)).save(root / name)
    return table_of(root, names)


def table_of(root: Path, names: list[str]) -> Table:
    rows = len(names)
    columns = {
        "path": names,
        "pid": range(rows),
        "camid": [1] * rows,
        "modality": [0] * rows,
        "split": ["train"] * rows,
    }
    return table_from_columns(root, columns, dataset="test-set")


def by_pillow(table: Table, filter: Image.Resampling = Image.Resampling.LANCZOS) -> np.ndarray:
    pictures = []
    for row in range(len(table)):
        with Image.open(table.full_path(row)) as image:
            pictures.append(np.asarray(image.convert("RGB").resize((SIZE[1], SIZE[0]), filter)))
    return np.stack(pictures)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures that are decoded in this process during the test."""
    names: list[str] = []
    original = cache_build.decode

    def counted(file: Path, name: str, form: cache_build.Form) -> tuple[np.ndarray, tuple[int, int]]:
        names.append(file.name)
        return original(file, name, form)

    monkeypatch.setattr(cache_build, "decode", counted)
    return names


def leftovers(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if "partial" in file.name]


def test_pixels_are_pillows(tmp_path: Path) -> None:
    table = picture_table(tmp_path)
    array = cache.pixels(table, SIZE)
    assert array.dtype == np.uint8 and array.shape == (12, *SIZE, 3)
    np.testing.assert_array_equal(array, by_pillow(table))
    assert isinstance(array, np.memmap) and not array.flags.writeable
    for filter in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR):
        other = cache.pixels(table, SIZE, filter=filter.name.lower())
        np.testing.assert_array_equal(other, by_pillow(table, filter))
        assert not np.array_equal(array, other)
    random, sizes = np.random.RandomState(12), []
    for _ in range(12):  # as picture_table draws them
        sizes.append(random.randint(20, 60, 2))
        random.randint(0, 256, (*sizes[-1], 3), dtype=np.uint8)
    np.testing.assert_array_equal(cache.source_sizes(table, SIZE), sizes)
    assert leftovers(cache.default_folder(tmp_path)) == []


def test_single_channel_and_palette_pictures_become_rgb(tmp_path: Path) -> None:
    gray = Image.fromarray(np.arange(600, dtype=np.uint8).reshape(30, 20) % 255)
    gray.save(tmp_path / "infrared.png")
    gray.convert("RGB").quantize(8).save(tmp_path / "palette.png")
    table = table_of(tmp_path, ["infrared.png", "palette.png"])
    array = cache.pixels(table, SIZE)
    np.testing.assert_array_equal(array, by_pillow(table))
    assert (array[0, ..., 0] == array[0, ..., 2]).all()


def test_every_other_kind_of_picture_is_that_of_the_reader(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    Image.fromarray(random.randint(7000, 9000, (30, 20)).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(random.randint(0, 256, (30, 20, 4), dtype=np.uint8)).save(tmp_path / "cut-out.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(random.randint(0, 256, (30, 20, 3), dtype=np.uint8)).save(tmp_path / "turned.png", exif=exif)
    table = table_of(tmp_path, ["deep.png", "cut-out.png", "turned.png"])
    array = cache.pixels(table, SIZE)
    for row in range(3):
        np.testing.assert_array_equal(array[row], resize(read(table.full_path(row)), SIZE))
    assert cache.source_sizes(table, SIZE).tolist() == [[30, 20], [30, 20], [20, 30]]
    fixed = GrayRule(7000, 9000)
    other = cache.pixels(table, SIZE, gray=fixed)
    assert cache.cache_path(table, SIZE, gray=fixed) != cache.cache_path(table, SIZE)
    np.testing.assert_array_equal(other[0], resize(read(table.full_path(0), gray=fixed), SIZE))
    assert not np.array_equal(other[0], array[0]) and np.array_equal(other[1], array[1])


def test_a_file_of_an_earlier_reader_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    table = picture_table(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(cache_build, "READER", 1)  # what version 0.1 wrote
        cache.pixels(table, SIZE)
    decoded.clear()
    assert cache.cache_info(table, SIZE).current == 0
    np.testing.assert_array_equal(cache.pixels(table, SIZE), by_pillow(table))
    assert len(decoded) == 12 and cache.cache_info(table, SIZE).complete


def test_pictures_of_equal_size_and_time_that_change_places(tmp_path: Path, decoded: list[str]) -> None:
    table = table_of(tmp_path, ["a.bmp", "b.bmp", "c.bmp"])
    for level, name in enumerate(table.path.tolist()):
        Image.new("RGB", (20, 30), (40 * level, 0, 0)).save(tmp_path / name)
        os.utime(tmp_path / name, (1e9, 1e9))
    assert cache.pixels(table, SIZE)[:, 0, 0, 0].tolist() == [0, 40, 80]
    (tmp_path / "a.bmp").rename(tmp_path / "x.bmp")
    (tmp_path / "b.bmp").rename(tmp_path / "a.bmp")
    (tmp_path / "x.bmp").rename(tmp_path / "b.bmp")
    decoded.clear()
    assert cache.pixels(table, SIZE)[:, 0, 0, 0].tolist() == [40, 0, 80]
    assert sorted(decoded) == ["a.bmp", "b.bmp"]
    (tmp_path / "c.bmp").chmod(0o600)  # another change time, and the same picture
    decoded.clear()
    assert cache.cache_info(table, SIZE).current == 2
    assert cache.pixels(table, SIZE)[:, 0, 0, 0].tolist() == [40, 0, 80]
    assert decoded == [] and cache.cache_info(table, SIZE).complete


def test_a_second_call_decodes_nothing(tmp_path: Path, decoded: list[str]) -> None:
    table = picture_table(tmp_path)
    before = cache.cache_info(table, SIZE)
    assert not before.complete and before.current == 0
    cache.pixels(table, SIZE)
    assert len(decoded) == 12
    cache.pixels(table, SIZE)
    assert len(decoded) == 12
    after = cache.cache_info(table, SIZE)
    assert after.complete and after.path == cache.cache_path(table, SIZE)
    assert after.path.stat().st_size == after.bytes


def test_only_changed_sources_are_decoded_again(tmp_path: Path, decoded: list[str]) -> None:
    table = picture_table(tmp_path)
    cache.pixels(table, SIZE)
    decoded.clear()
    changed = table.full_path(5)
    Image.fromarray(np.full((30, 20, 3), 9, dtype=np.uint8)).save(changed)
    same_bytes = table.full_path(7)
    os.utime(same_bytes, ns=(0, 12345))
    assert cache.cache_info(table, SIZE).current == 10
    array = cache.pixels(table, SIZE)
    assert sorted(decoded) == [changed.name, same_bytes.name]
    np.testing.assert_array_equal(array, by_pillow(table))


def test_a_part_or_an_extension_of_a_cached_table_decodes_only_what_is_new(tmp_path: Path, decoded: list[str]) -> None:
    table = picture_table(tmp_path)
    cache.pixels(table[np.arange(8)], SIZE)
    decoded.clear()
    part = table[np.array([6, 1, 3])]
    np.testing.assert_array_equal(cache.pixels(part, SIZE), by_pillow(part))
    assert decoded == []
    np.testing.assert_array_equal(cache.pixels(table, SIZE), by_pillow(table))
    assert len(decoded) == 4


def test_one_folder_serves_two_datasets_of_the_same_names(tmp_path: Path) -> None:
    first, second = picture_table(tmp_path / "a", 3), picture_table(tmp_path / "b", 4)[np.arange(3)]
    folder = tmp_path / "cache"
    one, two = cache.pixels(first, SIZE, folder=folder), cache.pixels(second, SIZE, folder=folder)
    np.testing.assert_array_equal(one, by_pillow(first))
    np.testing.assert_array_equal(two, by_pillow(second))
    assert len(list(folder.glob("*.npy"))) == 2


def test_a_folder_that_cannot_be_written_uses_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    table = picture_table(tmp_path / "data", 2)
    cache.pixels(table, SIZE)
    assert cache.cache_path(table, SIZE).parent == tmp_path / "user" / "vireid"
    assert cache.cache_path(table, SIZE).exists()


def test_workers_write_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_build, "CHUNK", 5)
    table = picture_table(tmp_path, 33)
    (tmp_path / "cam0" / "0003.png").write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=r"1 of 33 pictures .* cannot be read:\n  cam0/0003\.png cannot be read as a picture: "
    ):
        cache.pixels(table, SIZE, workers=2)
    picture_table(tmp_path, 33)
    np.testing.assert_array_equal(cache.pixels(table, SIZE, workers=2), by_pillow(table))


def test_unreadable_pictures_are_all_named_and_nothing_is_left(tmp_path: Path) -> None:
    table = picture_table(tmp_path, 9, suffix="jpg")
    for row in range(7):
        file = table.full_path(row)
        file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"7 of 9 pictures") as caught:
        cache.pixels(table, SIZE)
    assert "cam0/0000.jpg cannot be read as a picture: image file is truncated" in str(
        caught.value
    ) and "and 2 more" in str(caught.value)
    assert leftovers(cache.default_folder(tmp_path)) == [] and not cache.cache_path(table, SIZE).exists()
    table.full_path(0).unlink()
    with pytest.raises(DataError, match=r"1 of 9 pictures .*\n  cam0/0000\.jpg: No such file"):
        cache.pixels(table, SIZE)
    with pytest.raises(DataError, match="no rows"):
        cache.pixels(table[np.array([], dtype=int)], SIZE)
    with pytest.raises(ValueError, match="lanczos, bicubic, bilinear, got 'nearest'"):
        cache.pixels(table, SIZE, filter="nearest")


def test_a_damaged_cache_file_is_told(tmp_path: Path) -> None:
    table = picture_table(tmp_path)
    cache.pixels(table, SIZE)
    path = cache.cache_path(table, SIZE)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"is damaged .* delete it"):
        cache.pixels(table, SIZE)


def test_a_full_disk_is_told_before_and_during(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = picture_table(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: namedtuple("Usage", "total used free")(10, 10, 0))
        with pytest.raises(OSError, match=r"needs 0\.00 GB and 0\.00 GB are free; free some space") as caught:
            cache.pixels(table, SIZE)
        assert caught.value.errno == errno.ENOSPC
    folder = cache.default_folder(tmp_path)
    assert leftovers(folder) == []

    def full(*arguments: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full, raising=False)
        with pytest.raises(OSError, match="free some space"):
            cache.pixels(table, SIZE)
    assert leftovers(folder) == [] and not cache.cache_path(table, SIZE).exists()
    np.testing.assert_array_equal(cache.pixels(table, SIZE), by_pillow(table))


BUILDER = """
import sys, time
from pathlib import Path
import numpy as np
from vireid.data import cache, cache_build
from vireid.data.table import table_from_columns

root, rows, workers, wait_s = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
names = [f"cam{row % 3}/{row:04d}.png" for row in range(rows)]
columns = {"path": names, "pid": range(rows), "camid": [1] * rows, "modality": [0] * rows, "split": ["train"] * rows}
table = table_from_columns(root, columns, dataset="test-set")
original = cache_build.decode
def slow(*arguments):
    time.sleep(wait_s)
    return original(*arguments)
cache_build.decode, cache_build.FLUSH_S, cache_build.CHUNK = slow, 0.0, 3
print(int(cache.pixels(table, (24, 12), workers=workers).sum(dtype=np.int64)), flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is of POSIX")
def test_a_killed_build_continues_where_it_was(tmp_path: Path, decoded: list[str], start_python: Any) -> None:
    table = picture_table(tmp_path, 60)
    record = cache.cache_path(table, SIZE).with_suffix(".rows.partial")
    process = start_python("-c", BUILDER, tmp_path, 60, 2, 0.2)
    deadline = time.monotonic() + 300
    done = 0
    while done < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
        try:
            done = int(np.count_nonzero(np.load(record, mmap_mode="r")[:, cache_build.DONE]))
        except (FileNotFoundError, ValueError, EOFError):
            continue  # not there yet
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert 6 <= done < 60 and not cache.cache_path(table, SIZE).exists()
    changed = table.full_path(int(np.flatnonzero(np.load(record)[:, cache_build.DONE])[0]))
    Image.fromarray(np.full((30, 20, 3), 77, dtype=np.uint8)).save(changed)  # while nobody looked
    array = cache.pixels(table, SIZE)  # waits until the orphaned workers have ended and let the lock go
    np.testing.assert_array_equal(array, by_pillow(table))
    assert len(decoded) <= 60 - done + 1 and changed.name in decoded
    assert leftovers(cache.default_folder(tmp_path)) == []


def test_two_processes_build_one_file(tmp_path: Path, start_python: Any) -> None:
    table = picture_table(tmp_path, 24)
    first, second = (start_python("-c", BUILDER, tmp_path, 24, 1, 0.02) for _ in range(2))
    answers = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert first.returncode == second.returncode == 0
    assert {int(answer) for answer in answers} == {int(by_pillow(table).sum(dtype=np.int64))}
