"""The certificate of the service: whether two PEM files make a TLS server, examined before anything is started."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from vireid.errors import ServiceError

log = logging.getLogger(__name__)
EXPIRED, NOT_YET_VALID = 10, 9  # X509_V_ERR_... of OpenSSL


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """ServiceError unless both files are there and belong together; a certificate that is not valid today is logged."""
    if certificate is None:
        if key is not None:
            raise ServiceError(f"--key {key} needs --certificate too, the certificate that the key belongs to")
        return
    for option, file in (("certificate", certificate), ("key", key)):
        if file is not None and not file.is_file():
            raise ServiceError(f"--{option}: there is no file {file}; expected one in the form PEM")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = f"{certificate} and {key}" if key is not None else f"{certificate} (without --key it holds the key too)"
    try:
        server.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise ServiceError(
            f"{names} cannot be used for TLS: {_reason(error, certificate, key or certificate)}"
        ) from None
    except OSError as error:
        raise ServiceError(f"{names} cannot be read ({error.strerror or error})") from None
    if fault := _not_valid(server, certificate):
        log.warning("%s: %s; browsers will refuse it", certificate, fault)


def _reason(error: ssl.SSLError, certificate: Path, key: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key belongs to another certificate"
    for file, kind in ((certificate, b"CERTIFICATE-----"), (key, b"PRIVATE KEY-----")):
        if b"-----BEGIN " not in (text := file.read_bytes()) or kind not in text:
            return f"{file} holds no -----BEGIN ... {kind.decode()}, which this form, PEM, has"
    if b"ENCRYPTED" in key.read_bytes():
        return f"the key is protected by a password; write it without: openssl pkey -in {key} -out NEW.key"
    return f"a part of them is damaged ({error.reason or error})"


def _no_password() -> str:
    return ""  # OpenSSL would ask for one on the terminal


def _not_valid(server: ssl.SSLContext, certificate: Path) -> str:
    """Why a client that trusts this very certificate refuses it today, by a handshake in memory; "" if it does not."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(certificate)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    for _ in range(4):  # flights of a handshake
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                if error.verify_code in (EXPIRED, NOT_YET_VALID):
                    return error.verify_message
                return ""
            except ssl.SSLError:
                return ""
    return ""
