"""Market-1501: names, splits, junk and distractors of the published protocol."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vireid.data import datasets
from vireid.data.check import check
from vireid.data.datasets import market1501
from vireid.data.table import Table
from vireid.errors import DataError

FILES = {
    "bounding_box_train": ("0002_c1s1_000451_03.jpg", "0002_c2s1_000551_01.jpg", "0007_c3s3_077419_03.jpg"),
    "query": ("0001_c1s1_001051_00.jpg",),
    "bounding_box_test": (
        "-1_c1s1_000401_03.jpg",
        "0000_c1s1_000151_01.jpg",
        "0001_c1s1_001051_03.jpg",
        "0001_c2s1_000301_00.jpg",
        "Thumbs.db",
    ),
}


def tree(root: Path, **more: str) -> Path:
    """A folder of this layout; `more` are further names by folder."""
    for folder, names in FILES.items():
        (root / folder).mkdir(parents=True)
        all_names = [*names, more[folder]] if folder in more else [*names]
        for number, name in enumerate(all_names):
            color = (40 * number, 20 * len(folder) % 256, 128)
            Image.new("RGB", (16, 32), color).save(root / folder / name, "JPEG")
    return root


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return datasets.load(tree(tmp_path))


def test_names_say_who_where_and_when(table: Table) -> None:
    assert table.dataset == "market1501" and not table.modality.any()
    rows = [tuple(row) for row in zip(table.split, table.pid.tolist(), table.camid.tolist(), strict=True)]
    train = [("train", 2, 1), ("train", 2, 2), ("train", 7, 3)]
    assert rows == [
        *train,
        ("query", 1, 1),
        ("gallery", -1, 1),
        ("gallery", 0, 1),
        ("gallery", 1, 1),
        ("gallery", 1, 2),
    ]
    assert table.extras["sequence"].tolist()[2] == 3 and table.extras["frame"].tolist()[2] == 77419


def test_junk_is_not_in_the_gallery_and_distractors_are(table: Table) -> None:
    protocol = datasets.protocol("market1501/visible-to-visible", table)
    ((queries, gallery),) = protocol.trials(table)
    assert table.path[queries].tolist() == ["query/0001_c1s1_001051_00.jpg"]
    assert table.pid[gallery].tolist() == [0, 1, 1]
    ignored = protocol.ignore(table[queries], table[gallery])
    assert ignored is not None and ignored.tolist() == [[False, True, False]]


def test_names_without_a_sequence(tmp_path: Path) -> None:
    table = datasets.load(tree(tmp_path, bounding_box_train="0009_c2_f0046182.jpg"))
    row = table.pid.tolist().index(9)
    assert (table.camid[row], table.extras["sequence"][row], table.extras["frame"][row]) == (2, 0, 46182)


def test_check_says_how_to_train_and_what_cannot_be_tested(tmp_path: Path) -> None:
    report = check(tree(tmp_path), workers=1, progress=False)
    assert report.ok and report.title == "Market-1501"
    assert [fault.what for fault in report.faults] == [
        "the train part has visible pictures only",
        "the test part has visible pictures only",
    ]
    assert "pseudo_infrared=true" in report.faults[0].to_do


@pytest.mark.parametrize(
    ("folder", "name", "message"),
    [
        ("query", "0001.jpg", r"expected names like 0002_c1s1_000451_03.jpg, came 0001.jpg"),
        ("bounding_box_train", "-1_c1s1_000401_03.jpg", "has no identity, which the gallery alone may have"),
        ("bounding_box_train", "0001_c4s1_000401_03.jpg", "identity 1 is in the training and in the test folders"),
    ],
)
def test_what_the_layout_excludes_is_refused(folder: str, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        market1501.load(tree(tmp_path, **{folder: name}))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    (tree(tmp_path) / "query").rename(tmp_path / "queries")
    with pytest.raises(DataError, match="query"):
        market1501.load(tmp_path)
