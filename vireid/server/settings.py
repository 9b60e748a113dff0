"""Settings of the server: who may call it, what a request may hold, what the page offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vireid.server.auth import LOCAL_NAMES, Tokens
from vireid.server.uploads import Limits


@dataclass(frozen=True)
class Example:
    """A query that the page offers: a name to show, a JPEG, its modality, and the modality to search ("": both)."""

    name: str
    jpeg: bytes
    modality: str = "auto"
    within: str = ""


@dataclass(frozen=True)
class ServerSettings:
    """Settings of one server.

    `tokens` None serves this machine alone, and every caller is an administrator. `hosts` are the host names that the
    server answers to, () any. `retention_days` deletes older rows every hour. `purpose_required` makes every search
    name its purpose. `https` marks the session cookie as secure. `max_computing` requests embed and search at a time,
    and `max_waiting` more may wait for them.
    """

    tokens: Tokens | None = None
    hosts: Sequence[str] = LOCAL_NAMES
    limits: Limits = field(default_factory=Limits)
    retention_days: float | None = None
    purpose_required: bool = False
    https: bool = False
    examples: Sequence[Example] = ()
    max_computing: int = 2
    max_waiting: int = 32
