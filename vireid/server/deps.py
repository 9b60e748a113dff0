"""Dependencies of the routes: the service, the caller and their role, an uploaded form, a place to compute."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, HTTPException, Query, Request, Security
from fastapi.security import APIKeyCookie, HTTPBearer
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from vireid.errors import AccessError
from vireid.server.auth import Caller, Token, Tokens
from vireid.server.schemas import AddRequest, DetectRequest, SearchRequest
from vireid.server.search_service import SearchService
from vireid.server.uploads import SentFile
from vireid.types import Role

COOKIE = "vireid"
BEARER = HTTPBearer(auto_error=False, scheme_name="token", description="A token of `vireid token`.")
SESSION = APIKeyCookie(name=COOKIE, auto_error=False, scheme_name="session", description="Of POST session.")
MAX_FIELDS = 8  # of a form, which has one: what else is sent is named
MAX_NAME = 100  # characters of a file's name that an error repeats
ModelT = TypeVar("ModelT", bound=BaseModel)
T = TypeVar("T")
log = logging.getLogger(__name__)


# --- the service and the caller ---------------------------------------------------------------------------------------


def request_token(request: Request, tokens: Tokens) -> Token | None:
    """The valid token of the Authorization header, else of the session cookie."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    try:
        if secret:
            return tokens.find(secret.strip()) if scheme.lower() == "bearer" else None
        digest = request.app.state.sessions.token_digest(request.cookies.get(COOKIE, ""))
        return tokens.find_digest(digest) if digest else None
    except AccessError:  # its message holds a path of this machine
        log.exception("the file of tokens cannot be read")
        raise HTTPException(503, "the file of tokens cannot be read; the server's log has the reason") from None


GalleryName = Annotated[
    str | None, Query(max_length=100, description="Name of a gallery; by default the token's first.")
]


def get_service(request: Request, gallery: GalleryName = None) -> SearchService:
    """The service of the gallery that a request names; 403 where its token may not use it, 404 where there is none."""
    galleries: dict[str, SearchService] = request.app.state.galleries
    first = next(iter(galleries.values()))
    token = None if first.settings.tokens is None else request_token(request, first.settings.tokens)
    request.state.token = token
    if token is None and first.settings.tokens is not None:
        return first  # current_caller answers 401, and nothing is said about names
    allowed = [each for each in galleries if token is None or not token.galleries or each in token.galleries]
    if gallery is None and allowed:
        gallery = allowed[0]
    if gallery not in allowed:
        status = 404 if len(allowed) == len(galleries) else 403
        raise HTTPException(
            status, f"this token may use the galleries {', '.join(allowed) or 'none'}; name one of them"
        )
    service = galleries[gallery]
    service.refresh()
    return service


ServiceDep = Annotated[SearchService, Depends(get_service)]


def current_caller(request: Request, service: ServiceDep) -> Caller:
    """The sender of a request; 401 without a valid token, which is written to the audit log."""
    address = request.client.host if request.client else ""
    if service.settings.tokens is None:
        caller = Caller("this machine", "admin", address)
    elif (token := request.state.token) is not None:
        caller = Caller(token.name, token.role, address, token.galleries)
    else:
        request.app.state.denials.write(None, address, request.url.path, "no valid token")
        message = "this needs a token: send it as `Authorization: Bearer TOKEN`, or sign in on the page"
        raise HTTPException(401, message, {"WWW-Authenticate": "Bearer"})
    request.state.caller = caller  # for the access log
    return caller


CallerDep = Annotated[Caller, Depends(current_caller)]
SCHEMES = [Security(BEARER), Security(SESSION)]  # for the OpenAPI description; current_caller reads the request itself


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
    json_field = b""

    def on_headers_finished(self) -> None:
        """`picture` is a file also without a file name, and the JSON a field also with one: clients differ in that."""
        part = self._current_part
        _, options = parse_options_header(part.content_disposition)
        name = options.get(b"name", b"")
        if name == b"picture" and b"filename" not in options:
            part.content_disposition = (part.content_disposition or b"") + b'; filename=""'
        elif name == self.json_field and b"filename" in options:  # `curl -F ask=@ask.json`
            part.content_disposition = b'form-data; name="' + name + b'"'
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
                    request.headers, request.stream(), max_files=limits.pictures, max_fields=MAX_FIELDS
                )
                parser.json_field = field.encode()
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
    if len(form.getlist(field)) > 1:
        raise HTTPException(422, f"the field `{field}` comes {len(form.getlist(field))} times; send it once")
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
DetectForm = Annotated[Form[DetectRequest], Depends(read_form("ask", DetectRequest))]
AddForm = Annotated[Form[AddRequest], Depends(read_form("record", AddRequest))]


# --- computing --------------------------------------------------------------------------------------------------------


class ComputePool:
    """Runs what takes long in threads: `max_computing` at a time; `max_waiting` more wait for a place."""

    def __init__(self, max_computing: int, max_waiting: int) -> None:
        self.max_computing, self.max_waiting = max_computing, max_waiting
        self.requests = 0  # that compute or wait now
        self._limiter: anyio.CapacityLimiter | None = None  # made inside the event loop

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`; 503 where too many requests wait already."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self.max_computing)
        if self.requests >= self.max_computing + self.max_waiting:
            raise HTTPException(503, "too many requests are waiting; try again in a moment", {"Retry-After": "5"})
        self.requests += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self.requests -= 1


async def note_operation(request: Request) -> None:
    """Leave the name of the operation for the metrics and the access log."""
    request.state.operation = request.scope["endpoint"].__name__


async def get_pool(request: Request) -> ComputePool:
    return request.app.state.pool


PoolDep = Annotated[ComputePool, Depends(get_pool)]
