"""`thermal_low` and `thermal_high` of a manifest: how a camera's pictures of more than 8 bits are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vireid.data import cache, datasets
from vireid.data.table import Table
from vireid.errors import DataError
from vireid.images import STRETCH, GrayRule, read, resize

HEAD = "path,pid,camid,modality,split,thermal_low,thermal_high\n"
LINES = "1.png,1,1,visible,test,,\n2.png,1,2,infrared,test,7000,9000\n3.png,2,2,ir,test,,\n4.png,2,3,ir,test,0,60000\n"
SIZE = (32, 16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(1, 5):
        values = np.random.RandomState(number).uniform(7500, 8200, (32, 16)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    return tmp_path


def load(folder: Path, lines: str = LINES, head: str = HEAD) -> Table:
    (folder / "manifest.csv").write_text(head + lines)
    return datasets.load(f"manifest={folder}")


def pixels(folder: Path, name: str, rule: GrayRule) -> np.ndarray:
    return resize(read(folder / name, gray=rule), SIZE)


def test_rows_are_read_by_the_range_of_their_camera(folder: Path) -> None:
    table = load(folder)
    assert [table.gray(row, STRETCH).ends for row in range(4)] == [None, (7000, 9000), (7000, 9000), (0, 60_000)]
    assert table.gray_words(STRETCH) == "percentiles 1 to 99; camera 2: 7000 to 9000; camera 3: 0 to 60000"
    cached = cache.pixels(table, SIZE, progress=False)
    rules = (STRETCH, GrayRule(7000, 9000), GrayRule(7000, 9000), GrayRule(0, 60_000))
    for row, rule in enumerate(rules):
        assert np.array_equal(cached[row], pixels(folder, f"{row + 1}.png", rule))
    assert table[[3, 0]].gray(0, STRETCH) == GrayRule(0, 60_000)


def test_another_range_is_another_table_and_its_pictures_are_decoded_again(folder: Path) -> None:
    without = load(folder, LINES.replace("7000,9000", ",").replace("0,60000", ","))
    plain = load(
        folder, "\n".join(line.rsplit(",", 2)[0] for line in LINES.splitlines()), HEAD.rsplit(",", 2)[0] + "\n"
    )
    assert without.thermal_ranges is None and without.fingerprint == plain.fingerprint
    assert np.array_equal(cache.pixels(without, SIZE, progress=False)[1], pixels(folder, "2.png", STRETCH))
    prints = {plain.fingerprint}
    for low, high in ((7000, 9000), (7400, 8000)):
        table = load(folder, LINES.replace("7000,9000", f"{low},{high}"))
        prints.add(table.fingerprint)
        assert cache.cache_info(table, SIZE).current == 1 + (low > 7000)  # what no range, or the same one, decoded
        assert np.array_equal(
            cache.pixels(table, SIZE, progress=False)[1], pixels(folder, "2.png", GrayRule(low, high))
        )
    assert len(prints) == 3


@pytest.mark.parametrize(("changed", "told"), [
    (("7000,9000", "9000,7000"), "line 3: thermal_low and thermal_high: expected a lower and a higher number"),
    (("7000,9000", "7000,"), "line 3: thermal_low and thermal_high: expected a number"),
    (("ir,test,,", "ir,test,1,2"), "line 4: camera 2 has the range 1 to 2 here and 7000 to 9000 before"),
])  # fmt: skip
def test_a_bad_range_is_named(folder: Path, changed: tuple[str, str], told: str) -> None:
    with pytest.raises(DataError, match=told):
        load(folder, LINES.replace(*changed))


def test_one_column_alone_is_refused(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"expected both columns thermal_low and thermal_high, came `thermal_low` alone"
    ):
        load(folder, "1.png,1,1,visible,test,5\n", HEAD.replace(",thermal_high", ""))
