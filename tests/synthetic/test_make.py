"""The synthetic set: determinism, official layouts and their loaders, keypoints and masks, refusal to overwrite."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vireid.data import datasets
from vireid.data.datasets.sysu import permutations
from vireid.errors import DataError
from vireid.synthetic import make as synthetic

SIZE = (64, 32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """layout -> root of a small set, made once."""
    folder, done = tmp_path_factory.mktemp("made"), {}

    def get(layout: str) -> Path:
        if layout not in done:
            done[layout] = synthetic.make(
                folder / layout,
                layout,
                people=10,
                images_per_camera=2,
                size=SIZE,
                workers=1,
                trials=3 + 7 * (layout != "sysu"),
            )
        return done[layout]

    return get


def _bytes(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    one = synthetic.make(tmp_path / "one", people=4, images_per_camera=1, size=SIZE, workers=1)
    two = synthetic.make(tmp_path / "two", people=4, images_per_camera=1, size=SIZE, workers=2)
    assert _bytes(one) == _bytes(two)
    other = synthetic.make(tmp_path / "other", people=4, images_per_camera=1, size=SIZE, workers=1, seed=1)
    assert _bytes(one)["cam6/0004/0001.jpg"] != _bytes(other)["cam6/0004/0001.jpg"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "other", "two"]


def test_a_picture_depends_on_its_arguments_alone() -> None:
    camera = synthetic.CAMERAS["sysu"][2]
    first = synthetic.picture(5, camera, 3, size=SIZE)
    for pid in range(8):
        synthetic.picture(pid, synthetic.CAMERAS["sysu"][0], pid, size=SIZE)
    again = synthetic.picture(5, camera, 3, size=SIZE)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.parts, again.parts) and np.array_equal(first.keypoints, again.keypoints)
    assert first.image.shape == (*SIZE, 3) and first.image.dtype == np.uint8
    assert first.keypoints.shape == (17, 3) and first.keypoints.dtype == np.float32
    assert not np.array_equal(first.image, synthetic.picture(5, camera, 4, size=SIZE).image)


@pytest.mark.parametrize("layout", ["sysu", "regdb", "llcm"])
def test_the_loaders_and_protocols_read_it(made: Callable[[str], Path], layout: str) -> None:
    root = made(layout)
    table = datasets.load(root)
    assert table.dataset == layout and len(set(table.pid.tolist())) == 10
    for protocol in datasets.protocols_for(table).values():
        for query, gallery in protocol.trials(table):
            assert len(query) and len(gallery)
            assert set(table.pid[query].tolist()) <= set(table.pid[gallery].tolist()) or "indoor" in protocol.name
    infrared = np.array(Image.open(root / str(table.path[np.flatnonzero(table.modality == 1)[0]])).convert("RGB"))
    assert np.array_equal(infrared[..., 0], infrared[..., 1])


@pytest.mark.parametrize("layout", ["sysu", "regdb", "llcm"])
def test_keypoints_and_masks_stand_beside_every_picture(made: Callable[[str], Path], layout: str) -> None:
    root = made(layout)
    table = datasets.load(root)
    with np.load(root / "keypoints.npz") as arrays:
        keypoints = dict(zip(arrays["path"].tolist(), arrays["keypoints"], strict=True))
    assert set(keypoints) == set(table.path.tolist())
    on_person = []
    for path, points in keypoints.items():
        mask = np.asarray(Image.open((root / "masks" / path).with_suffix(".png")))
        assert mask.shape == SIZE and mask.dtype == np.uint8 and 0 < mask.max() < len(synthetic.PARTS)
        seen = points[points[:, 2] == 1]
        assert set(points[:, 2].tolist()) <= {0.0, 1.0} and len(seen)
        assert (seen[:, 0] >= 0).all() and (seen[:, 0] < SIZE[1]).all()
        assert (seen[:, 1] >= 0).all() and (seen[:, 1] < SIZE[0]).all()
        on_person += (mask[seen[:, 1].astype(int), seen[:, 0].astype(int)] > 0).tolist()
    assert all(on_person)


def test_sysu_files_are_in_the_official_form(made: Callable[[str], Path]) -> None:
    root = made("sysu")
    ids = {name: [int(i) for i in (root / "exp" / f"{name}_id.txt").read_text().strip().split(",")]
           for name in ("train", "val", "test", "available")}  # fmt: skip
    assert sorted(ids["train"] + ids["val"] + ids["test"]) == ids["available"]
    cells = permutations(root)
    assert cells
    for (camera, pid), rows in cells.items():
        count = len(list((root / f"cam{camera}" / f"{pid:04d}").glob("*.jpg")))
        assert rows.shape == (3, count)
        assert np.array_equal(np.sort(rows, axis=1), np.tile(np.arange(1, count + 1), (3, 1)))
    for pid in ids["test"]:
        cameras = {camera for camera, other in cells if other == pid}
        assert cameras & {3, 6} and cameras & {1, 2, 4, 5}
    assert (root / "exp" / "rand_perm_cam.mat").read_bytes()[:116].decode().startswith("MATLAB 5.0 MAT-file")


def test_test_people_may_have_more_pictures_than_the_others(tmp_path: Path) -> None:
    options = {"people": 12, "images_per_camera": 1, "size": (32, 16), "masks": False, "workers": 1}
    plain, more = (
        synthetic.make(tmp_path / "plain", **options),
        synthetic.make(tmp_path / "more", test_images_per_camera=3, **options),
    )
    tables = [datasets.load(f"sysu={root}") for root in (plain, more)]
    assert [table.where("test").pids.tolist() for table in tables] == [[9, 10, 11, 12]] * 2
    assert len(tables[1].where("test")) == 3 * len(tables[0].where("test"))
    assert tables[0].where(("train", "val")).fingerprint == tables[1].where(("train", "val")).fingerprint
    with pytest.raises(ValueError, match="of the layout sysu; got 2 of regdb"):
        synthetic.make(tmp_path / "regdb", "regdb", test_images_per_camera=2)


def test_regdb_twins_share_their_frame_and_pose(made: Callable[[str], Path]) -> None:
    root = made("regdb")
    with np.load(root / "keypoints.npz") as arrays:
        points = dict(zip(arrays["path"].tolist(), arrays["keypoints"], strict=True))
    pairs = [(p, p.replace("Visible", "Thermal").replace("_v_", "_t_")) for p in points if p.startswith("Visible")]
    assert len(pairs) == 20
    for visible, thermal in pairs:
        assert np.array_equal(points[visible][:, :2], points[thermal][:, :2])
    for trial in (1, 10):
        lines = (root / "idx" / f"train_visible_{trial}.txt").read_text().splitlines()
        assert sorted({int(line.split()[1]) for line in lines}) == list(range(5))


def test_an_earlier_set_is_kept_or_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    settings = {"people": 4, "images_per_camera": 1, "size": SIZE, "workers": 1, "masks": False}
    synthetic.make(root, **settings)
    before = (root / synthetic.MARK).stat().st_mtime_ns
    synthetic.make(root, **settings)
    assert (root / synthetic.MARK).stat().st_mtime_ns == before
    synthetic.make(root, **settings, seed=2)
    assert json.loads((root / synthetic.MARK).read_text())["seed"] == 2 and not (root / "masks").exists()
    (root / synthetic.MARK).unlink()
    with pytest.raises(DataError, match="earlier synthetic set"):
        synthetic.make(root, **settings)
    with pytest.raises(ValueError, match="sysu, regdb or llcm"):
        synthetic.make(tmp_path / "x", "market")
    with pytest.raises(ValueError, match="people >= 4"):
        synthetic.make(tmp_path / "x", people=1)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(synthetic, "_write_person", fail)
    with pytest.raises(OSError, match="disk full"):
        synthetic.make(tmp_path / "set", people=4, images_per_camera=1, size=SIZE, workers=1)
    assert not list(tmp_path.iterdir())


def test_a_twin_camera_sees_the_same_moment() -> None:
    visible, thermal = synthetic.CAMERAS["regdb"]
    one, two = synthetic.picture(1, visible, 0, size=SIZE), synthetic.picture(1, thermal, 0, size=SIZE)
    assert np.array_equal(one.parts, two.parts)
    assert not np.array_equal(one.parts, synthetic.picture(1, replace(visible, rig=2), 0, size=SIZE).parts)
