"""Searching over HTTP: ranking, pages, filters, thresholds, several pictures, and what the archive holds."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from PIL import Image
from served import NAMES, START_S, audit_entries, calibration, client, jpeg, make_service, picture, search, stripes

from vireid.deploy.bundle import Bundle
from vireid.server.search_service import SearchService


def test_the_same_picture_comes_first_and_the_order_is_that_of_the_gallery(
    api: TestClient, service: SearchService, bundle: Bundle
) -> None:
    found = search(api, picture(bundle), modality="visible", limit=64)
    assert found["hits"][0]["id"] == "gate 1/5/1" and found["hits"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert found["modality"] == ["visible"] and found["searched"] == 64 and not found["more"]
    vector = service.searcher.extractor(Image.open(io.BytesIO(picture(bundle))), "visible")
    [expected] = service.archive.gallery.search(vector, 64)
    assert [hit["id"] for hit in found["hits"]] == [hit.record.id for hit in expected]
    made = calibration(bundle)
    for hit in found["hits"]:
        assert hit["probability"] == pytest.approx(float(made.probability(hit["similarity"], (0, 0), prior=1 / 32)))
        assert set(hit) == {
            "id", "camera", "time_s", "modality", "track", "pid", "tags", "similarity", "probability", "match"
        }  # fmt: skip
        assert hit["match"] is None  # no rate was asked for


def test_pages_join_without_gap_or_repetition(api: TestClient, bundle: Bundle) -> None:
    whole = search(api, picture(bundle), limit=64)["hits"]
    pages = [search(api, picture(bundle), limit=20, offset=offset) for offset in (0, 20, 40, 60)]
    assert [hit for page in pages for hit in page["hits"]] == whole
    assert [page["more"] for page in pages] == [True, True, True, False]
    reranked = []
    for offset in range(0, 64, 16):
        reranked.append(search(api, picture(bundle), limit=16, offset=offset, rerank="k-reciprocal")["hits"])
    assert sorted(hit["id"] for page in reranked for hit in page) == sorted(hit["id"] for hit in whole)


def test_one_hit_per_track_and_its_pages(api: TestClient, bundle: Bundle) -> None:
    whole = search(api, picture(bundle), limit=64, per_track=True)
    tracks = [hit["track"] for hit in whole["hits"]]
    assert len(tracks) == 32 == len(set(tracks)) and whole["stamp"]["hits"] == "one per track" and not whole["more"]
    best: dict[str, str] = {}
    for hit in search(api, picture(bundle), limit=64)["hits"]:
        best.setdefault(hit["track"], hit["id"])
    assert [hit["id"] for hit in whole["hits"]] == list(best.values())
    pages = [search(api, picture(bundle), limit=12, offset=offset, per_track=True) for offset in (0, 12, 24)]
    assert [hit for page in pages for hit in page["hits"]] == whole["hits"]
    assert [page["more"] for page in pages] == [True, True, False]
    narrow = search(api, picture(bundle), per_track=True, rerank="k-reciprocal", filter={"cameras": ["night 3"]})
    assert sorted(hit["track"] for hit in narrow["hits"]) == sorted(f"3-{pid}" for pid in range(3, 11))
    marked = search(api, picture(bundle), limit=64, per_track=True, wrong=[whole["hits"][0]["id"]])
    assert tracks[0] not in {hit["track"] for hit in marked["hits"]} and len(marked["hits"]) == 31


def test_filters_narrow_what_is_searched(api: TestClient, bundle: Bundle) -> None:
    found = search(api, picture(bundle), filter={"modality": "infrared", "cameras": ["night 3"]}, limit=64)
    assert {hit["camera"] for hit in found["hits"]} == {"night 3"} and found["searched"] == len(found["hits"]) == 16
    hours = {"after_s": START_S + 3600 * 5, "before_s": START_S + 3600 * 6}
    assert {hit["pid"] for hit in search(api, picture(bundle), filter=hours)["hits"]} == {"p5"}
    assert search(api, picture(bundle), filter={"tags": ["night"], "pids": ["p4"], "tracks": ["4-4"]})["searched"] == 2
    nothing = search(api, picture(bundle), filter={"cameras": ["nowhere"]}, false_match_rate=0.01)
    assert nothing["hits"] == [] and nothing["nobody"] is True and nothing["searched"] == 0


def test_matches_and_nobody_follow_the_threshold(bundle: Bundle, tmp_path: Path) -> None:
    api = client(make_service(tmp_path / "a", bundle, threshold=0.9999))
    found = search(api, picture(bundle), false_match_rate=0.01, modality="visible")
    assert found["nobody"] is False and [hit["match"] for hit in found["hits"]].count(True) >= 1
    assert all(hit["match"] == (hit["similarity"] >= 0.9999) for hit in found["hits"])
    loose = client(make_service(tmp_path / "b", bundle, threshold=0.5))  # random weights: nearly all reach it
    few, all_of_them = (search(loose, picture(bundle), false_match_rate=0.01, limit=n) for n in (2, 64))
    assert few["matches"] == [hit["match"] for hit in all_of_them["hits"]].count(True) > 2 and few["all_counted"]
    strange = search(api, jpeg(stripes()), false_match_rate=0.01, modality="visible")
    assert strange["nobody"] is True and strange["hits"] and not any(hit["match"] for hit in strange["hits"])
    told = search(api, picture(bundle), false_match_rate=0.0001)  # 4,000 pairs cannot support it
    assert told["nobody"] is None and "needs at least 300,000 pairs" in told["notes"][0]
    assert all(hit["match"] is None for hit in told["hits"])


def test_the_prior_is_a_number_or_one_of_what_is_searched(api: TestClient, bundle: Bundle) -> None:
    even = search(api, picture(bundle), modality="visible", limit=64, prior=0.5)
    assert even["prior"] == 0.5 and even["tracks"] is None
    assert search(api, picture(bundle))["prior"] == 1 / 32  # 64 crops of 8 people by 4 cameras
    for ask, prior, more in (
        (0.01, 0.01, {}),
        ("searched", 1 / 32, {}),
        ("searched", 1 / 8, {"filter": {"cameras": ["night 3"]}}),
        ("searched", 1 / 2, {"filter": {"cameras": ["nowhere"]}}),
    ):
        found = search(api, picture(bundle), modality="visible", limit=64, prior=ask, **more)
        assert found["prior"] == pytest.approx(prior)
        for hit in found["hits"]:
            odds = prior / (1 - prior) * np.exp(-8 + 12 * hit["similarity"])
            assert hit["probability"] == pytest.approx(odds / (1 + odds))
    assert [hit["id"] for hit in search(api, picture(bundle), modality="visible", limit=64, prior=0.01)["hits"]] == [
        hit["id"] for hit in even["hits"]
    ]
    for wrong in (0, 1, -1, "half", None, True):
        assert "prior" in search(api, picture(bundle), prior=wrong, status=422)["error"]


def test_without_a_calibration_the_list_is_ranked_and_nothing_is_claimed(bundle: Bundle, tmp_path: Path) -> None:
    api = client(make_service(tmp_path / "a", bundle, calibration=None))
    found = search(api, picture(bundle))
    assert found["nobody"] is None and {hit["probability"] for hit in found["hits"]} == {None}
    assert "vireid calibrate" in search(api, picture(bundle), false_match_rate=0.01, status=422)["error"]
    assert api.get("/api/v1/about").json()["calibration"] is None


def test_a_pair_of_modalities_without_a_table_is_said(bundle: Bundle, tmp_path: Path) -> None:
    whole = calibration(bundle)
    part = {"pairs": {"visible/visible": whole.pairs["visible/visible"]}, "missing": {"visible/infrared": "no people"}}
    api = client(make_service(tmp_path / "a", bundle, calibration=calibration(bundle, **part)))
    found = search(api, picture(bundle), false_match_rate=0.01, modality="visible", limit=64)
    assert any("visible/infrared" in note for note in found["notes"])
    assert {hit["modality"] for hit in found["hits"] if hit["probability"] is None} == {"infrared"}


def test_several_pictures_a_box_and_rows_of_the_archive(
    api: TestClient, service: SearchService, bundle: Bundle
) -> None:
    extract = service.searcher.extractor
    two = [picture(bundle, "5_1_0.png"), picture(bundle, "5_2_1.jpg")]
    images = [Image.open(io.BytesIO(data)) for data in two]
    vectors = extract(images, "visible")
    mean = vectors.mean(0, keepdims=True)
    expected = service.archive.gallery.search((mean / np.linalg.norm(mean)).astype(np.float32), 5)[0]
    assert [h["id"] for h in search(api, *two, limit=5, modality="visible")["hits"]] == [h.record.id for h in expected]
    best = search(api, *two, limit=2, combine="best", modality="visible")["hits"]
    assert {hit["id"] for hit in best} == {"gate 1/5/0", "hall 2/5/1"}

    frame = Image.new("RGB", (200, 120), "gray")
    frame.paste(images[0], (50, 20))
    width, height = images[0].size
    box = [50 / 200, 20 / 120, (50 + width) / 200, (20 + height) / 120]
    cut = search(api, jpeg(frame, "PNG"), boxes=[box], modality="visible")["hits"][0]
    assert cut["id"] == "gate 1/5/0" and cut["similarity"] == pytest.approx(1, abs=1e-5)

    like = api.post("/api/v1/search", json={"like": ["gate 1/5/0"], "limit": 64}).json()
    assert "gate 1/5/0" not in [hit["id"] for hit in like["hits"]] and len(like["hits"]) == 63
    [expected] = service.archive.gallery.search(vectors[:1], 2)
    assert like["hits"][0]["id"] == expected[1].record.id and like["modality"] == ["visible"]
    both = search(api, two[1], like=["gate 1/5/0"], limit=5, modality="visible")
    assert len(both["modality"]) == 2


def test_marks_move_the_query_and_wrong_ones_are_gone(api: TestClient, service: SearchService, bundle: Bundle) -> None:
    before = [hit["id"] for hit in search(api, picture(bundle), limit=64)["hits"]]
    right, wrong = before[-1], before[1]
    after = search(api, picture(bundle), limit=64, right=[right], wrong=[wrong])
    ids = [hit["id"] for hit in after["hits"]]
    assert wrong not in ids and ids.index(right) < before.index(right) and "rocchio" in after["stamp"]["feedback"]
    assert audit_entries(service, "search")[0]["marks"] == 2


def test_what_is_asked_wrongly_is_refused_in_words(api: TestClient, bundle: Bundle) -> None:
    assert "send a picture" in search(api, status=422)["error"]
    assert api.get("/api/v1/about").json()["reranks"] == ["k-reciprocal", "center"]
    assert "k-reciprocal" in search(api, picture(bundle), rerank="shortest-path", status=422)["error"]
    assert "boxes" in search(api, picture(bundle), boxes=[None, None], status=422)["error"]
    assert "whole person" in search(api, picture(bundle), boxes=[[0, 0, 0.01, 0.01]], status=422)["error"]
    assert "no such row" in search(api, like=["no such row"], status=404)["error"]
    assert api.get("/api/nothing").status_code == 404 and "error" in api.get("/api/nothing").json()
    assert api.put("/api/v1/search").status_code == 405


def test_about_says_what_is_here(api: TestClient, bundle: Bundle) -> None:
    about = api.get("/api/v1/about").json()
    assert about["rows"] == 64 and about["cameras"] == dict.fromkeys(NAMES.values(), 16)
    assert about["modalities"] == {"visible": 32, "infrared": 32} and about["tags"] == {"night": 32}
    assert about["first_s"] == START_S + 3 * 3600 + 60 and about["last_s"] == START_S + 10 * 3600 + 241
    assert about["caller"] == {"name": "this machine", "role": "admin", "tokens": False}
    made = about["calibration"]
    assert made["least_rate"]["visible/infrared"] == 30 / 4000
    assert (made["dataset"], made["split"], made["num_people"], made["own_data"]) == ("manifest", "val", 40, True)
    assert about["network"]["method"] == "AGW" and about["attention"] == "" and about["examples"] == []


def test_rows_are_listed_a_page_at_a_time(api: TestClient) -> None:
    seen, after = [], ""
    for _ in range(7):
        page = api.post("/api/v1/records/list", json={"limit": 10, "after_id": after}).json()
        seen += [row["id"] for row in page["rows"]]
        after = seen[-1]
    assert seen == sorted(seen) and len(set(seen)) == 64 and page["more"] is False
    assert api.post("/api/v1/records/list", json={"limit": 10_000}).status_code == 422


def test_rows_are_listed_the_newest_first(api: TestClient, service: SearchService) -> None:
    [row] = service.archive.gallery.fetch(["gate 1/5/0"])
    undated = [replace(row, id=name, time_s=math.nan) for name in ("a", "b")]
    service.archive.gallery.upsert(undated)
    seen, asked = [], {"order": "newest", "limit": 10, "filter": {"cameras": ["gate 1"]}}
    while True:
        page = api.post("/api/v1/records/list", json=asked).json()
        seen += page["rows"]
        if not page["more"]:
            break
        asked |= {"after_id": seen[-1]["id"], "after_time_s": seen[-1]["time_s"]}
    times = [row["time_s"] for row in seen[:-2]]
    assert len(times) == 16 and times == sorted(times, reverse=True)
    assert [(row["id"], row["time_s"]) for row in seen[-2:]] == [("a", None), ("b", None)]


def test_thumbnails_are_small_jpegs_by_id_that_a_browser_may_keep_for_a_while(api: TestClient) -> None:
    found = api.get("/api/v1/thumbnail", params={"id": "gate 1/5/0"})
    assert found.status_code == 200 and found.headers["content-type"] == "image/jpeg"
    assert found.headers["cache-control"] == "private, max-age=600" and found.headers["etag"]
    with Image.open(io.BytesIO(found.content)) as image:
        assert image.format == "JPEG" and max(image.size) <= 256
    assert api.get("/api/v1/thumbnail", params={"id": "gate 1/5/9"}).status_code == 404


def test_attention_covers_the_picture_of_a_row_and_of_a_query(api: TestClient, bundle: Bundle, tmp_path: Path) -> None:
    for found in (
        api.get("/api/v1/attention", params={"id": "gate 1/5/0"}),
        api.post("/api/v1/attention", files={"picture": ("a", picture(bundle))}, data={"ask": "{}"}),
    ):
        assert found.status_code == 200 and found.headers["content-type"] == "image/png", found.text
        with Image.open(io.BytesIO(found.content)) as image:
            assert image.mode == "RGBA" and max(image.size) == 256
            alpha = np.asarray(image)[..., 3]
            assert alpha.max() > 100 > alpha.min()  # strong places are covered, weak ones are not
    off = client(make_service(tmp_path / "off", bundle, attention=None))
    assert off.get("/api/v1/attention", params={"id": "gate 1/5/0"}).status_code == 501
    assert off.get("/api/v1/about").json()["attention"]
