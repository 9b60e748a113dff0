"""Search demo: a model that comes with vireid, a synthetic night of six cameras, and the page with a query filled in.

Nothing is trained. The model was not trained on these people. Each passes the day cameras before sunset and the
infrared ones at night; the queries are further day pictures of the same people, which are not in the archive, and one
of a stranger. The queries that are offered first are those that the model answers best; how many people it finds of all
is printed.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from vireid.deploy.extractor import FeatureExtractor
from vireid.deploy.model import bundle_of
from vireid.ingest.index import Crop, index
from vireid.models import DEFAULT
from vireid.search.archive import Archive, files_of
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter, Gallery
from vireid.server.settings import Example
from vireid.synthetic.make import CAMERAS, picture
from vireid.types import INFRARED, VISIBLE
from vireid.workflows.service import open_service, run_service

log = logging.getLogger(__name__)
SEED = 0  # of the people: no model that comes with vireid was trained, selected or calibrated on it (a test)
PEOPLE = list(range(1, 25))  # of the night
SHOTS = {VISIBLE: 2, INFRARED: 4}  # pictures of one passage
QUERY_SHOT = 90  # of the queries; no picture of the archive has this number
QUERY_CAMERAS = (4, 5, 2)  # where they were taken: the gate, the garden, the hall
STRANGER = 9000  # a person who is not in the archive
SUNSET = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)
STEPS = {1: 4, 2: 9, 4: 0, 5: 20, 3: 190, 6: 205}  # minutes after somebody's arrival that each camera sees them
EXAMPLES = 5


def run_search_demo(
    root: Path, port: int = 8000, *, model: str = DEFAULT, serve: bool = True, progress: bool = True
) -> None:
    """Prepare all in the folder `root` and serve the page until stopped; what is there already is kept."""
    bundle = bundle_of(model)
    root.mkdir(parents=True, exist_ok=True)
    url = f"lance:{root / f'night-{bundle.config.digest[:8]}'}"  # another model needs another gallery
    extractor = FeatureExtractor(bundle)
    with closing(Archive(open_gallery(url, bundle.config.dim, bundle.config.digest), files_of(url, None))) as archive:
        if archive.gallery.count() < crops_of_night(PEOPLE):
            index(archive, extractor, night(PEOPLE, progress))
        examples, first = choose_examples(archive.gallery, extractor, PEOPLE)
    log.info(
        "%d of %d people rank first among the night's infrared crops when searched by one day picture (1 would by "
        "chance)",
        first,
        len(PEOPLE),
    )
    if serve:
        service = open_service(model, url, examples=examples)
        run_service([service], port=port)


def crops_of_night(people: list[int]) -> int:
    return len(people) * sum(SHOTS[camera.modality] for camera in CAMERAS["sysu"])


def night(people: list[int], progress: bool = True) -> Iterator[Crop]:
    """The crops of all cameras, each drawn when it is read."""
    random = np.random.default_rng(SEED)
    passages = []
    for pid in people:
        arrival = SUNSET + timedelta(minutes=float(random.uniform(0, 150)))
        for camera in CAMERAS["sysu"]:
            wait = timedelta(minutes=STEPS[camera.camid] + float(random.uniform(0, 60 if camera.modality else 12)))
            passages.append((pid, camera, arrival + wait))
    for pid, camera, at in track(passages, "night", disable=not progress, console=Console(stderr=True)):
        for shot in range(SHOTS[camera.modality]):
            name = f"{camera.place} {camera.camid}"
            yield Crop(
                id=f"night/{camera.camid}/{pid:04d}/{shot}",
                path=Path(f"night/{camera.camid}/{pid:04d}_{shot}.jpg"),
                camera=name,
                time_s=at.timestamp() + shot,
                modality="infrared" if camera.modality == INFRARED else "visible",
                track=f"{camera.camid}-{pid}",
                pid=f"person {pid}",
                picture=Image.fromarray(picture(pid, camera, shot, SEED).image),
            )


def choose_examples(gallery: Gallery, extractor: FeatureExtractor, people: list[int]) -> tuple[list[Example], int]:
    """Queries for the page, those that are answered best first, and how many people are found first at night."""
    cameras = {camera.camid: camera for camera in CAMERAS["sysu"]}
    shots = [(pid, camid) for pid in people for camid in QUERY_CAMERAS]
    drawn = [Image.fromarray(picture(pid, cameras[camid], QUERY_SHOT, SEED).image) for pid, camid in shots]
    vectors = extractor(drawn, "visible")
    ranks = []
    for (pid, _), hits in zip(shots, gallery.search(vectors, 50, Filter(modality=INFRARED)), strict=True):
        right = [place for place, hit in enumerate(hits) if hit.record.pid == f"person {pid}"]
        ranks.append((right[0] if right else len(hits), -len([place for place in right if place < 10])))
    first = sum(rank[0] == 0 for rank, (_, camid) in zip(ranks, shots, strict=True) if camid == QUERY_CAMERAS[0])
    chosen: dict[int, Example] = {}
    for place in sorted(range(len(shots)), key=lambda at: ranks[at]):
        pid = shots[place][0]
        chosen.setdefault(pid, Example(f"person {pid}", _jpeg(drawn[place]), "visible", "infrared"))
    stranger = Image.fromarray(picture(STRANGER, cameras[QUERY_CAMERAS[0]], QUERY_SHOT, SEED).image)
    return [
        *list(chosen.values())[:EXAMPLES],
        Example("a person who is not in the archive", _jpeg(stranger), "visible"),
    ], first


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=92)
    return out.getvalue()
