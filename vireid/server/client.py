"""vireid.Client: the service from a Python program, with the service's own models. Needs the extra `client`.

    with vireid.Client("https://search.example", token=secret) as client:
        answer = client.search("query.jpg", false_match_rate=1e-3)
        for hit in answer.hits:
            print(hit.camera, hit.time_s, hit.similarity, hit.match)

Keywords of the methods are the fields of the requests in schemas.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from vireid.errors import MissingPackage, RequestError, SettingsError
from vireid.server.responses import (
    AboutResponse,
    AddResponse,
    AlarmsResponse,
    AuditResponse,
    DetectResponse,
    ForgetResponse,
    ListResponse,
    MarksResponse,
    PersonResponse,
    PublicAbout,
    Row,
    SearchResponse,
    VisitsResponse,
)
from vireid.server.schemas import (
    AddRequest,
    CaseFileRequest,
    CaseFormat,
    DetectRequest,
    FilterRequest,
    ForgetRequest,
    ListRequest,
    MarkRequest,
    MarksRequest,
    PersonRequest,
    SearchRequest,
    VisitsRequest,
)
from vireid.types import ModalityOrAuto

API = "/api/v1"
TIMEOUT_S = 60.0
Picture = str | Path | bytes  # a path, or the bytes of a picture's file
ModelT = TypeVar("ModelT", bound=BaseModel)
ABOUT: TypeAdapter[AboutResponse | PublicAbout] = TypeAdapter(AboutResponse | PublicAbout)


class Client:
    """A connection to a service at `url`; close it, or use it in a `with`. Several threads may use one.

    `verify` is False, or the path of the certificate to trust, where the service's is not of a known authority. Every
    method raises RequestError, whose `http_status` is that of the answer (0 where none came), and SettingsError for
    fields that are not those of the request.
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout_s: float = TIMEOUT_S, verify: bool | str | Path = True
    ) -> None:
        self._http = _library()
        headers = {"user-agent": "vireid"} | ({} if token is None else {"authorization": f"Bearer {token}"})
        self.url = url.rstrip("/")
        self._connection: Any = self._http.Client(
            base_url=self.url + API, headers=headers, timeout=timeout_s, verify=_trusted(verify)
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def about(self) -> AboutResponse | PublicAbout:
        """What this token may do; with the role search also what the archive holds."""
        return ABOUT.validate_json(self._request("GET", "about").content)

    def search(self, pictures: Picture | Sequence[Picture] = (), **ask: Any) -> SearchResponse:
        """Search with pictures of one person, rows (`like=[ID]`) or both; `ask` are fields of SearchRequest."""
        body, files = made(SearchRequest, ask), opened(pictures)
        if not files:
            return self._sent(SearchResponse, "search", body)
        return SearchResponse.model_validate_json(self._form("search", "ask", body, files).content)

    def visits(self, pictures: Picture | Sequence[Picture] = (), **ask: Any) -> VisitsResponse:
        """When the person passed which camera; `ask` are fields of VisitsRequest."""
        body, files = made(VisitsRequest, ask), opened(pictures)
        if not files:
            return self._sent(VisitsResponse, "visits", body)
        return VisitsResponse.model_validate_json(self._form("visits", "ask", body, files).content)

    def case_file(
        self, pictures: Picture | Sequence[Picture] = (), file_format: CaseFormat = "html", **ask: Any
    ) -> bytes:
        """The file of a search with all its hits: html, csv or json; `ask` are fields of CaseFileRequest."""
        path, body, files = f"case-file?format={file_format}", made(CaseFileRequest, ask), opened(pictures)
        return (self._form(path, "ask", body, files) if files else self._posted(path, body)).content

    def alarms(self, last: int = 100) -> AlarmsResponse:
        """The last alarms of `vireid watch`, the newest first."""
        return AlarmsResponse.model_validate_json(self._request("GET", "alarms", params={"last": last}).content)

    def rows(self, **ask: Any) -> Iterator[Row]:
        """All rows that pass a `filter`, by id or `order="newest"`, page by page; `ask` are fields of ListRequest."""
        request = made(ListRequest, {"limit": 200, **ask})
        while True:
            page = self._sent(ListResponse, "records/list", request)
            yield from page.rows
            if not page.more:
                return
            request = request.model_copy(update={"after_id": page.rows[-1].id, "after_time_s": page.rows[-1].time_s})

    def thumbnail(self, row_id: str) -> bytes:
        """The JPEG of a row."""
        return self._request("GET", "thumbnail", params={"id": row_id}).content

    def attention(self, picture: Picture, modality: ModalityOrAuto = "auto") -> bytes:
        """A PNG to lay over a picture: where the network's last maps are strong."""
        return self._form("attention", "ask", made(SearchRequest, {"modality": modality}), opened(picture)).content

    def detect(self, picture: Picture, **ask: Any) -> DetectResponse:
        """The people in a picture, where the service has a detector; `ask` are fields of DetectRequest.

        A box is in pixels; `search` takes fractions of the sides: `boxes=[(left / width, top / height, ...)]`.
        """
        body = self._form("detect", "ask", made(DetectRequest, ask), opened(picture))
        return DetectResponse.model_validate_json(body.content)

    def mark(self, query: str, hits: dict[str, bool | None]) -> int:
        """Mark hits of a query by id: right, wrong, or None to take a mark back; returns how many marks it has."""
        marks = [MarkRequest(id=row_id, right=right) for row_id, right in hits.items()]
        return self._sent(MarksResponse, "marks", made(MarksRequest, {"query": query, "marks": marks})).marks

    def add(self, picture: Picture, camera: str, **record: Any) -> AddResponse:
        """Add one crop; `record` are the other fields of AddRequest."""
        body = made(AddRequest, {"camera": camera, **record})
        return AddResponse.model_validate_json(self._form("records", "record", body, opened(picture)).content)

    def person(self, ids: Sequence[str], **ask: Any) -> PersonResponse:
        """The tracks of the person of some rows, to choose from before `forget`; `ask` are fields of PersonRequest."""
        return self._sent(PersonResponse, "person", made(PersonRequest, {"ids": ids, **ask}))

    def count(self, ids: Sequence[str] = (), **where: Any) -> int:
        """How many rows `forget` would delete; `where` are the fields of a filter."""
        return self._forget(ids, where, None).rows

    def forget(self, ids: Sequence[str] = (), *, expect: int, **where: Any) -> ForgetResponse:
        """Delete rows for good, by ids or by the fields of a filter; refused if their number is not `expect`."""
        return self._forget(ids, where, expect)

    def audit(self, last: int = 100) -> list[dict[str, Any]]:
        """The last entries of the audit log, newest first."""
        return AuditResponse.model_validate_json(self._request("GET", "audit", params={"last": last}).content).entries

    def _forget(self, ids: Sequence[str], where: dict[str, Any], expect: int | None) -> ForgetResponse:
        chosen = made(FilterRequest, where)
        return self._sent(
            ForgetResponse, "forget", made(ForgetRequest, {"ids": ids, "filter": chosen, "expect": expect})
        )

    def _sent(self, model: type[ModelT], path: str, body: BaseModel) -> ModelT:
        return model.model_validate_json(self._posted(path, body).content)

    def _posted(self, path: str, body: BaseModel) -> Any:
        content, headers = body.model_dump_json().encode(), {"content-type": "application/json"}
        return self._request("POST", path, content=content, headers=headers)

    def _form(self, path: str, field: str, body: BaseModel, files: list[bytes]) -> Any:
        pictures = [("picture", ("", data, "application/octet-stream")) for data in files]
        return self._request("POST", path, data={field: body.model_dump_json()}, files=pictures)

    def _request(self, method: str, path: str, **more: Any) -> Any:
        try:
            answer = self._connection.request(method, f"/{path}", **more)
        except self._http.HTTPError as error:
            raise RequestError(f"{self.url} does not answer ({error}); is the service running there?", 0) from error
        if answer.is_success:
            return answer
        try:
            reason = str(json.loads(answer.content)["error"])
        except (ValueError, KeyError, TypeError):
            reason = answer.text[:200].strip() or answer.reason_phrase
        raise RequestError(f"{self.url}{API}/{path}: {answer.status_code}: {reason}", answer.status_code)


def made(model: type[ModelT], fields: dict[str, Any]) -> ModelT:
    """A request from its fields; SettingsError that names all that are wrong."""
    try:
        return model(**fields)
    except ValidationError as error:
        raise SettingsError([f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]) from None


def opened(pictures: Picture | Sequence[Picture]) -> list[bytes]:
    """The bytes of pictures."""
    listed = [pictures] if isinstance(pictures, str | Path | bytes) else pictures
    return [one if isinstance(one, bytes) else Path(one).read_bytes() for one in listed]


def _trusted(verify: bool | str | Path) -> Any:
    if isinstance(verify, bool):
        return verify
    import ssl

    return ssl.create_default_context(cafile=str(verify))


def _library() -> Any:
    try:
        import httpx2
    except ImportError as error:
        raise MissingPackage("vireid.Client needs httpx2: pip install 'vireid[client]'") from error
    return httpx2
