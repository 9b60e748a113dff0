"""LLCM: the draw against a walk over the copies, the honest rule, the exchanged branch under its own name."""

import random
from pathlib import Path

import numpy as np
import pytest

from vireid.data import datasets
from vireid.data.datasets import llcm
from vireid.data.table import table_from_columns
from vireid.errors import DataError

CAMERAS = {"vis": (1, 2, 3, 9), "nir": (1, 5, 6)}


def write_lists(root: Path, copies: bool = True) -> Path:
    """A small LLCM: shuffled idx lists and, for the test part, copies by camera as the official reader wants."""
    chance = random.Random(1)
    (root / "idx").mkdir(parents=True)
    for kind, cameras in CAMERAS.items():
        (root / kind).mkdir()
        for split, pids in (("train", (1, 4)), ("test", (1020, 7, 333))):
            lines = []
            for label, pid in enumerate(pids):
                for camera in chance.sample(cameras, 2):
                    for _ in range(chance.randint(1, 5)):
                        clock, frame = chance.randint(100000, 235959), chance.randint(1, 99999)
                        name = f"{pid:04d}_c{camera:02d}_s{clock}_f{frame}_{kind}.jpg"
                        lines.append(f"{kind}/{pid:04d}/{name} {label}")
                        if copies and split == "test":
                            folder = root / f"test_{kind}" / f"cam{camera}" / f"{pid:04d}"
                            folder.mkdir(parents=True, exist_ok=True)
                            (folder / name).touch()
            chance.shuffle(lines)
            (root / "idx" / f"{split}_{kind}.txt").write_text("\n".join(lines) + "\n")
    return root


def walked(root: Path, kind: str, seed: int) -> list[str]:
    """An independent reading of the rule: walk the copies, draw with the global generator."""
    random.seed(seed)
    chosen = []
    for pid in (7, 333, 1020):
        for camera in range(1, 10):
            folder = root / f"test_{kind}" / f"cam{camera}" / f"{pid:04d}"
            if folder.is_dir():
                chosen.append(random.choice(sorted(path.name for path in folder.iterdir())))
    return chosen


@pytest.mark.parametrize(("query", "gallery"), [("vis", "nir"), ("nir", "vis")])
def test_draw_equals_walking_the_copies(tmp_path, query, gallery):
    table = datasets.load(write_lists(tmp_path))
    direction = {"vis": "visible-to-infrared", "nir": "infrared-to-visible"}[query]
    protocol = datasets.protocol(f"llcm/{direction}", table)
    trials = protocol.trials(table)
    assert len(trials) == 10 and protocol.cmc_over_pids
    for t, (queries, rows) in enumerate(trials):
        assert [path.rpartition("/")[2] for path in table.path[rows]] == walked(tmp_path, gallery, t)
        every = (table.split == "test") & (table.modality == llcm.KINDS[query])
        np.testing.assert_array_equal(np.sort(queries), np.flatnonzero(every))


def test_extras_and_splits(tmp_path):
    table = llcm.load(write_lists(tmp_path))
    assert table.dataset == "llcm" and set(table.where("train").pids) == {1, 4}
    for path, pid, camera, clock, frame in zip(
        table.path, table.pid, table.camid, table.extras["time"], table.extras["frame"], strict=True
    ):
        assert path.rpartition("/")[2].startswith(f"{pid:04d}_c{camera:02d}_s{clock}_f{frame}_")


def test_honest_rule_hides_the_same_person_in_the_same_camera_only(tmp_path):
    table = llcm.load(write_lists(tmp_path))
    protocol = llcm.protocols["llcm/infrared-to-visible"]
    queries, gallery = protocol.trials(table)[0]
    ignored = protocol.ignore(table[queries], table[gallery])
    assert ignored is not None
    for i, q in enumerate(queries):
        for j, g in enumerate(gallery):
            assert ignored[i, j] == (table.pid[q] == table.pid[g] and table.camid[q] == table.camid[g])


def test_published_code_exchanges_query_and_gallery(tmp_path):
    table = llcm.load(write_lists(tmp_path))
    honest = llcm.protocols["llcm/visible-to-infrared"].trials(table)
    exchanged = llcm.protocols["llcm/visible-to-infrared/as-published-code"].trials(table)
    for (queries, gallery), (rows, columns) in zip(honest, exchanged, strict=True):
        np.testing.assert_array_equal(rows, gallery)
        np.testing.assert_array_equal(columns, queries)
        assert set(table.modality[rows]) == {1}  # the queries are infrared whatever the name says


def test_all_images(tmp_path):
    table = llcm.load(write_lists(tmp_path))
    [(queries, gallery)] = llcm.protocols["llcm/infrared-to-visible/all-images"].trials(table)
    assert len(queries) + len(gallery) == len(table.where("test"))


def test_gallery_sizes_of_the_release():
    """One picture per identity and camera: 484 visible, 619 infrared, of 8,680 and 7,166."""
    columns: dict[str, list] = {name: [] for name in ("path", "pid", "camid", "modality", "split")}
    for (split, modality, camera), (pids, images) in llcm.PUBLISHED.items():
        for n in range(images):
            pid = n % pids + (0 if split == "train" else 2000)
            values = (f"{pid}_{modality}_{camera}_{n:05d}.jpg", pid, camera, modality, split)
            for name, value in zip(columns, values, strict=True):
                columns[name].append(value)
    table = table_from_columns(Path("nowhere"), columns, "llcm")
    assert len(table) == 46767 and len(table.where("test")) == 15846 and len(table.where("train")) == 30921
    queries, gallery = llcm.protocols["llcm/infrared-to-visible"].trials(table)[0]
    assert (len(queries), len(gallery)) == (7166, 484)
    queries, gallery = llcm.protocols["llcm/visible-to-infrared"].trials(table)[0]
    assert (len(queries), len(gallery)) == (8680, 619)


def test_faults(tmp_path):
    root = write_lists(tmp_path)
    path = root / "idx" / "test_nir.txt"
    text = path.read_text()
    path.write_text(text.replace("nir/0007/", "nir/0008/"))
    with pytest.raises(DataError, match=r"expected nir/0250"):
        llcm.load(root)
    path.write_text(text.replace("nir/0007/0007_", "nir/0004/0004_"))
    with pytest.raises(DataError, match="identity 4 is in the train and the test lists"):
        llcm.load(root)
    path.unlink()
    with pytest.raises(DataError, match=r"test_nir\.txt is missing"):
        llcm.load(root)
