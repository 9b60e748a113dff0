"""The watch-list: which rows raise an alarm, at which threshold; and how alarms reach a webhook and a broker."""

from __future__ import annotations

import hashlib
import hmac
import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from watched import AT_S, DIM, calibrated, person, row, rows_of, turned

from vireid.errors import DeliveryError, SettingsError
from vireid.live import alarms as module
from vireid.live.alarms import Alarms
from vireid.live.channels import mqtt, webhook
from vireid.live.store import WatchStore
from vireid.live.watchlist import Listed, Mqtt, WatchList, Webhook
from vireid.search.audit import Audit
from vireid.search.drivers.memory import MemoryGallery
from vireid.types import VISIBLE

HANG_S = 300.0
SECRET = "0123456789abcdef"
SIDES = (("left", 1), ("right", -1))


def watchlist(*, rows_per_day: int = 100, quiet_s: float = 60.0, **changes: Any) -> WatchList:
    """One person, whose vector is the first axis, in a gallery that holds nothing else."""
    gallery = MemoryGallery(DIM, "")
    gallery.add([row("known", 1.0, modality=VISIBLE), row("known too", 1.0, modality=VISIBLE), row("at night", 1.0)])
    listed = Listed(Path("list.yaml"), {"anna": person(**changes)}, rows_per_day, quiet_s, None, None)
    return WatchList.open(listed, None, gallery, calibrated())  # type: ignore[arg-type]


# --- the threshold ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "rows_per_day", "pictures", "threshold"),
    [
        (1, 100, ("known",), 0.7),
        (10, 100, ("known",), 0.5),
        (1, 1000, ("known",), 0.9),
        (1, 100, ("known", "known too"), 0.7),  # averaged, and compared once
        (1, 100, ("known", "at night"), 0.9),
        (2, 100, ("known", "at night"), 0.7),  # not alike in two modalities
    ],
)
def test_threshold_follows_from_the_budget_and_the_number_of_comparisons(
    budget: float, rows_per_day: int, pictures: tuple[str, ...], threshold: float
) -> None:
    given = watchlist(rows_per_day=rows_per_day, false_alarms_per_day=budget, rows=pictures)
    new = [row("below", threshold - 0.01), row("above", threshold + 0.01)]
    [event] = given.events(new)
    assert (event["row"], event["threshold"], event["modality"]) == ("above", threshold, "infrared")
    assert (event["person"], event["purpose"], event["time"]) == ("anna", "missing", "2026-11-24T20:04:11.000Z")


def test_pictures_of_one_modality_are_averaged() -> None:
    gallery = MemoryGallery(DIM, "")
    pictures = [replace(row(name, 0.0, modality=VISIBLE), vector=turned(0.8) * (1, sign, 0, 0)) for name, sign in SIDES]
    gallery.add(pictures)
    listed = Listed(Path("list.yaml"), {"anna": person(rows=("left", "right"))}, 1000, 60.0, None, None)
    given = WatchList.open(listed, None, gallery, calibrated())  # type: ignore[arg-type]
    [event] = given.events([row("between", 0.95), row("like one", 0.8)])
    assert (event["row"], event["similarity"], given.wanted[0].pictures) == ("between", 0.95, 2)


def test_a_budget_that_the_calibration_cannot_keep_is_refused_and_named_while_it_runs() -> None:
    with pytest.raises(SettingsError, match=r"goes down to 0\.001: give 2 or more"):
        watchlist(rows_per_day=2000)
    given = watchlist(rows_per_day=1000)
    assert given.over_budget() == []
    given.rows_per_day = 5000.0  # more came than expected
    assert given.over_budget() == ["anna"] and rows_of(given.events([row("a", 0.89), row("b", 0.91)])) == ["b"]


def test_only_until_the_date_only_before_the_cameras_and_not_by_the_rows_that_are_looked_for() -> None:
    new = [row("known", 1.0), row("g", 1.0), row("h", 1.0, "hall")]
    assert rows_of(watchlist().events(new)) == ["g", "h"]
    assert rows_of(watchlist(cameras=("hall",)).events(new)) == ["h"]
    ended = watchlist(until="2026-01-01")
    assert ended.events(new, now=1.7e9) and not ended.events(new, now=AT_S) and not ended.active(AT_S)


# --- alarms -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WatchStore]:
    opened = WatchStore(tmp_path / "watch.sqlite")
    yield opened
    opened.close()


def test_an_alarm_is_raised_once_and_another_only_after_a_while(tmp_path: Path, store: WatchStore) -> None:
    alarms, given = Alarms(store, Audit(tmp_path / "audit.jsonl"), {}), watchlist(quiet_s=60)
    new = [row("a", 1.0), row("b", 1.0, after_s=59), row("c", 1.0, "hall", 10), row("d", 1.0, after_s=61)]
    assert alarms.check(given, new) == 3 and alarms.check(given, new) == 0
    assert rows_of(store.alarms()) == ["a", "c", "d"]
    entries = alarms.audit.entries()
    assert [(e["what"], e["person"], e["row"]) for e in entries] == [("alarm", "anna", name) for name in "dca"]
    assert alarms.audit.verify() == 3


