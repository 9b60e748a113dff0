"""Route of the role admin: the tracks of a person, to choose from before they are deleted."""

from __future__ import annotations

from fastapi import APIRouter

from vireid.server.deps import CallerDep, PoolDep, ServiceDep, require_role
from vireid.server.person import tracks_of_person
from vireid.server.responses import PersonResponse
from vireid.server.schemas import PersonRequest

router = APIRouter(dependencies=[require_role("admin")], tags=["administration"])


@router.post("/person")
async def find_person(body: PersonRequest, caller: CallerDep, service: ServiceDep, pool: PoolDep) -> PersonResponse:
    """The tracks of the person of some rows, with the ids of all their rows; `forget` deletes those that are chosen."""
    return await pool.run(lambda: tracks_of_person(service, caller, body))
