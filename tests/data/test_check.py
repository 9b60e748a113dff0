"""`data check`: what it counts, what it finds wrong, and that it says what to do."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from vireid.data.check import Report, check
from vireid.data.datasets import sysu
from vireid.errors import DataError


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (24, 12, 3), dtype=np.uint8)).save(path)
    return path


def small_sysu(root: Path, pictures: int = 10) -> Path:
    (root / "exp").mkdir(parents=True)
    for name, pids in {"train": "1,2", "val": "3", "test": "4,5", "available": "1,2,3,4,5"}.items():
        (root / "exp" / f"{name}_id.txt").write_text(pids + "\n")
    seed = 0
    for camera in range(1, 7):
        for pid in range(1, 6):
            for n in range(1, pictures + 1):
                seed += 1
                picture(root / f"cam{camera}" / f"{pid:04d}" / f"{n:04d}.jpg", seed)
    cells = np.empty((6, 1), dtype=object)
    for camera in range(6):
        cell = np.empty((1, 5), dtype=object)
        for pid in range(5):
            cell[0, pid] = np.stack([np.random.RandomState(t).permutation(pictures) + 1 for t in range(10)])
        cells[camera, 0] = cell
    savemat(root / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": cells})
    return root


def examine(root: Path | str, **options) -> Report:
    return check(root, progress=False, workers=2, **options)


def messages(report: Report, level: str) -> str:
    return "\n".join(f"{fault.what} -> {fault.to_do}" for fault in report.faults if fault.level == level)


def test_a_sound_synthetic_set_is_fine(tmp_path):
    root = small_sysu(tmp_path)
    (root / "synthetic.json").write_text(json.dumps({"layout": "sysu"}))
    report = examine(root)
    assert report.ok and report.faults == [] and report.opened == report.images == 300
    assert report.release.startswith("synthetic") and report.pids == 5
    assert [(c.split, c.camid, c.pids, c.images) for c in report.counts if c.camid == 1] == [
        ("train", 1, 2, 20), ("val", 1, 1, 10), ("test", 1, 2, 20),
    ]  # fmt: skip
    assert report.fingerprint == sysu.load(root).fingerprint
    assert report.lines()[-1].startswith("fine: 0 errors, 0 warnings")
    assert report.markdown().startswith("# SYSU-MM01: fine") and "| test | infrared | 6 | 2 | 20 |" in report.markdown()


def test_missing_truncated_empty_and_doubled_pictures(tmp_path):
    root = small_sysu(tmp_path)
    folder = root / "cam4" / "0005"
    data = (folder / "0001.jpg").read_bytes()
    (folder / "0001.jpg").write_bytes(data[: len(data) // 2])
    (folder / "0002.jpg").write_bytes(b"")
    (folder / "0003.jpg").write_text("a letter")
    (folder / "0004.jpg").write_bytes((folder / "0005.jpg").read_bytes())
    (folder / "0006.jpg").write_bytes((root / "cam4" / "0004" / "0006.jpg").read_bytes())
    (folder / "0007.jpg").write_bytes((root / "cam1" / "0001" / "0001.jpg").read_bytes())
    (folder / "0010.jpg").unlink()
    (folder / "Thumbs.db").touch()
    report = examine(root)
    errors, warnings = messages(report, "error"), messages(report, "warning")
    assert not report.ok
    assert "3 pictures cannot be decoded: cam4/0005/0001.jpg cannot be read as a picture: " in errors
    assert "0002.jpg is empty (0 bytes)" in errors
    assert "0003.jpg cannot be read as a picture: it does not begin as" in errors and "copy them again" in errors
    assert "draws cam4/0005/0010.jpg, which is not there" in errors
    assert "1 sets of identical files inside one identity" in warnings
    assert "2 sets of identical files under different identities" in warnings
    assert "1 test folders hold fewer than ten pictures: cam4/0005" in warnings
    assert "Thumbs.db" in warnings and "counts differ from the published table" in warnings
    assert report.release == "other than published" and report.opened == 299 - 3
    assert "not usable" in report.lines()[-1]
    unopened = examine(root, pictures=False)
    assert unopened.opened == 0 and "decoded" not in messages(unopened, "error")


def test_gaps_in_the_numbering(tmp_path):
    root = small_sysu(tmp_path)
    (root / "cam3" / "0001" / "0004.jpg").unlink()
    warnings = messages(examine(root, pictures=False), "warning")
    assert "image numbers do not run 1..n in 1 folders: cam3/0001" in warnings


def test_a_camera_without_pictures_is_named(tmp_path):
    root = small_sysu(tmp_path, pictures=1)
    for path in sorted((root / "cam1").rglob("*.jpg")):
        path.rename(path.with_stem(path.stem + "_v"))
    for path in (root / "cam4").rglob("*.jpg"):
        path.unlink()
    (root / "cam2/²").mkdir()
    report = examine(root, pictures=False)
    assert "cam1, cam4 hold no picture PPPP/IIII.jpg of a listed identity" in messages(report, "error")
    assert "5 files in the folders of listed identities" in messages(report, "warning")
    assert "cam1/0001/0001_v.jpg" in messages(report, "warning")


def test_a_set_without_a_test_part_is_told(tmp_path):
    lines = [f"{pid}{kind[0]}.jpg,{pid},{kind},train" for pid in (1, 2) for kind in ("visible", "infrared")]
    (tmp_path / "m.csv").write_text("\n".join(["path,pid,modality,split", *lines]))
    assert "there is no test part" in messages(examine(tmp_path / "m.csv", pictures=False), "warning")


def test_recorded_galleries_of_the_release_are_compared(tmp_path, monkeypatch):
    root = small_sysu(tmp_path)
    cells = {("train", c): (2, 20) for c in range(1, 7)} | {("val", c): (1, 10) for c in range(1, 7)}
    monkeypatch.setattr(sysu, "PUBLISHED", cells | {("test", c): (2, 20) for c in range(1, 7)})
    table = sysu.load(root)
    number = sysu.image_numbers(table)
    sums = {name: tuple(int(number[g].sum()) for _, g in p.trials(table)) for name, p in sysu.protocols.items()}
    monkeypatch.setattr(sysu, "GALLERY_SUMS", sums)
    report = examine(root, pictures=False)
    assert report.ok and report.release == "as published" and report.faults == []
    monkeypatch.setattr(sysu, "GALLERY_SUMS", sums | {"sysu/indoor/single-shot/agw": (0,) * 10})
    warnings = messages(examine(root, pictures=False), "warning")
    assert "galleries drawn for sysu/indoor/single-shot/agw are not those recorded" in warnings
    (root / "exp" / "rand_perm_cam.mat").unlink()
    warnings = messages(examine(root, pictures=False), "warning")
    assert "rand_perm_cam.mat is missing" in warnings and "wuancong/SYSU-MM01" in warnings
    assert "galleries drawn for sysu/indoor/single-shot/agw" in warnings


def test_regdb_lists(tmp_path):
    (tmp_path / "idx").mkdir()
    for folder in ("Visible", "Thermal"):
        (tmp_path / folder).mkdir()
    for trial, order in ((1, (1, 2, 3, 4)), (2, (3, 1, 2, 5)), (3, (1, 2, 2, 3))):
        for split, half in (("train", order[:2]), ("test", order[2:])):
            for kind in ("visible", "thermal"):
                lines = [
                    f"{kind.capitalize()}/{pid}/male_back_{kind[0]}_{n:05d}_{pid}.bmp {label}"
                    for label, pid in enumerate(half)
                    for n in range(2)
                ]
                (tmp_path / "idx" / f"{split}_{kind}_{trial}.txt").write_text("\n".join(lines))
    report = examine(tmp_path)
    errors, warnings = messages(report, "error"), messages(report, "warning")
    assert "16 listed pictures are missing: Visible/1/" in errors
    assert "trial 2: " in errors and "in the train and test lists of trial 2" in errors
    assert "trial 1 lists other pictures than trial 0" in warnings
    assert "lists of trial 3, 4, 5, 6, 7, 8, 9 are missing" in warnings
    assert report.dataset == "regdb" and "2060" in "\n".join(report.lines())


def test_llcm_copies_must_be_the_listed_pictures(tmp_path):
    (tmp_path / "idx").mkdir()
    for kind, seed in (("vis", 1), ("nir", 2)):
        for split, pid in (("train", 7), ("test", 9)):
            name = f"{pid:04d}_c0{seed}_s200519_f1377{seed}_{kind}.jpg"
            picture(tmp_path / kind / f"{pid:04d}" / name, seed * pid)
            (tmp_path / "idx" / f"{split}_{kind}.txt").write_text(f"{kind}/{pid:04d}/{name} 0\n")
            if split == "test":
                picture(tmp_path / f"test_{kind}" / f"cam{seed}" / f"{pid:04d}" / name, seed * pid)
    report = examine(tmp_path)
    assert report.ok and report.dataset == "llcm" and report.release == "other than published"
    assert "differ in" not in messages(report, "warning").replace("counts differ", "")
    picture(tmp_path / "test_nir" / "cam5" / "0009" / "0009_c05_s1_f1_nir.jpg", 5)
    warnings = messages(examine(tmp_path), "warning")
    assert "test_nir and idx/test_nir.txt differ in 1 pictures: cam5/0009/" in warnings
    assert "test_id.txt" not in warnings
    (tmp_path / "idx" / "test_id.txt").write_text("0009,0012\n")
    assert "idx/test_id.txt and the test lists differ in 1 identities: 12" in messages(examine(tmp_path), "warning")


def manifest(folder: Path, lines: list[str]) -> Path:
    for seed, line in enumerate(lines):
        picture(folder / line.split(",")[0], seed)
    path = folder / "mine.csv"
    path.write_text("\n".join(["path,pid,modality,split,frame", *lines]) + "\n")
    return path


def test_manifest_twins_shared_people_and_lone_modalities(tmp_path):
    path = manifest(tmp_path, [
        "a.png,1,visible,train,1", "b.png,1,infrared,train,2", "c.png,1,visible,test,3",
        "d.png,2,visible,test,4", "e.png,2,infrared,test,4", "f.png,3,infrared,test,5",
    ])  # fmt: skip
    report = examine(f"manifest={path}")
    errors, warnings = messages(report, "error"), messages(report, "warning")
    assert "1 identities are in the training and in the test part: pid 1" in errors
    assert "2 test identities have pictures of one modality only: pid 1, 3" in warnings
    assert "1 test pictures have a twin" in warnings and "ignore=frame" in warnings
    assert [fault.level for fault in report.faults] == ["error", "warning", "warning"]
    (tmp_path / "b.png").unlink()
    assert "1 listed pictures are missing: b.png" in messages(examine(path), "error")


def test_no_table_no_report(tmp_path):
    with pytest.raises(DataError, match="none of the known layouts"):
        examine(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        examine(tmp_path / "nothing")


def test_progress_bar_does_not_change_the_result(tmp_path, capsys):
    path = manifest(tmp_path, ["a.png,1,visible,test,1", "b.png,1,infrared,test,2"])
    assert check(path, progress=True) == examine(path)
