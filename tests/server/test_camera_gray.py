"""Ranges of gray values per camera: from a list to the gallery's files, and which rule a query is read by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")
pytest.importorskip("python_multipart", reason="needs the extra `serve`")
pytest.importorskip("lancedb", reason="needs the extra `search`")
from command_line import call, error_of
from PIL import Image
from served import client, make_bundle, make_service, search

from vireid.deploy.bundle import Bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.deploy.model import Model
from vireid.errors import GalleryError, SourceError
from vireid.images import GrayRule, read
from vireid.ingest.sources import crops_of, thermal_ranges
from vireid.search.archive import Archive
from vireid.search.drivers.open import open_gallery

HEAD = "path,camera,thermal_low,thermal_high\n"
RANGES = {"gate": (7000.0, 9000.0), "hall": (100.0, 140.5)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("gray"))


@pytest.fixture
def thermal(tmp_path: Path) -> Path:
    """A list of two pictures of each of three cameras, which count in different units."""
    for camera, (low, high) in (RANGES | {"yard": (0.0, 60_000.0)}).items():
        (tmp_path / camera).mkdir()
        for number in (1, 2):
            share = np.random.RandomState(number + len(camera) + int(low)).uniform(0.4, 0.6, (8, 4))  # little contrast
            values = (low + (high - low) * share).repeat(8, 0).repeat(8, 1)
            Image.fromarray(values.astype(np.uint16)).save(tmp_path / camera / f"{number}.png")
    lines = ["gate/1.png,gate,7000,9000", "gate/2.png,gate,,", "hall/1.png,hall,100,140.5", "hall/2.png,hall,100,140.5",
             "yard/1.png,yard,,", "yard/2.png,yard,,"]  # fmt: skip
    (tmp_path / "list.csv").write_text(HEAD + "\n".join(lines) + "\n")
    return tmp_path


def asked(place: Path, bundle: Bundle, picture: Path, *words: object) -> dict:
    return json.loads(call("search", picture, "--gallery", place, "--model", bundle.path, "--json", *words).stdout)


def test_a_list_gives_each_camera_its_range(thermal: Path, bundle: Bundle) -> None:
    place, model = thermal / "g", ("--model", bundle.path)
    assert "added 6 pictures" in call("index", thermal / "list.csv", "--gallery", place, *model).stdout
    with_range = FeatureExtractor(bundle, device="cpu", gray=GrayRule(7000, 9000))
    rows = {row.path[len(str(thermal)) :]: row for row in open_gallery(place).rows()}
    stored = open_gallery(place).fetch([rows["/gate/2.png"].id])[0]  # its line is blank, its camera has a range
    assert stored.vector @ with_range(thermal / "gate/2.png", "auto")[0] == pytest.approx(1, abs=1e-6)
    answer = asked(place, bundle, thermal / "gate/2.png", "--thermal-range", 7000, 9000)
    assert answer["hits"][0]["path"].endswith("gate/2.png") and answer["hits"][0]["similarity"] == 1
    assert answer["stamp"]["gray"] == "7000 to 9000"
    assert answer["stamp"]["gray of cameras"] == "gate 7000 to 9000, hall 100 to 140.5"
    plain = asked(place, bundle, thermal / "yard/1.png")
    assert plain["hits"][0]["path"].endswith("yard/1.png") and "gray" not in plain["stamp"]
    assert asked(place, bundle, thermal / "gate/1.png")["hits"][0]["similarity"] < 1


def test_later_pictures_of_a_camera_are_read_by_its_range(thermal: Path, bundle: Bundle) -> None:
    place, model = thermal / "g", ("--model", bundle.path)
    (thermal / "first.csv").write_text(HEAD + "gate/1.png,gate,7000,9000\n")
    assert call("index", thermal / "first.csv", "--gallery", place, *model).exit_code == 0
    assert "added 1 picture" in call("index", thermal / "gate/2.png", "--gallery", place, *model).stdout
    (row,) = [row for row in open_gallery(place).rows() if row.path.endswith("2.png")]
    [stored] = open_gallery(place).fetch([row.id])
    expected = FeatureExtractor(bundle, device="cpu", gray=GrayRule(7000, 9000))(thermal / "gate/2.png", "auto")[0]
    assert row.camera == "gate" and stored.vector @ expected == pytest.approx(1, abs=1e-6)
    (thermal / "other.csv").write_text(HEAD + "gate/2.png,gate,0,9000\nhall/1.png,hall,100,140.5\n")
    told = error_of(call("index", thermal / "other.csv", "--gallery", place, *model), 1)
    assert "the 2 rows of camera 'gate' were read with gray values of 7000 to 9000, this is 0 to 9000" in told
    assert open_gallery(place).count() == 2
    assert call("reindex", place, "--to", "night", "--gallery", thermal / "new").exit_code == 0
    archive = Archive(open_gallery(thermal / "new"), thermal / "new.files")
    assert archive.gray.of("gate") == GrayRule(7000, 9000) and archive.gray.of("yard") == GrayRule()
    [again] = archive.gallery.fetch([row.id])
    expected = FeatureExtractor(Model.open("night").bundle, device="cpu", gray=GrayRule(7000, 9000))
    assert again.vector @ expected(thermal / "gate/2.png", "auto")[0] == pytest.approx(1, abs=1e-4)


def test_the_service_reads_by_camera_and_by_the_range_of_a_request(thermal: Path, bundle: Bundle) -> None:
    service = make_service(thermal / "files", bundle, fill=False)
    service.archive.gray.add({"gate": RANGES["gate"]}, service.archive.gallery)
    api = client(service)
    data = (thermal / "gate/1.png").read_bytes()
    sent = {"files": {"picture": ("a.png", data)}, "data": {"record": json.dumps({"camera": "gate", "id": "one"})}}
    assert api.post("/api/v1/records", **sent).status_code == 200
    found = search(api, data, thermal_range=[7000, 9000])
    assert found["hits"][0]["similarity"] == pytest.approx(1, abs=1e-6) and found["stamp"]["gray"] == "7000 to 9000"
    other = search(api, data)
    assert other["hits"][0]["similarity"] < 1 and other["query"] != found["query"]
    assert "LOW must be below HIGH" in json.dumps(search(api, data, status=422, thermal_range=[9000, 7000]))
    about = api.get("/api/v1/about").json()
    assert about["thermal_ranges"] == {"gate": [7000, 9000]}
    assert about["gray"] == "percentiles 1 to 99; gate: 7000 to 9000"


def test_a_bad_range_of_a_list_is_named(thermal: Path) -> None:
    def refused(lines: str, head: str = HEAD) -> str:
        (thermal / "bad.csv").write_text(head + lines)
        with pytest.raises(SourceError) as told:
            list(crops_of(thermal / "bad.csv"))
        return str(told.value)

    assert (
        "line 2: thermal_low and thermal_high: expected a lower and a higher number, got '9000' and '7000'"
        in refused("gate/1.png,gate,9000,7000\n")
    )
    assert "got ''" in refused("gate/1.png,gate,9000,\n") and "'nan'" in refused("gate/1.png,gate,nan,1\n")
    told = refused("gate/1.png,gate,1,2\nhall/1.png,hall,1,2\ngate/2.png,gate,1,3\n")
    assert "line 4: camera 'gate' has the range 1 to 3 here and 1 to 2 before; a camera has one" in told
    assert "thermal_low and thermal_high" in refused("gate/1.png,5\n", "path,thermal_low\n")
    assert thermal_ranges(thermal / "list.csv") == RANGES and thermal_ranges(thermal) == {}


def test_two_lists_of_one_camera_agree_or_nothing_is_indexed(thermal: Path, bundle: Bundle) -> None:
    (thermal / "a.csv").write_text(HEAD + "gate/1.png,gate,1,2\n")
    (thermal / "b.csv").write_text(HEAD + "gate/2.png,gate,1,3\n")
    words = ("--gallery", thermal / "g", "--model", bundle.path)
    told = error_of(call("index", thermal / "a.csv", thermal / "b.csv", *words), 1)
    assert "camera 'gate' has the range 1 to 3 here and 1 to 2 in another list" in told
    assert not (thermal / "g").exists()


def test_a_damaged_file_of_ranges_is_named(thermal: Path, bundle: Bundle) -> None:
    (thermal / "files").mkdir()
    (thermal / "files/thermal_ranges.json").write_text(
        '{"format": "vireid thermal ranges 1", "cameras": {"gate": [2, 1]}}'
    )
    with pytest.raises(GalleryError, match=r"thermal_ranges.json is not what vireid .* reads .*LOW must be below HIGH"):
        make_service(thermal / "files", bundle, fill=False)


def test_values_far_apart_do_not_overflow() -> None:
    pixels = np.asarray(read(np.array([[1e300, -1e300]]), gray=GrayRule(-1e308, 1e308)))
    assert pixels.shape == (1, 2, 3)
