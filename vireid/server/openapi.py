"""The OpenAPI description: what FastAPI cannot read off the routes: forms, pictures and errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from vireid.server.responses import ErrorResponse

REFERENCE = "#/components/schemas/{model}"
ABOUT = (
    "People in the pictures of visible and infrared cameras. Send a token as `Authorization: Bearer TOKEN`; a service "
    "without tokens serves its own machine alone. Fields may be added to answers in any version; what is removed is "
    "named in the changelog one version before."
)
MEANINGS = {
    400: "The request is not HTTP as expected, or names an unknown host",
    401: "No valid token came with the request",
    403: "The role or the gallery of the token does not allow it, or another site sent it",
    404: "There is no such thing, or no gallery of this name",
    408: "The request did not arrive in time",
    409: "It does not fit what is there now",
    413: "Too many bytes or pixels",
    415: "Not a picture that is read, or not a form",
    422: "A field is not what is expected",
    500: "A fault of the service, whose log has the reason",
    501: "This service cannot do it; the message says why",
    503: "Too many requests wait, or a file of the service cannot be used",
    507: "The disk of the service is full",
}
TEXT = {"type": "string"}
FILES = {"text/html": TEXT, "text/csv": TEXT, "text/plain": TEXT, "application/json": {"type": "object"}}
ALWAYS = (400, 401, 403, 404, 413, 422, 500, 503)
UPLOAD = (408, 415)  # beside those


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of routes that may answer with these errors."""
    return {status: {"model": ErrorResponse, "description": MEANINGS[status]} for status in statuses}


def file_response(*media_types: str, conditional: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers with a file."""
    content = {name: {"schema": FILES.get(name, {"type": "string", "format": "binary"})} for name in media_types}
    given: dict[int | str, dict[str, Any]] = {200: {"description": "The file", "content": content}}
    return {**given, 304: {"description": "As before; see If-None-Match"}} if conditional else given


def form_body(field: str, model: type[BaseModel], one_picture: bool = False) -> dict[str, Any]:
    """The request body of a route whose form deps.read_form reads: pictures and a field of JSON, or JSON alone.

    `one_picture`: exactly one picture, and no JSON alone.
    """
    schema = {"$ref": REFERENCE.format(model=model.__name__)}
    pictures: dict[str, Any] = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
    pictures |= {"maxItems": 1} if one_picture else {}
    needed = any(one.is_required() for one in model.model_fields.values())
    form = {
        "schema": {
            "type": "object",
            "properties": {
                "picture": {**pictures, "description": "Pictures, as files of the form."},
                field: schema,
            },
            "required": ["picture", *([field] if needed else [])],
            "additionalProperties": False,
        },
        "encoding": {field: {"contentType": "application/json"}},
    }
    content = {"multipart/form-data": form}
    return {
        "requestBody": {
            "required": True,
            "content": content | ({} if one_picture else {"application/json": {"schema": schema}}),
        }
    }


def describe(app: FastAPI, forms: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    """The description of an application, with the models of its forms; made once."""
    if not app.openapi_schema:
        made = get_openapi(title=app.title, version=app.version, description=ABOUT, routes=app.routes)
        _, definitions = models_json_schema([(model, "validation") for model in forms], ref_template=REFERENCE)
        made["components"]["schemas"] = {**definitions.get("$defs", {}), **made["components"]["schemas"]}
        app.openapi_schema = made
    return app.openapi_schema
