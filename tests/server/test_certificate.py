"""Certificates of the service that cannot be used are named before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import EXPIRED, KEY, LOCKED_KEY, OTHER_KEY

from vireid.errors import ServiceError
from vireid.server.certificate import check_certificate


@pytest.mark.parametrize(
    ("certificate", "key", "told"),
    [
        (None, KEY, "b needs --certificate too"),
        ("", KEY, "--certificate: there is no file .*a; expected one in the form PEM"),
        (EXPIRED, "", "--key: there is no file .*b; "),
        (EXPIRED, OTHER_KEY, "the key belongs to another certificate"),
        (EXPIRED, LOCKED_KEY, "the key is protected by a password"),
        (EXPIRED, None, r"a holds no -----BEGIN \.\.\. PRIVATE KEY"),
        (KEY, EXPIRED, r"a holds no -----BEGIN \.\.\. CERTIFICATE"),
        ("a web page", KEY, r"a holds no -----BEGIN \.\.\. CERTIFICATE"),
        (EXPIRED, KEY[:120], "a part of them is damaged"),
    ],
)
def test_what_makes_no_tls_server_is_named(tmp_path: Path, certificate: str, key: str, told: str) -> None:
    files: list[Path | None] = []
    for name, text in (("a", certificate), ("b", key)):
        files.append(None if text is None else tmp_path / name)
        if text:
            (tmp_path / name).write_text(text)
    with pytest.raises(ServiceError, match=told):
        check_certificate(*files)


def test_an_expired_certificate_is_reported_and_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.pem").write_text(EXPIRED + KEY)
    check_certificate(tmp_path / "a.pem", None)
    assert "a.pem: certificate has expired; browsers will refuse it" in caplog.text
    check_certificate(None, None)
