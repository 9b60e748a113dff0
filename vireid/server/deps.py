"""Dependencies of the routes: the service, the caller and their role, an uploaded form, a place to compute."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, HTTPException, Request
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from vireid.errors import AccessError
from vireid.server.auth import Caller, Token
from vireid.server.schemas import AddRequest, SearchRequest
from vireid.server.search_service import SearchService
from vireid.server.uploads import SentFile
from vireid.types import Role

COOKIE = "vireid"
MAX_NAME = 100  # characters of a file's name that an error repeats
ModelT = TypeVar("ModelT", bound=BaseModel)
T = TypeVar("T")
log = logging.getLogger(__name__)


# --- the service and the caller ---------------------------------------------------------------------------------------


async def get_service(request: Request) -> SearchService:
    return request.app.state.service


ServiceDep = Annotated[SearchService, Depends(get_service)]


def request_token(request: Request, service: SearchService) -> Token | None:
    """The valid token of the Authorization header, else of the session cookie."""
    tokens = service.settings.tokens
    assert tokens is not None
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    try:
        if secret:
            return tokens.find(secret.strip()) if scheme.lower() == "bearer" else None
        digest = request.app.state.sessions.token_digest(request.cookies.get(COOKIE, ""))
        return tokens.find_digest(digest) if digest else None
    except AccessError:  # its message holds a path of this machine
        log.exception("the file of tokens cannot be read")
        raise HTTPException(503, "the file of tokens cannot be read; the server's log has the reason") from None


def current_caller(request: Request, service: ServiceDep) -> Caller:
    """The sender of a request; 401 without a valid token, which is written to the audit log."""
    address = request.client.host if request.client else ""
    if service.settings.tokens is None:
        return Caller("this machine", "admin", address)
    token = request_token(request, service)
    if token is None:
        request.app.state.denials.write(None, address, request.url.path, "no valid token")
        message = "this needs a token: send it as `Authorization: Bearer TOKEN`, or sign in on the page"
        raise HTTPException(401, message, {"WWW-Authenticate": "Bearer"})
    return Caller(token.name, token.role, address)


CallerDep = Annotated[Caller, Depends(current_caller)]


def require_role(role: Role) -> Any:
    """A dependency that refuses callers without this role with 403, which is written to the audit log."""

    def check_role(request: Request, caller: CallerDep) -> None:
        if not caller.has_role(role):
            request.app.state.denials.write(caller, caller.address, request.url.path, f"needs {role}")
            raise HTTPException(403, f"the role {caller.role} of this token may not do that; it needs {role}")

    return Depends(check_role)


# --- uploaded forms ---------------------------------------------------------------------------------------------------


class InMemoryMultiPartParser(MultiPartParser):
    """Starlette's parser, which writes files of more than 1 MB to the disk: the picture of a query never gets there.

    `spool_max_size` is not documented; pyproject.toml bounds Starlette to the versions that have it, and
    tests/server/test_uploads.py fails where it is not honored.
    """

    spool_max_size = 1 << 40

    def on_headers_finished(self) -> None:
        """A part `picture` without a file name is a file too: not every client sends one (RFC 7578, 4.2)."""
        part = self._current_part
        _, options = parse_options_header(part.content_disposition)
        if options.get(b"name") == b"picture" and b"filename" not in options:
            part.content_disposition = (part.content_disposition or b"") + b'; filename=""'
        super().on_headers_finished()


@dataclass(frozen=True)
class Form(Generic[ModelT]):
    """A checked request and the pictures that came with it."""

    body: ModelT
    pictures: list[SentFile]


def read_form(field: str, model: type[ModelT]) -> Callable[..., Awaitable[Form[ModelT]]]:
    """A dependency: the JSON of the form's field `field`, and its `picture` files; a JSON body has no pictures."""

    async def read(request: Request, service: ServiceDep) -> Form[ModelT]:
        limits = service.settings.limits
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            async with asyncio.timeout(limits.upload_s):
                if media_type == "application/json":
                    return Form(validate_json(model, await request.body()), [])
                if media_type != "multipart/form-data":
                    raise HTTPException(
                        415, f"expected multipart/form-data or application/json, got {media_type[:60]!r}"
                    )
                parser = InMemoryMultiPartParser(
                    request.headers, request.stream(), max_files=limits.pictures, max_fields=1
                )
                form = await parser.parse()
        except TimeoutError:
            raise HTTPException(408, f"the request did not arrive within {limits.upload_s:g} seconds") from None
        except MultiPartException as error:
            raise HTTPException(422, f"the form cannot be read: {error.message}") from None
        try:
            text, pictures = await _fields(form, field)
        finally:
            await form.close()
        return Form(validate_json(model, text.encode()), pictures)

    return read


async def _fields(form: FormData, field: str) -> tuple[str, list[SentFile]]:
    text, pictures = "{}", list[SentFile]()
    for name, value in form.multi_items():
        if name == "picture" and isinstance(value, UploadFile):
            pictures.append(SentFile(await value.read(), sent_name(len(pictures) + 1, value.filename)))
        elif name == field and isinstance(value, str):
            text = value
        else:
            raise HTTPException(422, f"a form has the fields `picture` (files) and `{field}` (JSON), got {name[:60]!r}")
    return text, pictures


def sent_name(number: int, filename: str | None) -> str:
    """What errors call an uploaded picture; a name that holds anything but plain text is left out.

    >>> sent_name(2, "C:/tmp/report.pdf"), sent_name(1, ""), sent_name(1, "a" * 1000)
    ('picture 2 (report.pdf)', 'picture 1', 'picture 1')
    """
    name = (filename or "").replace("\\", "/").rpartition("/")[2]
    is_plain = 0 < len(name) <= MAX_NAME and name.isprintable() and not set(name) & set("<>&\"'")
    return f"picture {number} ({name})" if is_plain and name != "picture" else f"picture {number}"


def validate_json(model: type[ModelT], data: bytes) -> ModelT:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise HTTPException(422, first_fault(error.errors())) from None


def first_fault(errors: Sequence[Any]) -> str:
    """The first fault of a request, without repeating what was sent."""
    where = ".".join(str(part) for part in errors[0]["loc"] if part != "body") or "the request"
    return f"{where[:100]}: {errors[0]['msg'][:300]}"


SearchForm = Annotated[Form[SearchRequest], Depends(read_form("ask", SearchRequest))]
AddForm = Annotated[Form[AddRequest], Depends(read_form("record", AddRequest))]


# --- computing --------------------------------------------------------------------------------------------------------


class ComputePool:
    """Runs what takes long in threads: `max_computing` at a time; `max_waiting` more wait for a place."""

    def __init__(self, max_computing: int, max_waiting: int) -> None:
        self.max_computing, self.max_waiting = max_computing, max_waiting
        self._requests = 0  # that compute or wait
        self._limiter: anyio.CapacityLimiter | None = None  # made inside the event loop

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`; 503 where too many requests wait already."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self.max_computing)
        if self._requests >= self.max_computing + self.max_waiting:
            raise HTTPException(503, "too many requests are waiting; try again in a moment", {"Retry-After": "5"})
        self._requests += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._requests -= 1


async def get_pool(request: Request) -> ComputePool:
    return request.app.state.pool


PoolDep = Annotated[ComputePool, Depends(get_pool)]
