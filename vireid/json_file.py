"""JSON that vireid reads: any text or file, and files of its own, which have a name, a format and a checked form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from vireid.errors import VireidError
from vireid.version import __version__

ModelT = TypeVar("ModelT", bound=BaseModel)


def parsed(text: str | bytes) -> Any:
    """The value of a JSON text, in UTF-8 or UTF-16 where it is bytes; ValueError for all that is none.

    >>> parsed(b'{"a": 1}')
    {'a': 1}
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path, error: type[VireidError], advice: str) -> Any:
    """The value in a JSON file; `error`, whose message ends in `advice`, for a file that is not JSON."""
    try:
        return parsed(path.read_bytes())
    except ValueError as fault:
        raise error(f"{path} is not readable as JSON ({fault}); {advice}") from fault


def check_format(place: Path, written: object, expected: int | str, error: type[VireidError], advice: str) -> None:
    """Raise `error` with `advice` unless what was read at `place` is in the format that this version reads."""
    if written != expected:
        raise error(f"{place} has format {written!r}, this vireid {__version__} reads format {expected!r}; {advice}")


@dataclass(frozen=True)
class JsonFile(Generic[ModelT]):
    """A kind of JSON file; its field `format` says which version of the form it has.

    A file that cannot be read raises `error`, whose message ends in `advice`.
    """

    name: str
    model: type[ModelT]
    format: int | str
    error: type[VireidError]
    advice: str

    def read(self, folder: Path) -> ModelT:
        """The checked content of the file in a folder."""
        path = folder / self.name
        content = read_json(path, self.error, self.advice)
        written = content.get("format") if isinstance(content, dict) else None
        check_format(path, written, self.format, self.error, self.advice)
        try:
            return self.model.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise self.error(
                f"{path} is not what vireid {__version__} reads ({place}: {first['msg']}); {self.advice}"
            ) from error
