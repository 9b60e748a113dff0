"""SYSU-MM01: loader on a small tree, both draws against recorded and independently written galleries, the room rule."""

import random
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from vireid.data import datasets
from vireid.data.datasets import sysu
from vireid.data.table import Table, table_from_columns
from vireid.errors import DataError

GOLDEN = Path(__file__).parents[2] / "golden" / "agw_sysu_gallery_trials.npz"


def in_memory(counts: dict[tuple[int, int], int], root: Path = Path("nowhere"), split: str = "test") -> Table:
    """A table with `counts[pid, camera]` pictures, in shuffled order: protocols must not depend on it."""
    rows = [(pid, camera, n + 1) for (pid, camera), count in counts.items() for n in range(count)]
    random.Random(3).shuffle(rows)
    columns = {
        "path": [f"cam{camera}/{pid:04d}/{n:04d}.jpg" for pid, camera, n in rows],
        "pid": [pid for pid, _, _ in rows],
        "camid": [camera for _, camera, _ in rows],
        "modality": [int(camera in (3, 6)) for _, camera, _ in rows],
        "split": [split] * len(rows),
    }
    return table_from_columns(root, columns, "sysu")


def true_structure() -> dict[tuple[int, int], int]:
    """Identities, cameras and counts of the published test part (which identity has which count is made up)."""
    indoor, others = list(range(1, 57)), list(range(57, 97))
    ids = {
        1: indoor,
        2: indoor,
        3: indoor[:54] + others[:39],
        4: (indoor + others)[:94],
        5: (indoor + others)[1:],
        6: indoor + others,
    }
    totals = {1: 1374, 2: 1565, 4: 1918, 5: 1918, 6: 1920}
    counts = {}
    for camera, people in ids.items():
        parts = [(people, totals[camera])] if camera != 3 else [(indoor[:54], 1088), (others[:39], 795)]
        for part, total in parts:
            for i, pid in enumerate(part):
                counts[pid, camera] = total // len(part) + (i < total % len(part))
    return counts


