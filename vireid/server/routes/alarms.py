"""Route of the role search: alarms that `vireid watch` raised into the archive."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from vireid.live.store import NAME, last_alarms
from vireid.server.deps import CallerDep, ServiceDep, require_role
from vireid.server.responses import AlarmResponse, AlarmsResponse

router = APIRouter(dependencies=[require_role("search")], tags=["alarms"])


@router.get("/alarms")
def alarms(caller: CallerDep, service: ServiceDep, last: Annotated[int, Query(ge=1, le=500)] = 100) -> AlarmsResponse:
    """The last alarms, the newest first."""
    path = service.archive.folder / NAME
    if not path.is_file():
        return AlarmsResponse(watched=False, alarms=[])
    rows = last_alarms(path, last)
    service.log(caller, "alarms", alarms=len(rows))
    names = AlarmResponse.model_fields.keys() - {"waiting"}
    return AlarmsResponse(
        watched=True,
        alarms=[AlarmResponse(**{name: event[name] for name in names}, waiting=waiting) for event, waiting in rows],
    )
