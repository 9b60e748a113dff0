"""Routes of those who change the archive: add a crop, forget people for good, read the audit log."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from fastapi import FastAPI, HTTPException, Query, Request

from vireid.search.gallery import Record
from vireid.server.auth import Caller
from vireid.server.deps import Door
from vireid.server.schemas import Forget, NewRecord
from vireid.server.search_service import Answers
from vireid.server.uploads import decode
from vireid.types import MODALITIES


def add_admin(app: FastAPI, door: Door, answers: Answers) -> None:
    archive, ingest, admin = door.service.archive, door.needs("ingest"), door.needs("admin")

    def add_crop(caller: Caller, new: NewRecord, picture: bytes) -> dict[str, Any]:
        """Add one crop, or replace the one of its id."""
        upload = decode(picture, door.service.limits, door.service.searcher.extractor.gray)
        time_s = math.nan if new.time_s is None else new.time_s
        id = new.id or hashlib.sha256(f"{upload.digest}/{new.camera}/{new.time_s}".encode()).hexdigest()[:32]
        [(vectors, kinds)] = door.service.searcher.extractor.batches([upload.image], new.modality)
        thumbnail = archive.thumbnails.name(id)
        record = Record(
            id=id, vector=vectors[0], camera=new.camera, time_s=time_s, modality=int(kinds[0]), path="",
            track=new.track, pid=new.pid, tags=new.tags, thumbnail=thumbnail,
        )  # fmt: skip
        door.note(caller, "add", id=id, camera=new.camera, picture=upload.digest)
        archive.thumbnails.write(id, upload.image)
        archive.gallery.upsert([record])
        answers.changed()
        return {"id": id, "modality": MODALITIES[record.modality]}

    def forget_rows(caller: Caller, asked: Forget) -> dict[str, Any]:
        """Count, and with the right `expect` delete for good."""
        where, gallery = asked.filter.filter(), archive.gallery
        if bool(asked.ids) == (not where.empty):
            raise HTTPException(422, "name rows by `ids`, or by a `filter` that is not empty, and not by both")
        rows = len(gallery.fetch(asked.ids, missing="skip")) if asked.ids else gallery.count(where)
        if asked.expect is None:
            return {"rows": rows, "deleted": False}
        if asked.expect != rows:
            raise HTTPException(409, f"there are {rows} such rows now, not {asked.expect}; look again and confirm")
        told = {"ids": list(asked.ids)} if asked.ids else {"filter": asked.filter.told()}
        door.note(caller, "forget", **told, rows=rows)
        gone = archive.forget(asked.ids) if asked.ids else archive.forget(filter=where)
        door.note(caller, "forgotten", **told, rows=gone.rows, thumbnails=gone.thumbnails, marks=gone.marks)
        answers.changed()
        return {"rows": gone.rows, "thumbnails": gone.thumbnails, "marks": gone.marks, "deleted": True}

    @app.post("/api/records")
    async def add(request: Request, caller: Caller = ingest) -> dict[str, Any]:
        new, pictures = await door.form(request, "record", NewRecord)
        if len(pictures) != 1:
            raise HTTPException(422, f"expected one picture, got {len(pictures)}")
        return await door.compute(lambda: add_crop(caller, new, pictures[0]))

    @app.post("/api/forget")
    async def forget(asked: Forget, caller: Caller = admin) -> dict[str, Any]:
        return await door.compute(lambda: forget_rows(caller, asked))

    @app.get("/api/audit")
    def audit(last: int = Query(100, ge=1, le=1000), caller: Caller = admin) -> dict[str, Any]:
        return {"entries": archive.audit.entries(last)}
