"""Cameras on loopback: an RTSP server and an MJPEG server, whose stream can be cut, frozen, resized and restarted.

The RTSP server hands out RTP over the connection of the client (RFC 2326, 10.12). FFmpeg's own muxer makes the RTP and
the sender reports of RTCP; what is written here is the conversation before it.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from filmed import draw
from PIL import Image

FPS = 10


class Scene:
    """What a camera sees: `picture(n)` is its nth frame; `frozen` sends nothing, `size` changes the frames.

    Those who walk begin from the start every 6 s.
    """

    def __init__(self, people: int = 2, walk: bool = True) -> None:
        self.people, self.walk, self.frozen, self.size = people, walk, threading.Event(), (0, 0)

    def picture(self, number: int) -> np.ndarray:
        picture = draw(number % 1024, (number % 60) / FPS if self.walk else 0.0, self.people)
        if self.size == (0, 0):
            return picture
        return np.asarray(Image.fromarray(picture).resize(self.size, Image.Resampling.NEAREST))


class Server(socketserver.ThreadingTCPServer):
    """Serves one scene on a free port, or on the one given, until `stop`, which cuts every connection."""

    allow_reuse_address, daemon_threads = True, True

    def __init__(self, scene: Scene, handler: type[socketserver.BaseRequestHandler], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.scene, self.clients, self.connections = scene, list[socket.socket](), 0
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        self.clients.append(request)
        super().process_request(request, client_address)

    def cut(self) -> None:
        """End all connections; new ones are accepted."""
        while self.clients:
            with contextlib.suppress(OSError):
                self.clients.pop().shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.cut()


def numbers(scene: Scene) -> Iterator[int]:
    """Numbers of frames at their times, none while it is frozen."""
    number, due = 0, time.monotonic()
    while True:
        time.sleep(max(0.0, due - time.monotonic()))
        due += 1 / FPS
        if not scene.frozen.is_set():
            yield number
        number += 1


class Mjpeg(socketserver.StreamRequestHandler):
    """multipart/x-mixed-replace, as network cameras have it."""

    def handle(self) -> None:
        scene = self.server.scene  # type: ignore[attr-defined]
        while self.rfile.readline() not in (b"\r\n", b""):
            pass
        with contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=frame\r\n\r\n")
            for number in numbers(scene):
                file = io.BytesIO()
                Image.fromarray(scene.picture(number)).save(file, "JPEG", quality=90)
                data = file.getvalue()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")


class Rtsp(socketserver.StreamRequestHandler):
    """One client, one H.264 track, RTP over the connection itself."""

    def handle(self) -> None:
        with contextlib.suppress(OSError, ConnectionError), Rtp(self.server.scene) as rtp:  # type: ignore[attr-defined]
            lock, done = threading.Lock(), threading.Event()

            def send(channel: int, data: bytes) -> None:
                with lock:
                    self.wfile.write(b"$" + bytes([channel]) + len(data).to_bytes(2, "big") + data)

            while request := self.request_head():
                method, url, sequence = request
                head = f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\nSession: 1\r\n"
                body = ""
                if method == "OPTIONS":
                    head += "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n"
                elif method == "DESCRIBE":
                    body = rtp.sdp
                    head += f"Content-Base: {url}/\r\nContent-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
                elif method == "SETUP":
                    head += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                with lock:
                    self.wfile.write(f"{head}\r\n{body}".encode())
                if method == "PLAY":
                    rtp.play(send, done)
                    threading.Thread(target=self.close_when, args=(done,), daemon=True).start()
            done.set()

    def close_when(self, done: threading.Event) -> None:
        done.wait()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def request_head(self) -> tuple[str, str, str] | None:
        """Method, address and sequence number of the next request; reports of the client are passed over."""
        while first := self.rfile.read(1):
            if first == b"$":
                self.rfile.read(int.from_bytes(self.rfile.read(3)[1:], "big"))
                continue
            lines = [(first + self.rfile.readline()).decode()]
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                lines.append(line.decode())
            sequence = re.search(r"CSeq: *(\d+)", "".join(lines), re.IGNORECASE)
            method, url, _ = lines[0].split(" ", 2)
            return method, url.rstrip("/"), sequence[1] if sequence else "0"
        return None


class Rtp:
    """H.264 of a scene as packets of RTP and RTCP, which FFmpeg writes to two sockets here."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def __enter__(self) -> Rtp:
        self.rtp, self.rtcp = pair()
        port = self.rtp.getsockname()[1]
        self.container: Any = av.open(f"rtp://127.0.0.1:{port}", "w", format="rtp")
        height, width = self.scene.picture(0).shape[:2]
        self.encoder: Any = self.container.add_stream("libx264", rate=FPS, options={"tune": "zerolatency"})
        self.encoder.width, self.encoder.height, self.encoder.pix_fmt = width, height, "yuv420p"
        self.encoder.codec_context.gop_size = FPS
        self.container.start_encoding()  # frames count from now: none is dated after it was made
        self.sdp = (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
            "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
        )
        return self

    def play(self, send: Callable[[int, bytes], None], done: threading.Event) -> None:
        for channel, incoming in enumerate((self.rtp, self.rtcp)):
            threading.Thread(target=self.relay, args=(channel, incoming, send, done), daemon=True).start()
        threading.Thread(target=self.encode, args=(done,), daemon=True).start()

    def encode(self, done: threading.Event) -> None:
        first: tuple[int, ...] | None = None
        for number in numbers(self.scene):
            picture = self.scene.picture(number)
            first = first or picture.shape
            if done.is_set() or picture.shape != first:  # a camera whose size is changed begins again
                done.set()
                return
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            self.container.mux(self.encoder.encode(frame))

    def relay(
        self, channel: int, incoming: socket.socket, send: Callable[[int, bytes], None], done: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while not done.is_set():
                send(channel, incoming.recv(1 << 16))

    def __exit__(self, *_: object) -> None:
        self.rtp.close()
        self.rtcp.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets on ports that follow each other."""
    while True:
        first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        first.bind(("127.0.0.1", 0))
        with contextlib.suppress(OSError):
            second.bind(("127.0.0.1", first.getsockname()[1] + 1))
            return first, second
        first.close()
        second.close()
