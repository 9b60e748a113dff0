"""Route of the role search: when the person of a picture passed which camera."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from vireid.server.deps import CallerDep, Form, PoolDep, ServiceDep, read_form, require_role
from vireid.server.openapi import UPLOAD, errors, form_body
from vireid.server.responses import VisitsResponse
from vireid.server.schemas import VisitsRequest
from vireid.server.visits import answer_visits

VisitsForm = Annotated[Form[VisitsRequest], Depends(read_form("ask", VisitsRequest))]

router = APIRouter(dependencies=[require_role("search")], tags=["search"])


@router.post("/visits", responses=errors(*UPLOAD), openapi_extra=form_body("ask", VisitsRequest))
async def visits(form: VisitsForm, caller: CallerDep, service: ServiceDep, pool: PoolDep) -> VisitsResponse:
    """Passages (camera, from, until) of the person, grouped into visits."""
    return await pool.run(lambda: answer_visits(service, caller, form.body, form.pictures))
