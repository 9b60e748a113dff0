"""Settings of the server: who may call it, what a request may hold, what the page offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from vireid.declaration import Count, Days, Index, settings
from vireid.server.auth import LOCAL_NAMES, Tokens
from vireid.server.detection import Detection
from vireid.server.uploads import Limits


@dataclass(frozen=True)
class Example:
    """A query that the page offers: a name to show, a JPEG, its modality, and the modality to search ("": both)."""

    name: str
    jpeg: bytes
    modality: str = "auto"
    within: str = ""


@settings
class ServerSettings:
    """Settings of one server."""

    tokens: Tokens | None = None
    """Who may call it; without tokens it serves this machine alone, and every caller is an administrator."""
    hosts: Sequence[str] = LOCAL_NAMES
    """Host names that the server answers to; none: any."""
    limits: Limits = Field(default_factory=Limits)
    """What one request may hold."""
    retention_days: Days | None = None
    """Delete rows and marks older than this, every hour; by default they are kept."""
    purpose_required: bool = False
    """Every search has to name its purpose."""
    https: bool = False
    """Mark the session cookie as secure."""
    examples: Sequence[Example] = ()
    """Queries that the page offers."""
    detection: Detection | None = None
    """Finds the people in uploaded pictures; without it a box is drawn by hand."""
    max_computing: Count = 2
    """Requests that embed, search and detect at a time."""
    max_waiting: Index = 32
    """Requests that may wait for them."""
