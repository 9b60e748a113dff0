"""Door: who sends a request and what they may do, what the request carries, and how many compute at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, HTTPException, Request
from PIL import Image
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from vireid.server.auth import Caller, Sessions, Token
from vireid.server.service import Service
from vireid.server.uploads import Upload, decode

COOKIE = "vireid"
DENIED_EVERY_S = 1.0  # refused requests are logged at most so often: nobody fills the disk from outside
ModelT = TypeVar("ModelT", bound=BaseModel)
T = TypeVar("T")


class _InMemory(MultiPartParser):
    """Starlette's parser, which would put a part of more than 1 MB into a file: a query's picture touches no disk."""

    spool_max_size = 1 << 40


class Door:
    """What every request passes. `at_once` requests compute at a time and `most_waiting` more may wait for it."""

    def __init__(self, service: Service, at_once: int, most_waiting: int) -> None:
        self.service, self.sessions = service, Sessions()
        self.at_once, self.most_waiting = at_once, most_waiting
        self._denied_at, self._denied = 0.0, 0
        self._room: anyio.CapacityLimiter | None = None

    # --- who asks -----------------------------------------------------------------------------------------------------

    def needs(self, right: str) -> Any:
        """What a route declares so that it gets the Caller, if they may do this."""

        def check(request: Request) -> Caller:
            return self.caller(request, right)

        return Depends(check)

    def caller(self, request: Request, right: str) -> Caller:
        """Who sent a request, if they may do this; HTTPException 401 or 403, noted in the audit log."""
        address = request.client.host if request.client else ""
        if self.service.tokens is None:
            return Caller("this machine", "admin", address)
        token = self.token_of(request)
        if token is None:
            self.denied("nobody", "", address, request, "no valid token")
            told = "this needs a token: send it as `Authorization: Bearer TOKEN`, or sign in on the page"
            raise HTTPException(401, told, {"WWW-Authenticate": "Bearer"})
        caller = Caller(token.name, token.role, address)
        if right != "any" and not caller.may(right):
            self.denied(token.name, token.role, address, request, f"needs {right}")
            raise HTTPException(403, f"the role {token.role} of this token may not do that; it needs {right}")
        return caller

    def token_of(self, request: Request) -> Token | None:
        tokens = self.service.tokens
        assert tokens is not None
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        if secret:
            return tokens.who(secret.strip()) if kind.lower() == "bearer" else None
        digest = self.sessions.token_digest(request.cookies.get(COOKIE, ""))
        return tokens.with_digest(digest) if digest else None

    def denied(self, who: str, role: str, address: str, request: Request, why: str) -> None:
        self._denied += 1
        if time.monotonic() - self._denied_at < DENIED_EVERY_S:
            return
        path = request.url.path[:200]
        self.service.archive.audit.write("denied", who, role, address, path=path, why=why, times=self._denied)
        self._denied_at, self._denied = time.monotonic(), 0

    def note(self, caller: Caller, what: str, **more: Any) -> None:
        self.service.archive.audit.write(what, caller.name, caller.role, caller.address, **more)

    # --- what is sent -------------------------------------------------------------------------------------------------

    async def form(self, request: Request, name: str, model: type[ModelT]) -> tuple[ModelT, list[bytes]]:
        """The JSON of field `name`, and the bytes of every `picture`; a body of JSON alone has no pictures."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        limits = self.service.limits
        try:
            async with asyncio.timeout(limits.upload_s):
                if kind == "application/json":
                    return read(model, await request.body()), []
                if kind != "multipart/form-data":
                    raise HTTPException(415, f"expected multipart/form-data or application/json, got {kind[:60]!r}")
                parser = _InMemory(request.headers, request.stream(), max_files=limits.pictures, max_fields=1)
                form = await parser.parse()
        except TimeoutError:
            raise HTTPException(408, f"the request did not arrive within {limits.upload_s:g} seconds") from None
        except MultiPartException as error:
            raise HTTPException(422, f"the form cannot be read: {error.message}") from None
        asked, pictures = "{}", []
        try:
            for key, value in form.multi_items():
                if key == "picture" and isinstance(value, UploadFile):
                    pictures.append(await value.read())
                elif key == name and isinstance(value, str):
                    asked = value
                else:
                    told = f"a form has the fields `picture` (files) and `{name}` (JSON), got {key[:60]!r}"
                    raise HTTPException(422, told)
        finally:
            await form.close()
        return read(model, asked.encode()), pictures

    async def compute(self, work: Callable[[], T]) -> T:
        """Run what takes long beside the event loop, a few at a time; 503 where too many wait."""
        if self._room is None:
            self._room = anyio.CapacityLimiter(self.at_once)
        if self._room.statistics().tasks_waiting >= self.most_waiting:
            raise HTTPException(503, "too many requests wait already; try again in a moment", {"Retry-After": "5"})
        return await anyio.to_thread.run_sync(work, limiter=self._room)

    def decoded(self, pictures: list[bytes], boxes: Sequence[Any]) -> tuple[list[Image.Image], list[Upload]]:
        """The crops to look at, and the uploads that they come from."""
        if boxes and len(boxes) != len(pictures):
            raise HTTPException(
                422, f"there are {len(boxes)} boxes for {len(pictures)} pictures; one for each, or none"
            )
        uploads = [decode(data, self.service.limits, self.service.searcher.extractor.gray) for data in pictures]
        crops = [upload.crop(box) for upload, box in zip(uploads, boxes or [None] * len(uploads), strict=True)]
        return crops, uploads


def read(model: type[ModelT], data: bytes) -> ModelT:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise HTTPException(422, first_fault(error.errors())) from None


def first_fault(errors: Sequence[Any]) -> str:
    """The first fault of a request, without repeating what was sent."""
    where = ".".join(str(part) for part in errors[0]["loc"] if part != "body") or "the request"
    return f"{where[:100]}: {errors[0]['msg'][:300]}"
