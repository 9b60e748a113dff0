"""RegDB: ten splits of 412 identities, identities from the path, one trial per table."""

import numpy as np
import pytest
from regdb_files import write_lists

from vireid.data import datasets
from vireid.data.datasets import regdb
from vireid.errors import DataError


def test_counts_of_each_trial(tmp_path):
    write_lists(tmp_path)
    first, second = datasets.load(tmp_path), datasets.load(f"regdb={tmp_path}", trial=1)
    for trial, table in enumerate((first, second)):
        assert table.partition == f"regdb trial {trial}" and table.dataset == "regdb"
        for (split, camera), counts in regdb.PUBLISHED.items():
            rows = (table.split == split) & (table.camid == camera)
            assert (len(np.unique(table.pid[rows])), rows.sum()) == counts
        assert not set(table.where("train").pids) & set(table.where("test").pids)
    assert set(first.where("test").pids) != set(second.where("test").pids)
    assert first.fingerprint != second.fingerprint
    assert set(first.camid[first.modality == 0]) == {1} and set(first.camid[first.modality == 1]) == {2}


def test_identity_and_extras_come_from_the_path(tmp_path):
    table = regdb.load(write_lists(tmp_path, people=6, trials=1))
    row = 17
    sex, view, _, frame, pid = table.path[row].rpartition("/")[2].removesuffix(".bmp").split("_")
    assert (table.pid[row], table.extras["frame"][row]) == (int(pid), int(frame))
    assert (table.extras["sex"][row], table.extras["view"][row]) == (sex, view)


@pytest.mark.parametrize(("direction", "query"), [("visible-to-infrared", 0), ("infrared-to-visible", 1)])
def test_protocol_takes_all_images(tmp_path, direction, query):
    table = regdb.load(write_lists(tmp_path, trials=1))
    protocol = datasets.protocol(f"regdb/{direction}", table)
    [(queries, gallery)] = protocol.trials(table)
    assert len(queries) == len(gallery) == 2060 and not protocol.cmc_over_pids
    assert set(table.modality[queries]) == {query} and set(table.modality[gallery]) == {1 - query}
    assert set(table.split[queries]) == {"test"}
    assert protocol.ignore(table[queries], table[gallery]) is None
    assert ((table.pid[queries][:, None] == table.pid[gallery]).sum(axis=1) == 10).all()


def test_faults(tmp_path):
    root = write_lists(tmp_path, people=6, trials=1)
    for trial in (-1, 10, "3", True):
        with pytest.raises(DataError, match="trials 0 to 9"):
            regdb.load(root, trial=trial)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match=r"train_visible_10\.txt is missing"):
        regdb.load(root, trial=9)
    path = root / "idx" / "test_thermal_1.txt"
    text = path.read_text()
    path.write_text(text.replace("Thermal/", "Visible/"))
    with pytest.raises(DataError, match=r"expected Thermal/ID"):
        regdb.load(root)
    path.write_text("\n".join(reversed([line.rpartition(" ")[0] for line in text.splitlines()])))
    with pytest.raises(DataError, match="line 1: expected `PATH LABEL`"):
        regdb.load(root)
    lines = text.splitlines()
    for again in (lines[0], lines[0].replace("/", "\\"), "./" + lines[0], lines[0].replace(" ", "\t")):
        path.write_text("\n".join([*lines, again]))
        with pytest.raises(DataError, match=rf"line {len(lines) + 1}: Thermal/.* listed twice, first in line 1"):
            regdb.load(root)
    path.write_text("\n".join([lines[0].rpartition(" ")[0] + " 1", *lines[1:]]))
    with pytest.raises(DataError, match=r"label 1 means identity \d and \d"):
        regdb.load(root)
    for kind in ("visible", "thermal"):
        source = root / "idx" / f"train_{kind}_1.txt"
        (root / "idx" / f"test_{kind}_1.txt").write_text(source.read_text())
    with pytest.raises(DataError, match="train and test lists of trial 0"):
        regdb.load(root)
