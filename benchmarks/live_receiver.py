"""A receiver of alarms: checks the signature, writes the event to a file of JSON lines, and only then acknowledges it.

python benchmarks/live_receiver.py events.jsonl --port 8770 --secret SECRET
"""

from __future__ import annotations

import argparse
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from vireid.live.channels import signature


def handler(path: Path, secret: str) -> type[BaseHTTPRequestHandler]:
    class Receiver(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # whether it runs
            self.send_response(200)
            self.end_headers()

        def do_POST(self) -> None:
            at_s = time.time()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            signed = self.headers["Vireid-Signature"]
            if signature(secret, body, int(signed.partition(",")[0].removeprefix("t="))) != signed:
                self.send_error(403)
                return
            with path.open("a") as file:
                file.write(json.dumps({"received_s": at_s, **json.loads(body)}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Receiver


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", type=Path)
    parser.add_argument("--port", type=int, default=8770)
    parser.add_argument("--secret", required=True)
    options = parser.parse_args()
    ThreadingHTTPServer(("127.0.0.1", options.port), handler(options.events, options.secret)).serve_forever()


if __name__ == "__main__":
    main()
