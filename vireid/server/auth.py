"""Authentication: tokens with roles, browser sessions, and the rule about serving other machines.

    search   search, view crops, mark them right and wrong
    ingest   add crops, and nothing else: the token of a camera's machine cannot search
    monitor  read the metrics, and nothing else
    admin    all of it, and delete rows, and read the audit log

A token is 32 random bytes that are shown once; the file holds only their sha256, from which no token can be made.
Without a file of tokens the service listens on this machine only, and every caller is an administrator.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import math
import os
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vireid.errors import AccessError
from vireid.search.audit import Audit
from vireid.system import replacing
from vireid.types import Role

FORMAT = "vireid tokens 1"
PREFIX = "vireid_"  # a search for it finds a token that leaked into a text
INCLUDED_ROLES: dict[Role, frozenset[Role]] = {
    "search": frozenset({"search"}),
    "ingest": frozenset({"ingest"}),
    "monitor": frozenset({"monitor"}),
    "admin": frozenset({"search", "ingest", "monitor", "admin"}),
}
SESSION_S = 12 * 3600.0
MAX_SESSIONS = 1000
MAX_DAYS = 36_525  # a century
DENIED_INTERVAL_S = 1.0  # between two entries about refused requests
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Caller:
    """The sender of a request: the token's name, role and galleries (none: all), and the network address."""

    name: str
    role: Role
    address: str = ""
    galleries: tuple[str, ...] = ()

    def has_role(self, role: Role) -> bool:
        return role in INCLUDED_ROLES[self.role]


class Token(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=80)
    role: Role
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    until: float | None = None  # Unix seconds; None: as long as it is in the file
    galleries: tuple[str, ...] = ()  # that it may use, by name; none: all


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vireid tokens 1"]
    tokens: tuple[Token, ...]


@dataclass
class Tokens:
    """The tokens of a file, which is read again when it changes: a revoked token stops working at once."""

    path: Path
    _read: tuple[int, int, tuple[Token, ...]] | None = field(default=None, repr=False)

    def all(self) -> tuple[Token, ...]:
        """All tokens; AccessError if the file is missing, damaged or writable by other users."""
        try:
            stat = self.path.stat()
        except OSError as error:
            raise AccessError(f"no tokens at {self.path}; make one with `vireid token NAME --role search`") from error
        if os.name != "nt" and stat.st_mode & 0o022:
            raise AccessError(f"{self.path} is writable by other users; run chmod 600 {self.path}")
        if self._read is None or self._read[:2] != (stat.st_mtime_ns, stat.st_size):
            try:
                content = _File.model_validate_json(self.path.read_bytes())
            except OSError as error:
                raise AccessError(f"the tokens {self.path} cannot be read ({error.strerror}); name a file") from error
            except ValidationError as error:
                raise AccessError(
                    f"{self.path} is not a file of tokens ({error.errors()[0]['msg']}); make one with `vireid token`"
                ) from error
            self._read = (stat.st_mtime_ns, stat.st_size, content.tokens)
        return self._read[2]

    def find(self, secret: str) -> Token | None:
        """The valid token with this secret. Every token is compared, each in constant time."""
        return self.find_digest(digest_of(secret))

    def find_digest(self, digest: str) -> Token | None:
        """The valid token whose secret has this sha256."""
        match = None
        for token in self.all():
            if hmac.compare_digest(token.sha256, digest) and (token.until is None or token.until > time.time()):
                match = token
        return match

    def add(self, name: str, role: Role, days: float | None = None, galleries: tuple[str, ...] = ()) -> str:
        """Write a new token and return its secret, which is stored nowhere; AccessError."""
        if days is not None and not 0 < days <= MAX_DAYS:
            raise AccessError(
                f"a token is valid for a number of days above 0, at most {MAX_DAYS}, got {days}; "
                "leave them out for no end"
            )
        present = self.all() if self.path.exists() else ()
        if any(token.name == name for token in present):
            raise AccessError(f"a token called {name!r} exists already; use another name, or --revoke it first")
        if not name.isprintable():
            raise AccessError(f"the name of a token is one line without control characters, got {name!r}")
        secret = PREFIX + secrets.token_urlsafe(32)
        until = None if days is None else time.time() + days * 86400
        try:
            token = Token(name=name, role=role, sha256=digest_of(secret), until=until, galleries=galleries)
        except ValidationError as error:
            raise AccessError(f"a token needs a name of 1 to 80 letters and a role, got {name!r}, {role!r}") from error
        self._write([*present, token])
        return secret

    def revoke(self, name: str) -> None:
        """Remove a token; AccessError if none has this name."""
        present = self.all()
        left = [token for token in present if token.name != name]
        if len(left) == len(present):
            raise AccessError(
                f"no token is called {name!r}; the tokens are {', '.join(t.name for t in present) or 'none'}"
            )
        self._write(left)

    def _write(self, tokens: Iterable[Token]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {"format": FORMAT, "tokens": [token.model_dump(exclude_defaults=True) for token in tokens]}, indent=1
        )
        with replacing(self.path) as partial:
            partial.touch(mode=0o600)
            partial.write_text(text + "\n", encoding="utf-8")


class DenialLog:
    """Writes refused requests to an audit log, at most one entry a second, so that outsiders cannot fill the disk."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._lock = threading.Lock()
        self._last_s, self._count = -math.inf, 0

    def write(self, caller: Caller | None, address: str, path: str, why: str) -> None:
        """`caller` is None where no valid token came with the request."""
        with self._lock:
            self._count += 1
            now = time.monotonic()
            if now - self._last_s < DENIED_INTERVAL_S:
                return
            self._last_s, count, self._count = now, self._count, 0
        who, role = (caller.name, caller.role) if caller else ("nobody", "")
        self._audit.write("denied", who, role, address, path=path[:200], why=why, times=count)


class Sessions:
    """Sessions of browsers: the request of an image carries a cookie, but no header with a token.

    A session is kept in memory for twelve hours and ends with its token.
    """

    def __init__(self) -> None:
        self._by_digest: dict[str, tuple[str, float]] = {}  # of the session's secret -> digest of the token, end
        self._lock = threading.Lock()

    def begin(self, token: Token) -> str:
        secret, now = secrets.token_urlsafe(32), time.monotonic()
        with self._lock:
            kept = {key: value for key, value in self._by_digest.items() if value[1] > now}
            while len(kept) >= MAX_SESSIONS:
                del kept[next(iter(kept))]
            kept[digest_of(secret)] = (token.sha256, now + SESSION_S)
            self._by_digest = kept
        return secret

    def token_digest(self, secret: str) -> str | None:
        """The digest of the token that a session belongs to, None if the session is unknown or has ended."""
        session = self._by_digest.get(digest_of(secret))  # by digest: the look-up's duration reveals nothing of it
        return session[0] if session and session[1] > time.monotonic() else None

    def end(self, secret: str) -> None:
        with self._lock:
            self._by_digest.pop(digest_of(secret), None)


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_binding(host: str, tokens: Tokens | None) -> None:
    """AccessError if other machines could reach the service and it has no tokens, or if its tokens cannot be used."""
    if tokens is None:
        if is_loopback(host):
            return
        raise AccessError(
            f"{host} can be reached from other machines, and this service finds people: pass --tokens FILE (make one "
            "with `vireid token NAME --role search --file FILE`), or leave --host out to serve this machine alone"
        )
    if not tokens.all():
        raise AccessError(f"{tokens.path} holds no token, so nobody could sign in; make one with `vireid token`")