def test_an_alarm_of_a_killed_process_reaches_the_audit_log(tmp_path: Path, store: WatchStore) -> None:
    [event] = watchlist().events([row("a", 1.0)])
    assert store.raise_alarm(event, [], 60, time.time())  # and there it is killed
    alarms = Alarms(store, Audit(tmp_path / "audit.jsonl"), {})
    alarms.start()
    alarms.start()
    assert [entry["alarm"] for entry in alarms.audit.entries()] == [event["id"]]


# --- a webhook --------------------------------------------------------------------------------------------------------


class Receiver(ThreadingHTTPServer):
    """Answers with these statuses in turn, then with 204, and keeps what came."""

    daemon_threads = True

    def __init__(self, *statuses: int) -> None:
        self.statuses, self.came = list(statuses), list[tuple[dict[str, str], bytes]]()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.came.append((dict(self.headers), body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.send_header("Location", self.path + "elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/alarms"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


def until(reached: Callable[[], object]) -> None:
    end = time.monotonic() + HANG_S
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_webhook_is_signed_and_tried_again_until_it_acknowledges_also_after_a_restart(
    tmp_path: Path, store: WatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    receiver = Receiver(500, 302)
    send = webhook(Webhook(url=receiver.url, secret=SECRET, timeout_s=HANG_S))
    audit = Audit(tmp_path / "audit.jsonl")
    Alarms(store, audit, {"webhook": lambda event: pytest.fail("was not started")}).check(watchlist(), [row("a", 1.0)])
    assert store.waiting() == 1  # and there it is killed

    alarms = Alarms(store, audit, {"webhook": send})
    alarms.start()
    until(lambda: store.waiting() == 0)
    alarms.stop()
    receiver.stop()
    assert len(receiver.came) == 3 and len({headers["Vireid-Event"] for headers, _ in receiver.came}) == 1
    for headers, body in receiver.came:
        at, code = (part.partition("=")[2] for part in headers["Vireid-Signature"].split(","))
        assert hmac.compare_digest(
            code, hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        )
        assert abs(int(at) - time.time()) < HANG_S
        event = json.loads(body)
        assert (event["person"], event["row"], event["id"]) == ("anna", "a", headers["Vireid-Event"])


def test_a_channel_that_answers_after_the_store_was_closed_ends_quietly_and_gets_the_alarm_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "END_S", 0.01)
    asked, answered = threading.Event(), threading.Event()

    def slow(event: Any) -> None:
        asked.set()
        assert answered.wait(HANG_S)

    store = WatchStore(tmp_path / "watch.sqlite")
    alarms = Alarms(store, Audit(tmp_path / "audit.jsonl"), {"webhook": slow})
    alarms.start()
    alarms.check(watchlist(), [row("a", 1.0)])
    assert asked.wait(HANG_S)
    alarms.stop()
    store.close()
    answered.set()
    for thread in alarms._threads:
        thread.join(HANG_S)  # pytest makes a failure of an error in a thread
        assert not thread.is_alive()
    again = WatchStore(tmp_path / "watch.sqlite")
    assert again.waiting() == 1
    again.close()


def test_a_webhook_that_is_not_there_is_a_failed_delivery(store: WatchStore) -> None:
    send = webhook(Webhook(url="http://127.0.0.1:1/x", secret=SECRET, timeout_s=1))
    with pytest.raises(DeliveryError, match="did not answer"):
        send({"id": "1"})


# --- a broker ---------------------------------------------------------------------------------------------------------


class Broker(socketserver.StreamRequestHandler):
    """The packets of MQTT 3.1.1 that one publication at quality of service 1 needs."""

    def handle(self) -> None:
        while head := self.rfile.read(1):
            length, shift = 0, 0
            while True:
                byte = self.rfile.read(1)[0]
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            body = self.rfile.read(length)
            if head[0] >> 4 == 1:  # CONNECT
                self.wfile.write(bytes([0x20, 2, 0, self.server.refuse]))  # type: ignore[attr-defined]
            elif head[0] >> 4 == 3:  # PUBLISH
                size = int.from_bytes(body[:2], "big")
                topic, packet, payload = body[2 : 2 + size], body[2 + size : 4 + size], body[4 + size :]
                self.server.came.append((topic.decode(), json.loads(payload)))  # type: ignore[attr-defined]
                self.wfile.write(bytes([0x40, 2]) + packet)


@pytest.fixture
def broker() -> Iterator[Any]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Broker) as server:
        server.daemon_threads = True
        server.came, server.refuse = [], 0  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def test_a_broker_acknowledges_an_event(broker: Any) -> None:
    pytest.importorskip("paho.mqtt", reason="needs the extra `mqtt`")
    port = broker.server_address[1]
    reached = Mqtt(host="127.0.0.1", port=port, topic="site/alarms", user="u", password="p", timeout_s=HANG_S)
    mqtt(reached)({"id": "1", "person": "anna"})
    assert broker.came == [("site/alarms", {"id": "1", "person": "anna"})]
    broker.refuse = 5  # not authorized
    with pytest.raises(DeliveryError, match="did not acknowledge"):
        mqtt(Mqtt(host="127.0.0.1", port=port, timeout_s=0.5))({"id": "2"})
    with pytest.raises(DeliveryError, match="cannot be reached"):
        mqtt(Mqtt(host="127.0.0.1", port=1))({"id": "3"})
