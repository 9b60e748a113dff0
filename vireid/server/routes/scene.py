"""Route of the role search: the whole frame that a hit was cut from."""

from __future__ import annotations

import io
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Response

from vireid.errors import PictureError, SourceError
from vireid.ingest.scene import scene_of
from vireid.ingest.segments import FOLDER
from vireid.server.deps import CallerDep, PoolDep, ServiceDep, require_role
from vireid.server.openapi import errors, file_response

MAX_OFFSET_S = 30.0
QUALITY = 88
UNREADABLE = "the source of this crop cannot be read at this moment; it may end before it"

router = APIRouter(dependencies=[require_role("search")], tags=["search"])


@router.get("/scene", response_class=Response, responses={**file_response("image/jpeg"), **errors(404)})
async def scene(
    row_id: Annotated[str, Query(alias="id", min_length=1, max_length=512)],
    caller: CallerDep,
    service: ServiceDep,
    pool: PoolDep,
    offset_s: Annotated[float, Query(ge=-MAX_OFFSET_S, le=MAX_OFFSET_S, allow_inf_nan=False)] = 0.0,
) -> Response:
    """The frame of a row with its box, or the one some seconds before or after it; `Vireid-Scene` names its kind."""

    def work() -> Response:
        archive = service.archive
        records = archive.gallery.fetch([row_id], missing="skip")
        if not records:
            raise HTTPException(404, "there is no row of this id")
        try:
            shown = scene_of(records[0], archive.folder / FOLDER, archive.gray.of(records[0].camera), offset_s)
        except (SourceError, PictureError) as error:  # a path of this machine stays here
            reason = str(error) if isinstance(error, SourceError) else UNREADABLE
            raise HTTPException(404, reason) from None
        service.log(caller, "scene", id=row_id, offset_s=offset_s)
        file = io.BytesIO()
        shown.picture.save(file, "JPEG", quality=QUALITY)
        kind = f"{'video' if shown.video else 'picture'}{', boxed' if shown.boxed else ''}"
        headers = {"cache-control": "no-store", "vireid-scene": kind}
        return Response(file.getvalue(), media_type="image/jpeg", headers=headers)

    return await pool.run(work)
