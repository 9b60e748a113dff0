"""Routes of those who search: ask, list rows, look at crops and heat maps, mark and export marks."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from PIL import Image

from vireid.images import read
from vireid.search.marks import Mark, as_csv, marks_json, to_json
from vireid.server.auth import Caller
from vireid.server.deps import Door
from vireid.server.schemas import Ask, Browse, NewMarks
from vireid.server.search_service import Answers, row_of
from vireid.types import MODALITIES

THUMBNAIL_AGE_S = 600  # a browser may keep a picture so long; deleted ones are gone from it after that


def add_search(app: FastAPI, door: Door, answers: Answers) -> None:
    archive, search = door.service.archive, door.needs("search")

    def thumbnail_of(id: str) -> Response:
        jpeg = archive.thumbnails.read(id)
        if jpeg is None:
            raise HTTPException(404, "there is no picture of this id")
        tag = f'"{hashlib.sha256(jpeg).hexdigest()[:16]}"'
        age = {"cache-control": f"private, max-age={THUMBNAIL_AGE_S}", "etag": tag}
        return Response(jpeg, media_type="image/jpeg", headers=age)

    def overlay(picture: Image.Image, modality: str) -> Response:
        attention = door.service.attention
        if attention is None or attention.reason:
            told = attention.reason if attention else "it is switched off"
            raise HTTPException(501, f"there is no heat map: {told}")
        kind = None if modality == "auto" else MODALITIES.index(modality)
        return Response(attention.overlay(picture, kind), media_type="image/png")

    @app.post("/api/search")
    async def ask_for(request: Request, caller: Caller = search) -> dict[str, Any]:
        ask, pictures = await door.form(request, "ask", Ask)
        return await door.compute(lambda: answers.search(caller, ask, pictures))

    @app.post("/api/records/list")
    def browse(asked: Browse, caller: Caller = search) -> dict[str, Any]:
        """Rows by id. The next page begins behind the last id."""
        rows = list(archive.gallery.rows(asked.filter.filter(), asked.limit + 1, asked.after_id))
        door.note(caller, "browse", filter=asked.filter.told(), rows=min(len(rows), asked.limit))
        more = len(rows) > asked.limit
        return {"rows": [row_of(record) for record in rows[: asked.limit]], "more": more}

    @app.get("/api/thumbnail")
    def thumbnail(id: str = Query(min_length=1, max_length=512), caller: Caller = search) -> Response:
        return thumbnail_of(id)

    @app.get("/api/attention")
    async def attention(id: str = Query(min_length=1, max_length=512), caller: Caller = search) -> Response:
        jpeg = thumbnail_of(id).body
        return await door.compute(lambda: overlay(read(bytes(jpeg)), "auto"))

    @app.post("/api/attention")
    async def attention_of_query(request: Request, caller: Caller = search) -> Response:
        ask, pictures = await door.form(request, "ask", Ask)
        if len(pictures) != 1:
            raise HTTPException(422, f"expected one picture, got {len(pictures)}")
        return await door.compute(lambda: overlay(door.decoded(pictures, ask.boxes)[0][0], ask.modality))

    @app.post("/api/marks")
    def mark(asked: NewMarks, caller: Caller = search) -> dict[str, Any]:
        now = time.time()
        kept = [
            Mark(asked.query, one.id, one.right, caller.name, now, one.similarity, one.probability)
            for one in asked.marks
            if one.right is not None
        ]
        archive.marks.put(kept)
        archive.marks.take_back(asked.query, [one.id for one in asked.marks if one.right is None])
        right = sum(one.right for one in kept)
        door.note(caller, "mark", query=asked.query, right=right, wrong=len(kept) - right)
        return {"marks": len(archive.marks.of(asked.query))}

    @app.get("/api/marks")
    def export_marks(
        query: str | None = Query(None, pattern="^[0-9a-f]{64}$"),
        format: str = Query("json", pattern="^(csv|json)$"),
        caller: Caller = search,
    ) -> Response:
        """The marks of one query, or all, with what is known of their rows."""
        marks = archive.marks.of(query)
        records = {r.id: r for r in archive.gallery.fetch(list({m.id for m in marks}), missing="skip")}
        rows = [to_json(one, records.get(one.id)) for one in marks]
        door.note(caller, "export", marks=len(rows), query=query)
        text, kind = (as_csv(rows), "text/csv") if format == "csv" else (marks_json(rows), "application/json")
        named = {"content-disposition": f'attachment; filename="marks.{format}"'}
        return Response(text, media_type=f"{kind}; charset=utf-8", headers=named)
