"""Seconds that `all_listeners` takes over 1,000 accounts, on a server that answers after 20 ms."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from eventflows import EventListeners

ACCOUNTS = 1_000
PAGE = 50
LATENCY = 0.02  # seconds


class Handler(BaseHTTPRequestHandler):
    """Pages of users, and one listener for each."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet

    def do_GET(self) -> None:
        """Answer late."""
        time.sleep(LATENCY)
        body: object = [{"id": 1, "sourceType": "AmazonSQS"}]
        if not self.path.endswith("/event-listeners"):
            start = int(self.path.partition("marker=")[2] or 0)
            end = start + PAGE
            body = {
                "marker": str(end) if end < ACCOUNTS else "",
                "results": [{"id": str(n)} for n in range(start, end)],
            }
        raw = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main() -> None:
    """Measure once and print."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = EventListeners(f"http://127.0.0.1:{server.server_port}", api_key="own", admin_api_key="admin")
        began = time.perf_counter()
        listing = client.all_listeners()
        seconds = time.perf_counter() - began
        client.close()
        server.shutdown()
    print(f"{len(listing.accounts)} accounts, {len(listing.refused)} refused: {seconds:.2f} s")


if __name__ == "__main__":
    main()
