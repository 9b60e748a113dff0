"""Routes that change the archive: add a crop (role ingest), delete rows and read the audit log (role admin)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query

from vireid.ingest.recordings import recordings_of
from vireid.server.auth import Caller
from vireid.server.deps import AddForm, CallerDep, PoolDep, ServiceDep, require_role
from vireid.server.openapi import UPLOAD, errors, form_body
from vireid.server.responses import AddResponse, AuditResponse, ForgetResponse
from vireid.server.schemas import AddRequest, ForgetRequest
from vireid.server.search_service import SearchService

router = APIRouter()


@router.post(
    "/records",
    dependencies=[require_role("ingest")],
    tags=["ingest"],
    responses=errors(*UPLOAD, 507),
    openapi_extra=form_body("record", AddRequest, one_picture=True),
)
async def add_record(form: AddForm, caller: CallerDep, service: ServiceDep, pool: PoolDep) -> AddResponse:
    """Add one crop, or replace the one of its id."""
    if len(form.pictures) != 1:
        raise HTTPException(422, f"expected one picture, got {len(form.pictures)}")
    return await pool.run(lambda: service.add(caller, form.body, form.pictures[0]))


@router.post(
    "/forget",
    dependencies=[require_role("admin")],
    tags=["administration"],
    response_model_exclude_none=True,
    responses=errors(409, 507),
)
async def forget(body: ForgetRequest, caller: CallerDep, service: ServiceDep, pool: PoolDep) -> ForgetResponse:
    """Count rows, and with the right `expect` delete them."""
    return await pool.run(lambda: forget_rows(service, caller, body))


@router.get("/audit", dependencies=[require_role("admin")], tags=["administration"])
def audit(service: ServiceDep, last: Annotated[int, Query(ge=1, le=1000)] = 100) -> AuditResponse:
    """The last entries of the audit log."""
    return AuditResponse(entries=service.archive.audit.entries(last))


def forget_rows(service: SearchService, caller: Caller, body: ForgetRequest) -> ForgetResponse:
    archive, gallery, row_filter = service.archive, service.archive.gallery, body.filter.to_filter()
    if bool(body.ids) == (not row_filter.empty):
        raise HTTPException(422, "name rows by `ids`, or by a `filter` that is not empty, and not by both")
    rows = len(gallery.fetch(body.ids, missing="skip")) if body.ids else gallery.count(row_filter)
    if body.expect is None:
        return ForgetResponse(rows=rows, deleted=False)
    if body.expect != rows:
        raise HTTPException(409, f"there are {rows} such rows now, not {body.expect}; count again and confirm")
    conditions = {"ids": list(body.ids)} if body.ids else {"filter": body.filter.conditions()}
    service.log(caller, "forget", **conditions, rows=rows)
    named = gallery.fetch(body.ids, missing="skip") if body.ids else list(gallery.rows(row_filter))
    recordings = recordings_of(archive, named)
    deleted = archive.forget(body.ids) if body.ids else archive.forget(where=row_filter)
    service.log(caller, "forgotten", **conditions, **vars(deleted))
    service.forget_vectors()
    return ForgetResponse(
        **{**vars(deleted), "cases_left": list(deleted.cases_left)}, deleted=True, recordings=recordings
    )
