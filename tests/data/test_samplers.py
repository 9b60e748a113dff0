"""Samplers: the published batches under the published seeds, epoch lengths, and what unusable data gets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from golden_files import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid.data.samplers import Chunks, IdentityBatches, PivotPairs, UnpairedBatches
from vireid.data.table import Table, table_from_columns
from vireid.errors import DataError
from vireid.types import INFRARED, VISIBLE


def table_of(pid: object, modality: object) -> Table:
    pid, modality = np.asarray(pid), np.asarray(modality)
    path = [f"{row}.png" for row in range(len(pid))]
    columns = {"path": path, "pid": pid, "camid": modality + 1, "modality": modality, "split": ["train"] * len(pid)}
    return table_from_columns(Path("."), columns, dataset="test")


def table_of_counts(visible: dict[int, int], infrared: dict[int, int]) -> Table:
    pids, modality = [], []
    for line, counts in ((VISIBLE, visible), (INFRARED, infrared)):
        for pid, count in counts.items():
            pids += [pid] * count
            modality += [line] * count
    return table_of(pids, modality)


def test_identity_batches_are_those_of_agw() -> None:
    golden = np.load(GOLDEN / "agw_identity_sampler.npz")
    visible, infrared = golden["label_color"], golden["label_thermal"]
    table = table_of(np.concatenate([visible, infrared]), [VISIBLE] * len(visible) + [INFRARED] * len(infrared))
    random = np.random.RandomState(int(golden["seed"]))
    sampler = IdentityBatches(pids=int(golden["batch_ids"]), images=int(golden["num_pos"]))
    for epoch in ("ep0", "ep1"):
        rows = np.concatenate(list(sampler.epoch(table, random)), axis=1)
        np.testing.assert_array_equal(rows[0], golden[f"index_color_{epoch}"])
        np.testing.assert_array_equal(rows[1], golden[f"index_thermal_{epoch}"] + len(visible))


def test_chunks_are_those_of_mpanet() -> None:
    golden = np.load(GOLDEN / "mpanet_sampler.npz")
    table = table_of(golden["ids"], np.where(np.isin(golden["cams"], (3, 6)), INFRARED, VISIBLE))
    random = np.random.RandomState(int(golden["seed"]))
    images = int(golden["k"]) // 2
    sampler = Chunks(pids=int(golden["batch"]) // int(golden["k"]), images=images)
    for epoch in ("epoch1", "epoch2"):
        rows = np.concatenate(list(sampler.epoch(table, random)), axis=1)
        np.testing.assert_array_equal(rows[1], golden[epoch][0::2])  # published: infrared and visible in turn
        np.testing.assert_array_equal(rows[0], golden[epoch][1::2])


def test_published_epoch_lengths() -> None:
    # SYSU-MM01: 395 training identities, 22,258 visible and 11,909 infrared images; RegDB: 206 x 10 x 10.
    pids = np.arange(395)
    sysu = table_of(
        np.concatenate([np.resize(pids, 22_258), np.resize(pids, 11_909)]),
        np.repeat([VISIBLE, INFRARED], [22_258, 11_909]),
    )
    regdb = table_of_counts({pid: 10 for pid in range(206)}, {pid: 10 for pid in range(206)})
    assert IdentityBatches().iterations(sysu) == 696
    assert len(list(IdentityBatches().epoch(regdb, np.random.RandomState(0)))) == 65
    assert len(list(Chunks(pids=12, images=5).epoch(regdb, np.random.RandomState(1)))) == 34
    assert 160 <= len(list(Chunks(pids=16, images=4).epoch(sysu, np.random.RandomState(1)))) <= 186


def test_identity_batches_keep_the_person_and_the_modality() -> None:
    table = table_of_counts({5: 3, 9: 1, 2: 7}, {9: 2, 5: 2, 2: 1})
    for rows in IdentityBatches(pids=2, images=3).epoch(table, np.random.RandomState(3)):
        assert rows.shape == (2, 6)
        np.testing.assert_array_equal(table.pid[rows[0]], table.pid[rows[1]])
        assert (table.modality[rows[0]] == VISIBLE).all() and (table.modality[rows[1]] == INFRARED).all()
        assert len(np.unique(table.pid[rows[0]])) == 2


@settings(max_examples=40)
@given(
    counts=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=3, max_size=8),
    images=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_chunks_use_long_lists_without_repeats(counts: list[tuple[int, int]], images: int, seed: int) -> None:
    visible, infrared = ({pid: pair[line] for pid, pair in enumerate(counts)} for line in (VISIBLE, INFRARED))
    table = table_of_counts(visible, infrared)
    batches = list(Chunks(pids=2, images=images).epoch(table, np.random.RandomState(seed)))
    rows = np.concatenate(batches, axis=1)
    np.testing.assert_array_equal(table.pid[rows[0]], table.pid[rows[1]])
    assert (table.modality[rows] == np.array([[VISIBLE], [INFRARED]])).all()
    for pid, pair in enumerate(counts):
        for line, count in zip(rows, pair, strict=True):
            drawn = line[table.pid[line] == pid]
            if count >= images:
                assert len(np.unique(drawn)) == len(drawn)
        assert (table.pid[rows[0]] == pid).sum() <= max(images, min(pair))


@pytest.mark.parametrize("sampler", [IdentityBatches(pids=2, images=2), Chunks(pids=2, images=2)])
def test_unusable_data_is_named(sampler: IdentityBatches | Chunks) -> None:
    random = np.random.RandomState(0)
    with pytest.raises(DataError, match=r"no infrared image: pid 7\b"):
        next(sampler.epoch(table_of_counts({7: 2, 8: 2, 9: 1}, {8: 2, 9: 1}), random))
    with pytest.raises(DataError, match=r"no visible image: pid 4\b"):
        next(sampler.epoch(table_of_counts({8: 2, 9: 2}, {8: 2, 9: 2, 4: 1}), random))
    with pytest.raises(DataError, match=r"sampler\.pids=1"):
        next(sampler.epoch(table_of_counts({8: 2}, {8: 2}), random))
    with pytest.raises(ValueError, match=r"pids\n.* greater than or equal to 1"):
        type(sampler)(pids=0)


@pytest.mark.parametrize("negatives", ["apart", "shared"])
@pytest.mark.parametrize("pids", [1, 2, 3])
def test_pivot_pairs_take_people_once_and_in_both_modalities(negatives: Literal["apart", "shared"], pids: int) -> None:
    table = table_of_counts({pid: 1 + pid % 3 for pid in range(10)}, {pid: 1 + pid % 2 for pid in range(10)})
    sampler = PivotPairs(pids=pids, batches=40, negatives=negatives)
    batches = list(sampler.epoch(table, np.random.RandomState(0)))
    assert len(batches) == sampler.iterations(table) == 40
    people = set()
    for rows in batches:
        assert rows.shape == (2, 3 * pids)
        assert (table.modality[rows[0]] == VISIBLE).all() and (table.modality[rows[1]] == INFRARED).all()
        pid = table.pid[rows]
        assert (pid[0] == pid[1]).all()
        units = pid[0].reshape(pids, 3)
        assert len(set(units.ravel())) == pids * (3 if negatives == "apart" else 2)
        assert ((units[:, 1] == units[:, 2]) == (negatives == "shared")).all()
        people |= set(units.ravel().tolist())
    assert people == set(range(10))
    again = list(sampler.epoch(table, np.random.RandomState(0)))
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_every_image_is_a_pivot_before_one_is_again() -> None:
    table = table_of_counts({pid: 3 for pid in range(6)}, {pid: 1 for pid in range(6)})  # 24 images
    rows = [r[:, 0].tolist() for r in PivotPairs(batches=24).epoch(table, np.random.RandomState(1))]
    visible = [v for v, _ in rows]
    assert set(visible) == set(range(18)), "the infrared pivots' partners are drawn, the visible pivots are all there"
    counts = np.bincount([table.pid[v] for v in visible])
    assert (counts == 4).all(), "each of a person's four images was its pivot once"
    twice = [r[:, 0].tolist() for r in PivotPairs(batches=48).epoch(table, np.random.RandomState(1))]
    assert twice[:24] == rows and (np.bincount([table.pid[v] for v, _ in twice]) == 8).all()


def test_pivot_pairs_say_how_many_people_they_need() -> None:
    table = table_of_counts({pid: 1 for pid in range(5)}, {pid: 1 for pid in range(5)})
    with pytest.raises(DataError, match=r"takes 6 identities, .* have 5; set sampler\.negatives=shared"):
        next(PivotPairs().epoch(table, np.random.RandomState(0)))
    assert len(list(PivotPairs(batches=2, negatives="shared").epoch(table, np.random.RandomState(0)))) == 2
    for wrong in ({"pids": 0}, {"batches": 0}, {"negatives": "none"}):
        with pytest.raises(ValueError, match="PivotPairs"):
            PivotPairs(**wrong)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=60)
def test_unpaired_batches_draw_every_image_before_one_twice(
    visible: int, infrared: int, images: int, batches: int, seed: int
) -> None:
    table = table_of(range(visible + infrared), [VISIBLE] * visible + [INFRARED] * infrared)  # nobody is seen twice
    sampler = UnpairedBatches(images=images, batches=batches)
    drawn = list(sampler.epoch(table, np.random.RandomState(seed)))
    assert len(drawn) == sampler.iterations(table) == batches
    assert all(rows.shape == (2, images) for rows in drawn)
    for line, rows in enumerate(np.concatenate(drawn, axis=1)):
        assert (table.modality[rows] == line).all()
        counts = np.bincount(rows, minlength=len(table))[table.modality == line]
        assert counts.max() - counts.min() <= 1
    again = list(sampler.epoch(table, np.random.RandomState(seed)))
    np.testing.assert_array_equal(drawn, again)


def test_unpaired_batches_do_not_pair() -> None:
    table = table_of([*range(200), *range(200)], [VISIBLE] * 200 + [INFRARED] * 200)
    (rows,) = UnpairedBatches(images=200, batches=1).epoch(table, np.random.RandomState(0))
    assert (table.pid[rows[0]] == table.pid[rows[1]]).sum() < 10  # about one by chance
    with pytest.raises(DataError, match="have no infrared image"):
        next(UnpairedBatches().epoch(table[table.modality == VISIBLE], np.random.RandomState(0)))
    with pytest.raises(ValueError, match=r"batches\n.* greater than or equal to 1"):
        UnpairedBatches(batches=0)
