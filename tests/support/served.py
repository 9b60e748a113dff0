"""A search service over 64 crops of 8 people by 4 cameras, with random weights: what the tests of app and page ask."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from PIL import Image
from small_run import make_run, write_people

from vireid.deploy.bundle import Bundle
from vireid.deploy.calibration import Calibration, Pair, Row
from vireid.deploy.export import export_bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.ingest.index import Crop, index
from vireid.search.archive import Archive
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Gallery
from vireid.search.searcher import Searcher
from vireid.server.app import API, ROOMS, create_app
from vireid.server.attention import Attention
from vireid.server.routes import health, page
from vireid.server.search_service import SearchService, load_rerankers
from vireid.server.settings import Example, ServerSettings
from vireid.server.uploads import Limits

HERE = "http://127.0.0.1:8000"
START_S = 1_700_000_000.0  # 14 November 2023
SMALL = Limits(picture_bytes=200_000, picture_pixels=1_000_000, pictures=3)
NAMES = {1: "gate 1", 2: "hall 2", 3: "night 3", 4: "passage 4"}


def make_bundle(folder: Path) -> Bundle:
    """Pictures in folder/data, a run in folder/run and its bundle."""
    write_people(folder / "data", {"train": 3, "test": 8})
    return export_bundle(make_run(folder / "run", folder / "data"), folder / "bundle", onnx=False)


def crops(folder: Path) -> list[Crop]:
    """The 64 test crops: people 3 to 10, a track for each camera, one hour between people."""
    found = []
    for pid in range(3, 11):
        for camera, name in NAMES.items():
            for image in range(2):
                file = f"{pid}_{camera}_{image}.{'jpg' if image else 'png'}"
                found.append(Crop(
                    id=f"{name}/{pid}/{image}", path=folder / "data" / file,
                    camera=name, time_s=START_S + 3600 * pid + 60 * camera + image,
                    modality="visible" if camera < 3 else "infrared", track=f"{camera}-{pid}", pid=f"p{pid}",
                    tags=("night",) if camera > 2 else (),
                ))  # fmt: skip
    return found


def calibration(bundle: Bundle, threshold: float = 0.9, **changes: Any) -> Calibration:
    """One table for every pair: from `threshold` on two pictures match, at 1 in 100."""
    rows = tuple(
        Row(threshold=at, false_match_rate=rate, false_non_match_rate=0.1)
        for at, rate in ((threshold - 0.2, 0.1), (threshold, 0.01))
    )
    pair = Pair(same_pairs=500, other_pairs=4000, people=40, offset=-8, slope=12, cllr=0.5, rows=rows)
    given = {
        "embedder": bundle.config.digest, "dataset": "manifest", "split": "val", "images": "0", "people": "unseen",
        "ignored": "", "missing": {},
        "pairs": {name: pair for name in ("visible/visible", "visible/infrared", "infrared/infrared")},
    }  # fmt: skip
    return Calibration(**{**given, **changes})


def make_service(
    folder: Path,
    bundle: Bundle,
    gallery: Gallery | None = None,
    *,
    fill: bool = True,
    threshold: float = 0.9,
    settings: ServerSettings | None = None,
    **changes: Any,
) -> SearchService:
    """A service whose files lie in `folder`, filled with the crops beside the bundle; `changes` replace its parts."""
    opened = gallery or open_gallery("memory:", bundle.config.dim, bundle.config.digest)
    extractor = FeatureExtractor(bundle, device="cpu")
    archive = Archive(opened, folder)
    if fill:
        index(archive, extractor, crops(bundle.path.parent))
    parts = {"calibration": calibration(bundle, threshold), "attention": Attention(bundle), **changes}
    searcher = Searcher(extractor, opened, parts["calibration"])
    return SearchService(
        bundle, searcher, archive, rerankers=load_rerankers(bundle), settings=settings or ServerSettings(), **parts
    )


def examples(bundle: Bundle) -> tuple[Example, ...]:
    """A picture that is in the archive, searched for in infrared, and a stripe of nobody."""
    return (
        Example("person 5", (bundle.path.parent / "data/5_1_1.jpg").read_bytes(), "visible", ""),
        Example("nobody", jpeg(stripes()), "visible", "infrared"),
    )


def client(service: SearchService, **headers: str) -> TestClient:
    return TestClient(create_app(service), base_url=HERE, headers=headers, raise_server_exceptions=False)


def routes() -> set[tuple[str, str]]:
    """Method and path of every route."""
    found = [("", page.router), ("", health.router), *((API, room.router) for room in ROOMS)]
    return {
        (method, f"{prefix}{route.path}")
        for prefix, router in found
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }


def stripes(height: int = 64, width: int = 32) -> Image.Image:
    """A picture like nobody's."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[::4] = (255, 0, 255)
    return Image.fromarray(pixels)


def jpeg(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def picture(bundle: Bundle, name: str = "5_1_1.jpg") -> bytes:
    """The bytes of a picture beside the bundle."""
    return (bundle.path.parent / "data" / name).read_bytes()


def search(api: TestClient, *pictures: bytes, status: int = 200, **request: Any) -> dict[str, Any]:
    """The JSON of a search, whose status is checked."""
    files = [("picture", ("x.jpg", data, "image/jpeg")) for data in pictures]
    sent = {"data": {"ask": json.dumps(request)}, "files": files} if files else {"json": request}
    response = api.post("/api/v1/search", **sent)
    assert response.status_code == status, response.text
    return response.json()


def post_picture(api: TestClient, data: bytes, name: str = "a.jpg", kind: str = "image/jpeg", body: Any = None) -> Any:
    """The response to a search with one file, which may be no picture at all."""
    return api.post(
        "/api/v1/search", files={"picture": (name, data, kind)}, data={"ask": json.dumps(body or {"limit": 1})}
    )


def audit_entries(service: SearchService, what: str) -> list[dict[str, Any]]:
    return [entry for entry in service.archive.audit.entries() if entry["what"] == what]


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}
