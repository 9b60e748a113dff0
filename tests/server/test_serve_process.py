"""`vireid serve` as a process: its address is printed once it listens, and an address in use is an error."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="extra: serve")
pytest.importorskip("uvicorn", reason="extra: serve")
pytest.importorskip("lancedb", reason="extra: search")
import httpx2
from served import crops

from vireid.deploy.bundle import Bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.ingest.index import index
from vireid.search.archive import Archive, files_of
from vireid.search.drivers.open import open_gallery

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gallery(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("served") / "archive"
    opened = open_gallery(str(place), bundle.config.dim, bundle.config.digest)
    archive = Archive(opened, files_of(str(place), None))
    index(archive, FeatureExtractor(bundle, device="cpu"), crops(bundle.path.parent)[:4])
    archive.close()
    return place


def serve(bundle: Bundle, gallery: Path, port: int) -> subprocess.Popen[str]:
    words = ["serve", bundle.path, "--gallery", gallery, "--port", port, "--device", "cpu"]
    return subprocess.Popen(
        [sys.executable, "-m", "vireid", *map(str, words)], stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def test_the_address_is_printed_once_it_listens(bundle: Bundle, gallery: Path) -> None:
    """The first request after the line is answered without a second attempt."""
    with serve(bundle, gallery, 0) as process:
        assert process.stderr is not None
        try:
            lines = []
            for line in process.stderr:  # ends with the process
                lines.append(line)
                if line.startswith("open "):
                    break
            found = re.fullmatch(r"open (http://127\.0\.0\.1:(\d+))  \(Ctrl\+C stops it\)\n", lines[-1])
            assert found and int(found[2]) > 0, lines
            assert httpx2.get(f"{found[1]}/api/v1/about", trust_env=False).json()["rows"] == 4
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0 and process.stderr.read() == ""
        finally:
            process.kill()


def test_an_address_in_use_is_an_error_and_is_not_printed(bundle: Bundle, gallery: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with serve(bundle, gallery, port) as process:
            assert process.stderr is not None
            text = process.stderr.read()
    assert process.returncode == 1 and f"port {port}" in text and "open http" not in text and "Traceback" not in text
