"""Fixtures of the server's tests: a bundle, services over it, and their HTTP clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Read only."""
    from served import make_bundle

    return make_bundle(tmp_path_factory.mktemp("server"))


@pytest.fixture
def service(bundle: Any, tmp_path: Path) -> Any:
    from served import make_service

    return make_service(tmp_path / "files", bundle)


@pytest.fixture
def api(service: Any) -> Any:
    from served import client

    return client(service)


@pytest.fixture(scope="module")
def shared_service(bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """With small limits; for tests that change no row."""
    from served import SMALL, make_service

    from vireid.server.settings import ServerSettings

    return make_service(tmp_path_factory.mktemp("files"), bundle, settings=ServerSettings(limits=SMALL))


@pytest.fixture(scope="module")
def shared_api(shared_service: Any) -> Any:
    from served import client

    return client(shared_service)


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    """The secret of a token for each role."""
    from vireid.server.auth import Tokens

    tokens = Tokens(tmp_path / "tokens.json")
    return {role: tokens.add(f"the {role}", role) for role in ("search", "ingest", "monitor", "admin")}


@pytest.fixture
def closed(bundle: Any, tmp_path: Path, secrets: dict[str, str]) -> Any:
    """A service that needs a token, under any host name."""
    from served import make_service

    from vireid.server.auth import Tokens
    from vireid.server.settings import ServerSettings

    settings = ServerSettings(tokens=Tokens(tmp_path / "tokens.json"), hosts=())
    return make_service(tmp_path / "files", bundle, settings=settings)


# --- the page in Chromium ---------------------------------------------------------------------------------------------


@pytest.fixture
def start_server(bundle: Any, tmp_path: Path) -> Iterator[Any]:
    """Starts servers of one gallery, or of the galleries named; the changes are those of served.make_service."""
    from served import make_service
    from serving import RunningServer

    running: list[Any] = []

    def start(*names: str, **changes: Any) -> Any:
        services = [
            make_service(tmp_path / f"files{len(running)}{name}", bundle, threshold=0.995, name=name, **changes)
            for name in names or ("gallery",)
        ]
        running.append(RunningServer(*services))
        return running[-1]

    yield start
    for server in running:
        server.stop()
