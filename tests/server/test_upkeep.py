"""`vireid backup`, `restore`, `stats`, `reindex` and forgetting by ids, on galleries of LanceDB."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("lancedb", reason="extra: search")
from command_line import call
from served import crops
from small_run import make_run, write_people

from vireid.deploy.bundle import Bundle
from vireid.deploy.export import export_bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.errors import BackupError
from vireid.ingest.boxes import write_boxes
from vireid.ingest.index import index
from vireid.ingest.reindex import LIST
from vireid.live.store import NAME, WatchStore
from vireid.search import backup
from vireid.search.archive import Archive, files_of
from vireid.search.audit import Audit
from vireid.search.drivers.open import open_gallery
from vireid.search.marks import Mark
from vireid.workflows import upkeep


@pytest.fixture
def night(bundle: Bundle, tmp_path: Path) -> str:
    """A gallery of 16 rows whose pictures lie beside it, with a mark, an alarm and an audit log."""
    url = str(tmp_path / "night")
    archive = Archive(open_gallery(url, model=bundle.config), files_of(url, None))
    copied = tmp_path / "pictures"
    copied.mkdir()
    listed = crops(bundle.path.parent)[:16]
    for crop in listed:
        shutil.copy(crop.path, copied)
    index(archive, FeatureExtractor(bundle, device="cpu"), [_moved(crop, copied) for crop in listed])
    archive.marks.put([Mark("a" * 64, "gate 1/3/0", True, "desk", 1.7e9)])
    store = WatchStore(archive.folder / NAME)
    for row in ("gate 1/3/0", "gate 1/4/0"):
        event = {"id": row, "person": "p", "camera": row, "time_s": 1.7e9, "row": row}
        assert store.raise_alarm(event, ["webhook"], 0.0, 1.7e9)
    store.close()
    archive.audit.write("index", "a test", "admin")
    archive.close()
    return url


def _moved(crop: Any, folder: Path) -> Any:
    return replace(crop, path=folder / crop.path.name)


def contents(url: str) -> dict[str, Any]:
    """All rows with vectors, thumbnails, marks and alarms of an archive."""
    folder = files_of(url, None)
    archive = Archive(open_gallery(url), folder)
    rows = archive.gallery.fetch([row.id for row in archive.gallery.rows()])
    store = WatchStore(folder / NAME)
    found = {
        "rows": rows, "vectors": np.stack([row.vector for row in rows]).tolist(), "marks": archive.marks.of(),
        "thumbnails": [archive.thumbnails.read(row.id) for row in rows], "alarms": store.alarms(),
    }  # fmt: skip
    store.close()
    archive.close()
    return found


def test_a_backup_restores_everything(night: str, tmp_path: Path) -> None:
    before, file = contents(night), tmp_path / "night.tar"
    printed = call("backup", file, "--gallery", night)
    assert printed.exit_code == 0 and "16 rows and" in printed.stdout and "complete" in printed.stdout
    again = str(tmp_path / "elsewhere/night")
    restored = call("restore", file, "--gallery", again)
    assert restored.exit_code == 0 and "forget them again" in restored.stdout, restored.output
    assert contents(again) == before
    log = Audit(files_of(again, None) / "audit.jsonl")
    assert log.verify() == 3 and [entry["what"] for entry in log.entries()] == ["restore", "backup", "index"]
    assert sorted(path.name for path in files_of(again, None).glob(".*")) == []
    refused = call("restore", file, "--gallery", again)
    assert refused.exit_code == 1 and "there is an archive" in refused.stderr
    to_memory = open_gallery("memory:", before["rows"][0].vector.size)  # another driver
    backup.restore(file, to_memory, tmp_path / "memory.files", backup.verify(file), "a test")
    assert to_memory.fetch([row.id for row in before["rows"]]) == before["rows"]


def test_a_backup_that_is_cut_off_changed_or_foreign_is_refused(night: str, tmp_path: Path) -> None:
    file, data = tmp_path / "night.tar", b""
    upkeep.back_up(night, file)
    data = file.read_bytes()
    for wrong in (data[: len(data) // 2], data[:20_480], data.replace(b"gate 1", b"gate 7", 1), b"", b"no tar" * 200):
        file.write_bytes(wrong)
        with pytest.raises(BackupError, match=r"cut off|changed|not a backup"):
            upkeep.restore(file, str(tmp_path / "other"))
        assert not (tmp_path / "other").exists()
    with pytest.raises(BackupError, match="no file"):
        upkeep.restore(tmp_path / "absent.tar", str(tmp_path / "other"))
    with pytest.raises(BackupError, match="is a folder"):
        upkeep.back_up(night, tmp_path)


@pytest.mark.parametrize("name", ["files/../../evil", "/etc/evil", "other/evil", "files/a\\..\\evil"])
def test_a_member_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "evil.tar"
    with tarfile.open(file, "w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(BackupError, match="which no backup of vireid does"):
        backup.verify(file)


def test_a_restore_that_was_stopped_continues(night: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, file, again = contents(night), tmp_path / "night.tar", str(tmp_path / "again")
    upkeep.back_up(night, file)

    def stopped(line: bytes) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backup, "_record", stopped)
        with pytest.raises(KeyboardInterrupt):
            upkeep.restore(file, again)
    upkeep.restore(file, again)
    assert contents(again) == before


def test_stats_count_what_is_there(night: str) -> None:
    figures = json.loads(call("stats", "--gallery", night, "--json").stdout)
    assert (figures["rows"], figures["thumbnails"], figures["marks"], figures["alarms"]) == (16, 16, 1, 2)
    assert figures["modalities"] == {"visible": 8, "infrared": 8} and figures["cameras"]["gate 1"] == 4
    assert figures["gallery_bytes"] > 0 and figures["audit_entries"] == 1 and figures["first"].startswith("2023-11-15")
    table = call("stats", "--gallery", night).stdout
    assert "gate 1 4" in table and " MB" in table


def test_reindex_takes_pictures_then_thumbnails_and_says_which(
    night: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("another")
    write_people(folder / "data", {"train": 3, "test": 8})
    other = export_bundle(make_run(folder / "run", folder / "data", seed=1), folder / "bundle", onnx=False)
    old = open_gallery(night)
    paths = {row.id: Path(row.path) for row in old.rows()}
    gone, changed, lost, cut, plain = "gate 1/3/0", "gate 1/3/1", "hall 2/3/0", "gate 1/4/1", "hall 2/4/0"
    paths[gone].unlink()
    shutil.copy(paths["gate 1/4/1"], paths[changed])
    frame = Image.new("RGB", (80, 96))  # that `vireid watch` cut a row out of
    frame.save(tmp_path / "frame.png")
    [row, other_row] = old.fetch([cut, plain])
    old.upsert([replace(row, path=str(tmp_path / "frame.png"), digest=""), replace(other_row, digest="")])
    old.close()
    paths[lost].unlink()
    Archive(open_gallery(night), files_of(night, None)).thumbnails.remove([lost])
    printed = call("reindex", night, "--to", other.path, "--device", "cpu")
    assert printed.exit_code == 0, printed.output
    new = f"{night}-{other.path.name}"
    assert "12 rows from their pictures, 3 from thumbnails, 1 left out that have neither" in printed.stdout
    with (files_of(new, None) / LIST).open() as file:
        made = {row["id"]: row["from"] for row in csv.DictReader(file)}
    assert [made[gone], made[changed], made[cut]] == ["thumbnail"] * 3
    assert (made[lost], made[plain], made["gate 1/4/0"]) == ("missing", "picture", "picture")
    before, after = contents(night), contents(new)
    kept = [row for row in before["rows"] if row.id != lost]
    assert [row.id for row in after["rows"]] == [row.id for row in kept]
    same = [(a.camera, a.time_s, a.modality, a.track, a.pid, a.tags) for a in after["rows"]]
    assert same == [(b.camera, b.time_s, b.modality, b.track, b.pid, b.tags) for b in kept]
    assert all(a.digest == b.digest for a, b in zip(after["rows"], kept, strict=True) if b.id != plain)
    assert after["marks"] == before["marks"] and after["alarms"] == before["alarms"]
    assert after["thumbnails"][0] == before["thumbnails"][0]
    extractor = FeatureExtractor(other, device="cpu")
    [vector] = extractor([paths["gate 1/4/0"]], "visible")
    place = [row.id for row in after["rows"]].index("gate 1/4/0")
    assert np.allclose(after["vectors"][place], vector, atol=1e-5)
    again = call("reindex", night, "--to", other.path, "--device", "cpu")
    assert again.exit_code == 0 and open_gallery(new).count() == 15
    same_model = call("reindex", new, "--to", other.path)
    assert same_model.exit_code == 1 and "made with" in same_model.stderr


def test_forgetting_by_id_deletes_alarms_and_names_what_still_holds_the_person(night: str, tmp_path: Path) -> None:
    folder = files_of(night, None)
    write_boxes(folder / "boxes/0.csv", [], {"video": "clip.mp4", "segment": 0, "damage": ""})
    write_boxes(folder / "boxes/1.csv", [], {"video": "clip.mp4", "segment": 1, "damage": ""})
    archive = Archive(open_gallery(night), folder)
    [row] = archive.gallery.fetch(["gate 1/3/1"])
    archive.gallery.add([replace(row, id="clip.mp4#0001-7/61.200", path=str(tmp_path / "gone.mp4"))])
    archive.close()
    asked = call("forget", "--gallery", night, "--id", "gate 1/3/0", "--pid", "p3")
    assert asked.exit_code == 2 and "--id alone" in asked.stderr
    printed = call("forget", "--gallery", night, "--id", "gate 1/3/0", "--id", "clip.mp4#0001-7/61.200", "--yes")
    assert printed.exit_code == 0, printed.output
    lines = printed.stdout.splitlines()
    assert lines[0] == "permanently deleted 2 rows, 1 thumbnail, 1 mark, 1 alarm and 0 cases"
    assert lines[1].startswith("still on this machine: 2 files that show them")
    assert [Path(line).name for line in lines[2:]] == ["3_1_0.png", "1.csv"]
    left = contents(night)
    assert [event["row"] for event in left["alarms"]] == ["gate 1/4/0"] and left["marks"] == []
    base = sqlite3.connect(folder / NAME)
    assert base.execute("select alarm from deliveries").fetchall() == [("gate 1/4/0",)]
    base.close()
    assert b"gate 1/3/0" not in (folder / NAME).read_bytes()  # overwritten


def test_retention_deletes_old_alarms(night: str) -> None:
    printed = call("forget", "--gallery", night, "--older-than-days", "1")
    assert "2 alarms" in printed.stdout and contents_of_alarms(night) == []


def contents_of_alarms(url: str) -> list[dict[str, Any]]:
    store = WatchStore(files_of(url, None) / NAME)
    try:
        return store.alarms()
    finally:
        store.close()
