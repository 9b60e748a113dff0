"""Routes of the role search: search, list rows, view crops and heat maps, mark hits and export marks."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request, Response
from PIL import Image

from vireid import images
from vireid.search.marks import Mark, as_csv, marks_json, to_json
from vireid.server.conditional import conditional_response
from vireid.server.deps import CallerDep, PoolDep, SearchForm, ServiceDep, require_role
from vireid.server.openapi import UPLOAD, errors, file_response, form_body
from vireid.server.responses import ListResponse, MarkedRow, MarksResponse, SearchResponse
from vireid.server.schemas import ListRequest, MarksRequest, SearchRequest
from vireid.server.search_service import SearchService, row_of
from vireid.types import MODALITIES

THUMBNAIL_AGE_S = 600  # a browser may keep a picture for this time; after a deletion it is gone from there too
RowId = Annotated[str, Query(alias="id", min_length=1, max_length=512)]

CSV = file_response("text/csv")[200]
EXPORTED: dict[int | str, dict[str, Any]] = {200: {**CSV, "model": list[MarkedRow]}}

router = APIRouter(dependencies=[require_role("search")], tags=["search"])


@router.post("/search", responses=errors(*UPLOAD), openapi_extra=form_body("ask", SearchRequest))
async def search(
    request: Request, form: SearchForm, caller: CallerDep, service: ServiceDep, pool: PoolDep
) -> SearchResponse:
    """Ranked hits for pictures of one person (as a form), or for rows that `like` names (as a form or JSON)."""
    answer = await pool.run(lambda: service.search(caller, form.body, form.pictures))
    request.app.state.metrics.searched(service.name, answer)
    return answer


@router.post("/records/list")
def list_records(body: ListRequest, caller: CallerDep, service: ServiceDep) -> ListResponse:
    """Rows by id, or the newest first. The next page begins behind the last row."""
    gallery, where = service.archive.gallery, body.filter.to_filter()
    if body.order == "newest":
        rows = gallery.newest(where, body.limit + 1, body.after)
    else:
        rows = list(gallery.rows(where, body.limit + 1, body.after_id))
    service.log(caller, "browse", filter=body.filter.conditions(), rows=min(len(rows), body.limit))
    return ListResponse(rows=[row_of(record) for record in rows[: body.limit]], more=len(rows) > body.limit)


@router.get(
    "/thumbnail", response_class=Response, responses={**file_response("image/jpeg", conditional=True), **errors(404)}
)
def thumbnail(request: Request, row_id: RowId, service: ServiceDep) -> Response:
    """The picture of a row, at most 256 pixels high."""
    jpeg = read_thumbnail(service, row_id)
    return conditional_response(request, jpeg, "image/jpeg", f"private, max-age={THUMBNAIL_AGE_S}")


@router.get("/attention", response_class=Response, responses={**file_response("image/png"), **errors(404, 501)})
async def row_attention(row_id: RowId, service: ServiceDep, pool: PoolDep) -> Response:
    """Heat map over the thumbnail of a row."""

    def work() -> Response:
        return heat_map(service, images.read(read_thumbnail(service, row_id)), "auto")

    return await pool.run(work)


@router.post(
    "/attention",
    response_class=Response,
    responses={**file_response("image/png"), **errors(*UPLOAD, 501)},
    openapi_extra=form_body("ask", SearchRequest, one_picture=True),
)
async def query_attention(form: SearchForm, service: ServiceDep, pool: PoolDep) -> Response:
    """Heat map over the one picture of a query."""
    if len(form.pictures) != 1:
        raise HTTPException(422, f"expected one picture, got {len(form.pictures)}")

    def work() -> Response:
        [crop], _ = service.decode(form.pictures, form.body)
        return heat_map(service, crop, form.body.modality)

    return await pool.run(work)


@router.post("/marks")
def mark(body: MarksRequest, caller: CallerDep, service: ServiceDep) -> MarksResponse:
    """Keep which hits of a query are right and wrong."""
    now = time.time()
    kept = [
        Mark(body.query, one.id, one.right, caller.name, now, one.similarity, one.probability)
        for one in body.marks
        if one.right is not None
    ]
    marks = service.archive.marks
    marks.put(kept)
    marks.take_back(body.query, [one.id for one in body.marks if one.right is None])
    right = sum(one.right for one in kept)
    service.log(caller, "mark", query=body.query, right=right, wrong=len(kept) - right)
    return MarksResponse(marks=len(marks.of(body.query)))


@router.get("/marks", response_class=Response, responses=EXPORTED)
def export_marks(
    caller: CallerDep,
    service: ServiceDep,
    query: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None,
    file_format: Annotated[Literal["csv", "json"], Query(alias="format")] = "json",
) -> Response:
    """The marks of one query, or all, with what is known of their rows."""
    archive = service.archive
    marks = archive.marks.of(query)
    records = {record.id: record for record in archive.gallery.fetch(list({m.id for m in marks}), missing="skip")}
    rows = [to_json(one, records.get(one.id)) for one in marks]
    service.log(caller, "export", marks=len(rows), query=query)
    text = as_csv(rows) if file_format == "csv" else marks_json(rows)
    media_type = "text/csv" if file_format == "csv" else "application/json"
    headers = {"content-disposition": f'attachment; filename="marks.{file_format}"'}
    return Response(text, media_type=f"{media_type}; charset=utf-8", headers=headers)


def read_thumbnail(service: SearchService, row_id: str) -> bytes:
    jpeg = service.archive.thumbnails.read(row_id)
    if jpeg is None:
        raise HTTPException(404, "there is no picture of this id")
    return jpeg


def heat_map(service: SearchService, picture: Image.Image, modality: str) -> Response:
    attention = service.attention
    if attention is None or attention.reason:
        raise HTTPException(501, f"there is no heat map: {service.attention_reason}")
    index = None if modality == "auto" else MODALITIES.index(modality)
    return Response(attention.overlay(picture, index), media_type="image/png")
