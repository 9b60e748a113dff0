"""Route of the role search: the people in a picture, to choose from before a search."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException

from vireid.server.deps import DetectForm, PoolDep, ServiceDep, require_role
from vireid.server.openapi import UPLOAD, errors, form_body
from vireid.server.responses import DetectResponse
from vireid.server.schemas import DetectRequest

router = APIRouter(dependencies=[require_role("search")], tags=["search"])


@router.post("/detect", responses=errors(*UPLOAD, 501), openapi_extra=form_body("ask", DetectRequest, one_picture=True))
async def detect(form: DetectForm, service: ServiceDep, pool: PoolDep) -> DetectResponse:
    """The people in one picture, as boxes in its pixels; the picture is not kept."""
    if service.settings.detection is None:
        raise HTTPException(
            501,
            "this service has no detector; `vireid serve` has one where OpenVINO or onnxruntime is installed, or by "
            "--detector",
        )
    if len(form.pictures) != 1:
        raise HTTPException(422, f"expected one picture, got {len(form.pictures)}")
    return await pool.run(lambda: service.detect(form.body, form.pictures[0]))
