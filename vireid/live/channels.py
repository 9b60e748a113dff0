"""Channels: where the events of alarms go: a webhook, or a broker of MQTT.

A webhook gets a POST with the event as JSON and two headers:

    Vireid-Event: ID                       the same however often it is sent
    Vireid-Signature: t=SECONDS,v1=HEX     HMAC-SHA256 of "SECONDS." and the body, by the shared secret

It acknowledges with a status of 2xx; every other answer, and none, is tried again.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from vireid.errors import DeliveryError, MissingPackage
from vireid.live.watchlist import Mqtt, Webhook

Send = Callable[[Mapping[str, Any]], None]  # returns when it is acknowledged, else raises DeliveryError


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The event goes to the address in the settings and to no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def webhook(settings: Webhook) -> Send:
    """Sends an event to an address."""
    opener = urllib.request.build_opener(_NoRedirects)

    def send(event: Mapping[str, Any]) -> None:
        body = json.dumps(event, ensure_ascii=False, sort_keys=True).encode()
        headers = {
            "Content-Type": "application/json",
            "Vireid-Event": str(event["id"]),
            "Vireid-Signature": signature(settings.secret, body, int(time.time())),
        }
        request = urllib.request.Request(settings.url, body, headers, method="POST")
        try:
            with opener.open(request, timeout=settings.timeout_s) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
            error.close()
        except (OSError, ValueError) as error:  # refused, no such host, no answer in time, a broken answer
            raise DeliveryError(f"the webhook did not answer ({getattr(error, 'reason', None) or error})") from error
        if not 200 <= status < 300:
            raise DeliveryError(f"the webhook answered {status}, expected 2xx")

    return send


def signature(secret: str, body: bytes, at: int) -> str:
    """The header Vireid-Signature of a body that is sent at this time.

    >>> signature("0123456789abcdef", b"{}", 1795550651).partition(",")[0]
    't=1795550651'
    """
    code = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={code}"


def mqtt(settings: Mqtt) -> Send:
    """Publishes an event; MissingPackage without paho-mqtt."""
    try:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion
    except ImportError as error:
        raise MissingPackage("MQTT needs the package paho-mqtt: pip install 'vireid[mqtt]'", name="paho") from error

    def send(event: Mapping[str, Any]) -> None:
        client = Client(CallbackAPIVersion.VERSION2)
        if settings.user:
            client.username_pw_set(settings.user, settings.password or None)
        if settings.tls:
            client.tls_set()
        client.connect_timeout = settings.timeout_s
        refused, acknowledged = list[str](), False
        client.on_connect = lambda *given: refused.append(str(given[3])) if given[3].is_failure else None
        try:
            client.connect(settings.host, settings.port)
            client.loop_start()
            sent = client.publish(settings.topic, json.dumps(event, ensure_ascii=False, sort_keys=True), qos=1)
            with contextlib.suppress(ValueError, RuntimeError):  # the broker has closed the connection
                sent.wait_for_publish(settings.timeout_s)
                acknowledged = sent.is_published()
        except (OSError, ValueError) as error:
            raise DeliveryError(f"the broker {settings.host}:{settings.port} cannot be reached ({error})") from error
        finally:
            client.disconnect()
            client.loop_stop()
        if not acknowledged:
            raise DeliveryError(f"the broker did not acknowledge ({', '.join(refused) or 'no answer'})")

    return send