def write_permutations(root: Path, counts: dict[tuple[int, int], int], trials: int = 10) -> dict:
    """rand_perm_cam.mat of the owners' form: 6 x 1 cell of cells over identities, empty or (trials, n)."""
    random_state, drawn = np.random.RandomState(5), {}
    cells = np.empty((6, 1), dtype=object)
    for camera in range(1, 7):
        cell = np.empty((1, 333 if camera in (1, 2, 6) else 533), dtype=object)
        for index in range(cell.size):
            n = counts.get((index + 1, camera), 0)
            entry = np.stack([random_state.permutation(n) + 1 for _ in range(trials)]) if n else np.zeros((0, 0))
            cell[0, index] = entry.astype(np.uint8)
            drawn[camera, index + 1] = entry
        cells[camera - 1, 0] = cell
    (root / "exp").mkdir(exist_ok=True, parents=True)
    savemat(root / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": cells}, do_compression=True)
    return drawn


def tree(root: Path) -> Path:
    ids = {"train": [1, 2], "val": [334], "test": [6, 40], "available": [1, 2, 334, 6]}
    (root / "exp").mkdir(parents=True)
    for name, pids in ids.items():
        (root / "exp" / f"{name}_id.txt").write_text(",".join(map(str, pids)) + "\n")
    for camera in range(1, 7):
        for pid in (1, 2, 6, 40, 77, 334):
            folder = root / f"cam{camera}" / f"{pid:04d}"
            folder.mkdir(parents=True)
            for n in (1, 2, 3):
                (folder / f"{n:04d}.jpg").touch()
    (root / "cam1" / "0001" / "Thumbs.db").touch()
    (root / "cam1" / "0001" / "._0001.jpg").touch()
    (root / "cam1_2_video" / "cam1_video_train" / "0001").mkdir(parents=True)
    (root / "cam1_2_video" / "cam1_video_train" / "0001" / "0001.jpg").touch()
    return root


def test_load_reads_names_only(tmp_path):
    table = datasets.load(tree(tmp_path / "webcam3" / "SYSU-MM01"))  # "cam" in the root must not matter
    assert table.dataset == "sysu"
    assert len(table) == 4 * 6 * 3  # 40 is not available, 77 is in no list
    assert set(table.pids) == {1, 2, 6, 334}
    assert set(table.where("train").pids) == {1, 2} and set(table.where("val").pids) == {334}
    assert table.path[0] == "cam1/0001/0001.jpg" and table.full_path(0).is_file()
    assert set(table.camid[table.modality == 1]) == {3, 6} and set(table.camid[table.modality == 0]) == {1, 2, 4, 5}


def test_only_plain_digits_are_numbers(tmp_path):
    root = tree(tmp_path / "sysu")
    before = sysu.load(root).fingerprint
    for name in ("²", "０００１", "000²"):
        (root / "cam1" / name).mkdir()
        (root / "cam1" / name / "0001.jpg").touch()
    assert sysu.load(root).fingerprint == before
    (root / "exp" / "val_id.txt").write_text("334,²")
    with pytest.raises(DataError, match=r"expected integers between commas .*came '²'"):
        sysu.load(root)


def test_load_says_what_is_missing(tmp_path):
    root = tree(tmp_path / "sysu")
    (root / "exp" / "val_id.txt").unlink()
    with pytest.raises(DataError, match=r"val_id\.txt is missing.*val part"):
        sysu.load(root)
    (root / "exp" / "val_id.txt").write_text("334,x\n")
    with pytest.raises(DataError, match="expected integers"):
        sysu.load(root)
    (root / "exp" / "val_id.txt").write_text("1\n")
    with pytest.raises(DataError, match=r"identity 1 stands in train_id\.txt and val_id\.txt"):
        sysu.load(root)
    (root / "exp" / "val_id.txt").write_text("334\n")
    (root / "cam5").rename(root / "cam_5")
    with pytest.raises(DataError, match="missing cam5"):
        sysu.load(root)
    with pytest.raises(DataError, match="found nothing"):
        sysu.load(tmp_path / "absent")


def test_keypoints_are_attached(tmp_path):
    root = tree(tmp_path)
    points = np.arange(2 * 17 * 3, dtype=np.float64).reshape(2, 17, 3)
    np.savez(root / "keypoints.npz", path=["cam2/0006/0002.jpg", "cam9/none.jpg"], keypoints=points)
    table = sysu.load(root)
    column = table.extras["keypoints"]
    row = table.path.tolist().index("cam2/0006/0002.jpg")
    assert column.shape == (len(table), 17, 3) and column.dtype == np.float32
    np.testing.assert_array_equal(column[row], points[0])
    assert np.isnan(np.delete(column, row, axis=0)).all()
    np.savez(root / "keypoints.npz", path=["a"], keypoints=np.zeros((1, 5, 3)))
    with pytest.raises(DataError, match=r"shape \(1, 17, 3\)"):
        sysu.load(root)


@pytest.mark.parametrize("mode", ["all", "indoor"])
def test_agw_draw_equals_recorded_galleries(mode):
    golden = np.load(GOLDEN)
    counts = {(int(p), c): int(golden["counts"][k, c]) for k, p in enumerate(golden["ids"]) for c in range(1, 7)}
    table = in_memory({key: n for key, n in counts.items() if n})
    number = sysu.image_numbers(table)
    trials = sysu.protocols[f"sysu/{mode}/single-shot/agw"].trials(table)
    assert len(trials) == 10
    for t, (query, gallery) in enumerate(trials):
        np.testing.assert_array_equal(number[gallery], golden[f"{mode}_picked_imgno"][t])
        np.testing.assert_array_equal(table.pid[gallery], golden[f"{mode}_gallery_id"])
        np.testing.assert_array_equal(table.camid[gallery], golden[f"{mode}_gallery_cam"])
        np.testing.assert_array_equal(table.pid[query], golden[f"{mode}_query_id"])
        np.testing.assert_array_equal(table.camid[query], golden[f"{mode}_query_cam"])
        np.testing.assert_array_equal(number[query], golden[f"{mode}_query_imgno"])


def test_choice_stream_is_that_of_python():
    stream = random.Random(0)  # recorded with random.seed(0) of CPython 3.11
    assert [stream.choice(range(20)) for _ in range(8)] == [12, 13, 1, 8, 16, 15, 12, 9]


@pytest.mark.parametrize(
    ("mode", "shots", "size"), [("all", 1, 301), ("all", 10, 3010), ("indoor", 1, 112), ("indoor", 10, 1120)]
)
def test_official_draw_follows_the_permutations(tmp_path, mode, shots, size):
    counts = true_structure()
    drawn, table = write_permutations(tmp_path, counts), in_memory(counts, tmp_path)
    protocol = datasets.protocol(f"sysu/{mode}/{'single' if shots == 1 else 'multi'}-shot", table)
    trials = protocol.trials(table)
    assert len(trials) == 10 and protocol.cmc_over_pids
    for t, (query, gallery) in enumerate(trials):
        wanted = [
            f"cam{camera}/{pid:04d}/{image:04d}.jpg"
            for camera in ((1, 2, 4, 5) if mode == "all" else (1, 2))
            for pid in range(1, 97)
            if (pid, camera) in counts
            for image in drawn[camera, pid][t][:shots]
        ]
        assert table.path[gallery].tolist() == wanted and len(wanted) == size
        assert len(query) == 3803 and set(table.camid[query]) == {3, 6}


def test_indoor_has_2208_valid_queries():
    table = in_memory(true_structure())
    protocol = sysu.protocols["sysu/indoor/single-shot/agw"]
    query, gallery = protocol.trials(table)[0]
    match = table.pid[query][:, None] == table.pid[gallery][None, :]
    ignored = protocol.ignore(table[query], table[gallery])
    assert ignored is not None
    valid = (match & ~ignored).any(axis=1)
    assert valid.sum() == 2208 and valid[table.camid[query] == 3].sum() == 1088


def test_room_rule_hides_every_identity_of_camera_2():
    table = in_memory({(pid, camera): 1 for pid in (1, 2) for camera in range(1, 7)})
    query, gallery = table.where(modality=1), table.where(modality=0)
    ignored = sysu.ignore_same_room(query, gallery)
    for q in range(len(query)):
        for g in range(len(gallery)):
            assert ignored[q, g] == (query.camid[q] == 3 and gallery.camid[g] == 2)
    np.testing.assert_array_equal(sysu.ignore_same_room(query[1:2], gallery), ignored[1:2])  # blockwise


def test_missing_or_foreign_permutations(tmp_path):
    counts = {(pid, camera): 12 for pid in (3, 5) for camera in range(1, 7)}
    table, protocol = in_memory(counts, tmp_path), sysu.protocols["sysu/all/multi-shot"]
    with pytest.raises(DataError, match=r"rand_perm_cam\.mat is missing.*wuancong/SYSU-MM01.*draw=agw"):
        protocol.trials(table)
    write_permutations(tmp_path, counts | {(3, 4): 13})
    with pytest.raises(DataError, match=r"draws cam4/0003/0013\.jpg"):
        sysu.official_trials((4,), 13)(table)
    write_permutations(tmp_path, {(3, camera): 12 for camera in range(1, 7)})
    with pytest.raises(DataError, match="no entry for camera 1, identity 5"):
        protocol.trials(table)
    (tmp_path / "exp" / "rand_perm_cam.mat").write_bytes(b"not a MATLAB file, but long enough to be opened as one" * 9)
    with pytest.raises(DataError, match="cannot be read"):
        protocol.trials(table)
    savemat(tmp_path / "exp" / "rand_perm_cam.mat", {"other": 1})
    with pytest.raises(DataError, match="expected a variable"):
        protocol.trials(table)


def test_names_and_stamps():
    assert sorted(sysu.protocols) == sorted(
        f"sysu/{mode}/{tail}" for mode in ("all", "indoor") for tail in ("single-shot", "multi-shot", "single-shot/agw")
    )
    assert set(sysu.GALLERY_SUMS) == set(sysu.protocols)
    assert sysu.protocols["sysu/all/multi-shot"].stamp["shots"] == "10"
    stamps = [tuple(p.stamp.items()) for p in sysu.protocols.values()]
    assert len(set(stamps)) == len(stamps)


def test_published_totals():
    def total(parts, cameras):
        return sum(sysu.PUBLISHED[p, c][1] for p in parts for c in cameras if (p, c) in sysu.PUBLISHED)

    assert (total(["train", "val"], (1, 2, 4, 5)), total(["train", "val"], (3, 6))) == (22258, 11909)
    assert (total(["test"], (1, 2, 4, 5)), total(["test"], (3, 6))) == (6775, 3803)
