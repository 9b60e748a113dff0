"""`vireid index`, `serve`, `token`, `forget`, `audit` on the command line, and the search demo."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
pytest.importorskip("uvicorn", reason="extra: serve")
pytest.importorskip("lancedb", reason="extra: search")
from PIL import Image
from served import calibration, client, make_bundle
from typer.testing import CliRunner, Result

from vireid import models
from vireid.cli.app import app
from vireid.deploy.bundle import Bundle
from vireid.deploy.model import bundle_of
from vireid.errors import BundleError
from vireid.search.drivers.open import open_gallery


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("commands"))


def call(*words: object, **more: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], **more)


def told(result: Result, code: int = 1) -> str:
    assert result.exit_code == code and isinstance(result.exception, SystemExit), result.output
    return result.stderr


def write_list(bundle: Bundle, path: Path) -> Path:
    data = bundle.path.parent / "data"
    lines = ["path,camera,time,modality,track,pid"]
    for pid in (3, 4):
        for camera in (1, 3):
            kind = "visible" if camera == 1 else "infrared"
            lines.append(
                f"{data / f'{pid}_{camera}_0.png'},gate {camera},{1_700_000_000 + pid},{kind},t{camera},p{pid}"
            )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_two_commands_and_then_forgetting(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, place = bundle.path.parent / "run", tmp_path / "night"
    listed = write_list(bundle, tmp_path / "list.csv")
    first = call("index", listed, "--gallery", place, "--model", run)
    assert first.exit_code == 0 and "added 4 pictures" in first.stdout, first.output
    assert f"vireid serve --gallery {place} --model {run}" in first.stdout and (run / "bundle/config.json").is_file()
    assert "added 0 pictures; 4 were in the gallery" in call("index", listed, "--gallery", place, "--model", run).stdout

    served: dict[str, Any] = {}
    monkeypatch.setattr("vireid.server.run.run_app", lambda app, host, port, *more: served.update(app=app, host=host))
    answer = call("serve", "--model", run, "--gallery", place, "--keep-days", 100_000, "--purpose")
    assert answer.exit_code == 0, answer.output
    assert "vireid calibrate" in answer.stderr
    assert served["host"] == "127.0.0.1"
    from fastapi.testclient import TestClient

    api = TestClient(served["app"], base_url="http://127.0.0.1:8000")
    about = api.get("/api/v1/about").json()
    assert about["rows"] == 4 and about["purpose"] and about["keep_days"] == 100_000
    picture = {"picture": ("a", (bundle.path.parent / "data/4_3_0.png").read_bytes())}
    found = api.post("/api/v1/search", files=picture, data={"ask": '{"purpose": "test"}'}).json()
    assert found["hits"][0]["pid"] == "p4" and found["hits"][0]["camera"] == "gate 3"

    asked = call("forget", "--gallery", place, "--pid", "p4", input="n\n")
    assert asked.exit_code == 0 and "delete 2 rows" in asked.stderr and "nothing deleted" in asked.stdout
    deleted = call("forget", "--gallery", place, "--pid", "p4", "--yes")
    assert "permanently deleted 2 rows, 2 thumbnails, 0 marks, 0 alarms and 0 cases" in deleted.stdout
    assert "name what to forget" in told(call("forget", "--gallery", place), 2)
    assert "name what to forget" in told(call("forget", "--gallery", place, "--pid", "x", "--older-than-days", 1), 2)
    assert "deleted 2 rows, 2 thumbnails" in call("forget", "--gallery", place, "--older-than-days", 1).stdout
    assert open_gallery(place).count() == 0
    log = call("audit", "--gallery", place)
    whats = [json.loads(line)["what"] for line in log.stdout.splitlines()]
    assert whats == ["retention", "forgotten", "forget", "search", "start", "index", "index"]
    assert "7 lines" in log.stderr
    path = tmp_path / "night.files/audit.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"hits": 4', '"hits": 0'), encoding="utf-8")
    assert "was changed" in told(call("audit", "--gallery", place))


def test_it_is_not_opened_without_tokens(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: dict[str, Any] = {}
    monkeypatch.setattr("vireid.server.run.run_app", lambda app, host, port, *more: served.update(app=app, host=host))
    place, tokens = tmp_path / "night", tmp_path / "tokens.json"
    assert (
        call("index", "--model", bundle.path, write_list(bundle, tmp_path / "list.csv"), "--gallery", place).exit_code
        == 0
    )
    words = ("serve", "--model", bundle.path, "--gallery", place, "--host", "0.0.0.0")
    assert "--tokens" in told(call(*words)) and not served
    assert "no tokens at" in told(call(*words, "--tokens", tokens)) and not served
    assert "--role" in told(call("token", "desk", "--file", tokens), 2)
    secret = call("token", "desk", "--role", "search", "--file", tokens).stdout.strip()
    assert secret.startswith("vireid_") and secret not in tokens.read_text()
    opened = call(*words, "--tokens", tokens)
    assert opened.exit_code == 0 and "unencrypted" in opened.stderr and served["host"] == "0.0.0.0"
    assert "unencrypted" not in call(*words, "--tokens", tokens, "--behind-tls").stderr
    assert "revoked the token of desk" in call("token", "desk", "--revoke", "--file", tokens).stdout
    assert "holds no token" in told(call(*words, "--tokens", tokens))


def test_what_does_not_fit_is_told(bundle: Bundle, tmp_path: Path) -> None:
    missing = call("index", "--model", bundle.path, tmp_path / "none", "--gallery", tmp_path / "g")
    assert f"there is no file or folder {tmp_path / 'none'}" in told(missing)
    assert not (tmp_path / "g").exists()
    assert "there is no gallery" in told(call("serve", "--model", bundle.path, "--gallery", tmp_path / "g"))
    (tmp_path / "list.csv").write_text("path,camera\n", encoding="utf-8")
    assert "lists no picture" in told(
        call("index", "--model", bundle.path, tmp_path / "list.csv", "--gallery", tmp_path / "g")
    )
    (tmp_path / "bad").mkdir()
    for number in range(7):
        (tmp_path / f"bad/{number}.jpg").write_bytes(b"no picture")
    (tmp_path / "bad/.hidden").touch()
    words = ("index", "--model", bundle.path, tmp_path / "bad", "--gallery", tmp_path / "g")
    assert f"names of all files left out are in {tmp_path / 'g.files/left_out.txt'}" in told(call(*words))
    names = (tmp_path / "g.files/left_out.txt").read_text("utf-8").splitlines()
    assert len(names) == 8 and names[0] == ".hidden (hidden files)" and f"{tmp_path / 'bad/6.jpg'} cannot" in names[7]
    for number in range(2, 7):
        (tmp_path / f"bad/{number}.jpg").unlink()
    assert "left out: " in told(call(*words)) and not (tmp_path / "g.files/left_out.txt").exists()
    assert "--files" in told(call("audit", "--gallery", "milvus:http://nowhere"))


def test_the_model_in_its_former_place_works_with_a_warning(bundle: Bundle, tmp_path: Path) -> None:
    listed, place = write_list(bundle, tmp_path / "list.csv"), tmp_path / "night"
    first = call("index", bundle.path, listed, "--gallery", place)
    assert first.exit_code == 0 and f"now given as --model {bundle.path}" in first.stderr
    wrong = told(call("serve", bundle.path, "--gallery", tmp_path / "none"))
    assert "now given as --model" in wrong and "there is no gallery" in wrong
    assert "named twice" in told(call("serve", bundle.path, "--model", "night", "--gallery", place), 2)


def test_without_a_model_it_is_the_one_that_comes_with_vireid(bundle: Bundle, tmp_path: Path) -> None:
    listed, place = write_list(bundle, tmp_path / "list.csv"), tmp_path / "night"
    (tmp_path / "more").mkdir()
    shutil.copy(bundle.path.parent / "data/5_1_0.png", tmp_path / "more")
    done = call("index", listed, tmp_path / "more", "--gallery", place, "--device", "cpu")
    assert done.exit_code == 0 and "added 5 pictures" in done.stdout, done.output
    assert f"next: vireid serve --gallery {place}\n" in done.stdout
    message = told(call("serve", "--model", bundle.path, "--gallery", place))
    assert "of the model night (bundle " in message and "Give --model night" in message
    again = told(call("index", listed, tmp_path / "none", "--gallery", place))
    assert "there is no file or folder" in again
    (tmp_path / "x/more").mkdir(parents=True)
    shutil.copy(bundle.path.parent / "data/4_1_0.png", tmp_path / "x/more/5_1_0.png")
    (tmp_path / "x/more/notes.txt").touch()
    both = tmp_path / "more", tmp_path / "x/../x/more", tmp_path / "x/more"
    same = told(call("index", *both, "--gallery", place, "--workers", 2), 2)
    assert "2 sources are called more" in same
    same = call("index", *both, "--gallery", place)
    assert "left out: files of other kinds (1): notes.txt" in same.stderr
    assert "added 1 picture; 1 was in the gallery; 1 file left out" in same.stdout
    assert "1 has the name of another picture in the gallery; both are kept" in same.stdout


def test_a_range_of_gray_values_is_kept_by_the_gallery(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "gate").mkdir()
    for number in (1, 2):
        values = np.random.RandomState(number).randint(-20, 40, (64, 32)).astype(np.float32)
        Image.fromarray(values).save(tmp_path / f"gate/{number}.tif")
    words = ("index", tmp_path / "gate/1.tif", "--gallery", tmp_path / "g", "--model", bundle.path)
    wrong = told(call(*words, "--thermal-range", 40, -20), 2)
    assert "--thermal-range" in wrong and "LOW must be below HIGH" in wrong and not (tmp_path / "g").exists()
    assert call(*words, "--thermal-range", -20, 40).exit_code == 0
    assert "made with gray values of -20 to 40, this is 0 to 1" in told(call(*words, "--thermal-range", 0, 1))
    words = ("index", tmp_path / "gate", *words[2:])
    assert "added 1 picture; 1 was in the gallery" in call(*words).stdout
    for number in (1, 2):
        asked = ("search", tmp_path / f"gate/{number}.tif", *words[2:], "--json", "--html", tmp_path / "page.html")
        answer = json.loads(call(*asked).stdout)
        assert answer["stamp"]["gray"] == "-20 to 40"
        first = answer["hits"][0]
        assert first["path"].endswith(f"gate/{number}.tif") and first["similarity"] == 1


def test_a_picture_whose_name_is_no_text_is_searched_with(bundle: Bundle, tmp_path: Path) -> None:
    name = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    shutil.copy(bundle.path.parent / "data/4_1_0.png", name)
    listed, place, model = write_list(bundle, tmp_path / "list.csv"), tmp_path / "night", ("--model", bundle.path)
    assert call("index", listed, "--gallery", place, *model).exit_code == 0
    found = call("search", os.fsdecode(name), "--gallery", place, *model, "--json", "--html", tmp_path / "a.html")
    assert found.exit_code == 0 and json.loads(found.stdout)["pictures"][0].endswith("caf\udce9.png")
    assert "caf\\udce9.png" in (tmp_path / "a.html").read_text("utf-8")


def test_one_question_without_a_server(bundle: Bundle, tmp_path: Path) -> None:
    calibration(bundle).save(bundle.path / "calibration.json")
    listed, place, model = write_list(bundle, tmp_path / "list.csv"), tmp_path / "night", ("--model", bundle.path)
    assert call("index", listed, "--gallery", place, *model).exit_code == 0
    picture = bundle.path.parent / "data/4_3_0.png"
    asked = ("search", picture, "--gallery", place, *model)
    at_rate = ("--false-match-rate", 0.01)
    found = json.loads(call(*asked, "--k", 3, "--json", *at_rate).stdout)
    assert len(found["hits"]) == 3 and found["nobody"] is False and found["matches"] >= 1
    assert found["false_match_rate"] == 0.01 and set(found["thresholds"]) == {"visible/infrared", "infrared/infrared"}
    said = call(*asked, *at_rate, "--only", "visible").stdout
    assert f"at a false-match rate of 1 in 100 (threshold {found['thresholds']['visible/infrared']:.4f} " in said
    first = found["hits"][0]
    assert (first["rank"], first["camera"], first["pid"], first["modality"]) == (1, "gate 3", "p4", "infrared")
    assert first["similarity"] == pytest.approx(1, abs=1e-3) and 0 < first["probability"] <= 1
    assert first["time"] == "2023-11-14T22:13:24+00:00" and bundle.config.digest[:12] in found["stamp"]["model"]
    page = tmp_path / "answer.html"
    shown = call(*asked, "--only", "visible", "--camera", "gate 1", "--rerank", "center", "--html", page)
    assert shown.exit_code == 0 and "gate 1" in shown.stdout and "gate 3" not in shown.stdout, shown.output
    text = page.read_text("utf-8")
    assert text.count("data:image/jpeg;base64,") == 3 and "://" not in text  # the query and two hits
    assert "none (center: 2 visible and 2 infrared rows, 50 of each modality needed)" in text
    log = [json.loads(line) for line in call("audit", "--gallery", place).stdout.splitlines()]
    assert [entry["what"] for entry in log] == ["search"] * 3 + ["index"] and log[0]["hits"] == 2
    visits = json.loads(call(*asked, "--visits", "--json", "--k", 2, "--gap", 60, *at_rate).stdout)["passages"]
    assert {one["visit"] for one in visits} == {1} and first["time"] in {one["until"] for one in visits}
    matches = json.loads(call(*asked, "--k", 4, "--json", "--per-track", *at_rate).stdout)["hits"]
    assert sorted(one["path"] for one in visits) == sorted(hit["path"] for hit in matches if hit["probability"])
    assert "1 visit (" in call(*asked, "--visits", *at_rate).stdout
    nowhere = call(*asked, "--visits", *at_rate, "--camera", "gate 9").stdout
    assert nowhere.startswith(("No match", "0 visits")), nowhere  # and no table without columns
    assert "leave one of them out" in told(call(*asked, "--visits", "--rerank", "center"), 2)
    grouped = json.loads(call("identities", "--gallery", place, *model, "--score", "--json").stdout)
    assert sorted(name for one in grouped["identities"] for name in one["ids"]) == sorted(
        row.id for row in open_gallery(f"lance:{place}").rows()
    )
    assert set(grouped["scores"]) == {"IDF1", "HOTA", "AssA"} and 0 < grouped["scores"]["IDF1"] <= 1
    lonely = call("identities", "--gallery", place, *model, "--prior", 1e-12)
    assert lonely.exit_code == 0 and "2 identities of 2 tracks" in lonely.stdout, lonely.output
    assert "identities of 1 tracks" in call("identities", "--gallery", place, *model, "--camera", "gate 1").stdout
    assert "--after" in told(call("identities", "--gallery", place, *model, "--after", "soon"))
    assert "of the model night" not in told(call("search", picture, "--gallery", place))
    assert "there is no gallery" in told(call("search", picture, "--gallery", tmp_path / "none", *model))
    assert "--false-match-rate" in told(call(*asked, "--false-match-rate", 2), 2)


def test_a_folder_called_like_the_model_is_not_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "night").mkdir()  # a gallery, say
    monkeypatch.chdir(tmp_path)
    assert bundle_of("night").path == models.path_of("night")
    with pytest.raises(BundleError, match=r"holds no config\.json"):
        bundle_of("./night")


@pytest.mark.slow
def test_the_search_demo_finds_somebody_across_modalities(bundle: Bundle, tmp_path: Path, monkeypatch: Any) -> None:
    """With random weights: that all is put together; how well it finds, its own figures say."""
    from vireid.workflows import search_demo as demo

    calibration(bundle).save(bundle.path / "calibration.json")
    monkeypatch.setattr(demo, "PEOPLE", [11, 12, 13])
    served: list[Any] = []
    monkeypatch.setattr(demo, "run_service", lambda services, **more: served.extend(services))
    demo.run_search_demo(tmp_path, model=str(bundle.path), progress=False)
    [service] = served
    api = client(service)
    about = api.get("/api/v1/about").json()
    assert about["rows"] == 3 * (4 * 2 + 2 * 4) and len(about["cameras"]) == 6 and about["calibration"]
    assert [one["name"] for one in about["examples"]][-1] == "a person who is not in the archive" and len(
        about["examples"]
    ) == 4
    first = api.get("/api/v1/examples/0").content
    name = about["examples"][0]["name"]
    ask = {"modality": "visible", "filter": {"modality": "infrared"}}
    found = api.post("/api/v1/search", files={"picture": ("a", first)}, data={"ask": json.dumps(ask)}).json()
    assert name in {hit["pid"] for hit in found["hits"]}  # the right answer is in the archive
    assert {hit["modality"] for hit in found["hits"]} == {"infrared"} and found["searched"] == 24
    service.archive.close()
    demo.run_search_demo(tmp_path, model=str(bundle.path), serve=False, progress=False)  # what is there is kept
    assert len(served) == 1


def test_the_people_of_the_search_demo_are_strangers_to_every_shipped_model() -> None:
    from vireid.workflows.search_demo import SEED
    from vireid.workflows.shipped_plan import plan_of, planned

    seeds = {one.seed for plan in map(plan_of, planned()) for one in (*plan.data, plan.selection)}
    assert seeds and SEED not in seeds
