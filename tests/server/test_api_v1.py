"""The API by its own description: version 1, the paths of version 0.1, Swagger UI, and what a client can rely on."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("python_multipart", reason="extra: serve")
from fastapi.testclient import TestClient
from served import bearer, picture, search

from vireid.server.app import create_app
from vireid.server.responses import AboutResponse, MarkedRow, SearchResponse
from vireid.server.search_service import SearchService


@pytest.fixture
def description(shared_api: TestClient) -> dict[str, Any]:
    return shared_api.get("/api/v1/openapi.json").json()


def references(value: Any) -> set[str]:
    """All `$ref` in a part of a description."""
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set[str]()
        return found.union(*map(references, value.values()))
    return set[str]().union(*map(references, value)) if isinstance(value, list) else set()


def names(value: Any) -> set[str]:
    """All keys in a part of a description."""
    if isinstance(value, dict):
        return set(value).union(*map(names, value.values()))
    return set[str]().union(*map(names, value)) if isinstance(value, list) else set()


def test_every_operation_describes_its_answer_and_its_errors(description: dict[str, Any]) -> None:
    api = {path: methods for path, methods in description["paths"].items() if path.startswith("/api/")}
    assert {"/healthz", "/readyz", "/metrics"} == description["paths"].keys() - api.keys()
    operations = [one for methods in api.values() for one in methods.values()]
    assert len(operations) >= 16 and len({one["operationId"] for one in operations}) == len(operations)
    for one in operations:
        [content] = [one["responses"]["200"]["content"]]
        assert all(form.get("schema") for form in content.values()), one
        assert {"401", "403", "404", "422", "500", "503"} <= one["responses"].keys()
        assert one["description"] and {"session": []} in one["security"]
    missing = {
        name for name in references(description) if name.rpartition("/")[2] not in description["components"]["schemas"]
    }
    assert not missing
    assert description["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_forms_are_described_with_their_pictures(description: dict[str, Any]) -> None:
    for path, field in (("search", "ask"), ("records", "record"), ("attention", "ask")):
        form = description["paths"][f"/api/v1/{path}"]["post"]["requestBody"]["content"]["multipart/form-data"]
        assert form["schema"]["properties"]["picture"]["items"]["format"] == "binary"
        assert form["encoding"][field]["contentType"] == "application/json"
        assert form["schema"]["properties"]["picture"]["minItems"] == 1 and not form["schema"]["additionalProperties"]
        assert form["schema"]["required"] == (["picture", "record"] if field == "record" else ["picture"])


def test_files_of_text_are_described_as_text(description: dict[str, Any]) -> None:
    """Clients that are made of the description decode them."""
    for path, method in (("/api/v1/case-file", "post"), ("/api/v1/marks", "get"), ("/metrics", "get")):
        content = description["paths"][path][method]["responses"]["200"]["content"]
        texts = [kind["schema"] for name, kind in content.items() if name.startswith("text/")]
        assert texts == [{"type": "string"}] * len(texts) and texts
    case = description["paths"]["/api/v1/case-file"]["post"]["responses"]["200"]["content"]
    assert case["application/json"]["schema"] == {"type": "object"}


def test_bounds_of_numbers_are_named_as_json_schema_names_them(description: dict[str, Any]) -> None:
    schemas = description["components"]["schemas"]
    assert schemas["MarkRequest"]["properties"]["probability"]["anyOf"][0] == {
        "type": "number", "minimum": 0, "maximum": 1
    }  # fmt: skip
    assert not {"ge", "gt", "le", "lt"} & names(description)


def test_paths_of_the_former_version_answer_the_same_and_are_logged_once(
    service: SearchService, api: TestClient, bundle: Any, caplog: pytest.LogCaptureFixture
) -> None:
    new = search(api, picture(bundle), limit=3)
    with caplog.at_level(logging.WARNING, "vireid.server.app"):
        files = {"picture": ("x.jpg", picture(bundle), "image/jpeg")}
        old = [api.post("/api/search", files=files, data={"ask": json.dumps({"limit": 3})}).json() for _ in range(2)]
    assert old[0]["hits"] == new["hits"] == old[1]["hits"]
    assert [record.getMessage() for record in caplog.records] == [
        "/api/search is of version 0.1 and will be removed; a client should call /api/v1/search"
    ]


def test_another_method_is_refused_with_all_that_the_path_has(shared_api: TestClient) -> None:
    paths = {"marks": "POST, GET", "attention": "GET, POST", "search": "POST", "cases/no-such": "GET, POST, DELETE"}
    for path, methods in paths.items():
        refused = shared_api.put(f"/api/v1/{path}")
        assert refused.status_code == 405 and set(refused.headers["allow"].split(", ")) == set(methods.split(", "))


def test_answers_are_what_their_models_say(shared_api: TestClient, bundle: Any) -> None:
    answer = search(shared_api, picture(bundle), false_match_rate=0.01, limit=2)
    assert SearchResponse(**answer).model_dump(mode="json") == answer
    shared_api.post(
        "/api/v1/marks", json={"query": answer["query"], "marks": [{"id": answer["hits"][0]["id"], "right": True}]}
    )
    [row] = shared_api.get("/api/v1/marks").json()
    assert MarkedRow(**row).model_dump(mode="json") == row
    about = shared_api.get("/api/v1/about").json()
    assert AboutResponse(**about).model_dump(mode="json") == about


def test_swagger_ui_is_for_administrators_and_loads_nothing_from_elsewhere(
    closed: SearchService, secrets: dict[str, str]
) -> None:
    api = TestClient(create_app(closed), base_url="http://somewhere")
    page = api.get("/api/v1/docs", headers=bearer(secrets["admin"]))
    assert page.status_code == 200 and "http" not in page.text.replace("<!DOCTYPE html>", "")
    for name in ("start.js", "swagger-ui-bundle.js", "swagger-ui.css"):
        assert api.get(f"/api/v1/docs/{name}", headers=bearer(secrets["admin"])).status_code == 200
    assert api.get("/api/v1/docs/core.py", headers=bearer(secrets["admin"])).status_code == 404
    assert api.get("/api/v1/docs", headers=bearer(secrets["search"])).status_code == 403
