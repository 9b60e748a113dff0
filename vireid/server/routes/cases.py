"""Routes of the role search: case files, and searches that are kept as cases."""

from __future__ import annotations

import json
import time
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Response

from vireid.search.cases import Case
from vireid.server.case_file import MEDIA_TYPES, case_file
from vireid.server.deps import CallerDep, Form, PoolDep, ServiceDep, read_form, require_role
from vireid.server.openapi import UPLOAD, errors, file_response, form_body
from vireid.server.responses import CaseDeleted, CaseResponse, CasesResponse
from vireid.server.schemas import CaseChange, CaseFileRequest, CaseFormat
from vireid.server.search_service import SearchService

CaseForm = Annotated[Form[CaseFileRequest], Depends(read_form("ask", CaseFileRequest))]
MAX_LISTED = 500
OPENAPI = form_body("ask", CaseFileRequest)

router = APIRouter(dependencies=[require_role("search")], tags=["cases"])


@router.post(
    "/case-file",
    response_class=Response,
    responses={**file_response(*MEDIA_TYPES.values()), **errors(*UPLOAD)},
    openapi_extra=OPENAPI,
)
async def export_case(
    form: CaseForm,
    caller: CallerDep,
    service: ServiceDep,
    pool: PoolDep,
    file_format: Annotated[CaseFormat, Query(alias="format")] = "html",
) -> Response:
    """A search with all its hits as a page with pictures, CSV or JSON."""
    text = await pool.run(lambda: case_file(service, caller, form.body, form.pictures, file_format))
    headers = {"content-disposition": f'attachment; filename="case.{file_format}"'}
    return Response(text, media_type=f"{MEDIA_TYPES[file_format]}; charset=utf-8", headers=headers)


@router.post("/cases", responses=errors(*UPLOAD), openapi_extra=OPENAPI)
async def keep_case(form: CaseForm, caller: CallerDep, service: ServiceDep, pool: PoolDep) -> CaseResponse:
    """Keep a search with its pictures and marks under a name, for everybody who may search."""

    def work() -> CaseResponse:
        request = form.body
        service.check_request(request, form.pictures)
        service.decode(form.pictures, request)  # what is kept can be searched again
        kept = request.model_dump(exclude={"name", "note"}, exclude_defaults=True, mode="json")
        service.log(caller, "keep case", name=request.name, pictures=len(form.pictures))
        case = service.archive.cases.add(
            request.name, request.note, caller.name, time.time(), json.dumps(kept),
            [picture.data for picture in form.pictures],
        )  # fmt: skip
        return response_of(case)

    return await pool.run(work)


@router.get("/cases")
def list_cases(service: ServiceDep) -> CasesResponse:
    """Cases, the newest first."""
    return CasesResponse(cases=[response_of(case) for case in service.archive.cases.all()[:MAX_LISTED]])


@router.get("/cases/{case_id}", responses=errors(404))
def read_case(case_id: str, caller: CallerDep, service: ServiceDep) -> CaseResponse:
    """A case with the request to search it again with."""
    case = known(service, case_id)
    service.log(caller, "open case", case=case.id, name=case.name)
    return response_of(case)


@router.get(
    "/cases/{case_id}/pictures/{number}",
    response_class=Response,
    responses={**file_response("application/octet-stream"), **errors(404)},
)
def case_picture(case_id: str, number: int, service: ServiceDep) -> Response:
    """A picture of a case, counted from 0."""
    data = service.archive.cases.picture(case_id, number) if 0 <= number < 1000 else None
    if data is None:
        raise HTTPException(404, "there is no such picture")
    return Response(data, media_type="application/octet-stream", headers={"cache-control": "no-store"})


@router.post("/cases/{case_id}", responses=errors(404))
def change_case(case_id: str, body: CaseChange, caller: CallerDep, service: ServiceDep) -> CaseResponse:
    """Replace the name and the note of a case."""
    known(service, case_id)
    service.log(caller, "change case", case=case_id, name=body.name)
    service.archive.cases.change(case_id, body.name, body.note)
    return response_of(known(service, case_id))


@router.delete("/cases/{case_id}", responses=errors(403, 404))
def delete_case(case_id: str, caller: CallerDep, service: ServiceDep) -> CaseDeleted:
    """Delete a case with its pictures: its author or an administrator."""
    case = known(service, case_id)
    if case.who != caller.name and not caller.has_role("admin"):
        raise HTTPException(403, f"only {case.who} or an administrator may delete this case")
    service.log(caller, "delete case", case=case.id, name=case.name)
    return CaseDeleted(deleted=service.archive.cases.delete(case.id))


def known(service: SearchService, case_id: str) -> Case:
    """The case of an id, or 404."""
    case = service.archive.cases.get(case_id)
    if case is None:
        raise HTTPException(404, "there is no such case; it may have been deleted")
    return case


def response_of(case: Case) -> CaseResponse:
    """A case as it is sent."""
    return CaseResponse(**{**vars(case), "request": json.loads(case.request)})
