"""A saved model as an HTTP service: a photo's bytes in, the rows of `multihead.predict` out as JSON, several at once.

python examples/serve.py MODEL [PORT]    # by default 8000, for this machine alone; Ctrl-C or SIGTERM ends it
curl --data-binary @photo.jpg "localhost:8000/predict?faces=all"
"""

import contextlib
import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import multihead as mh

LIMIT = 20 * 2**20  # bytes of an upload
FACES = ("largest", "central", "all")


class Service(ThreadingHTTPServer):
    """The server of a model; `serve_forever` answers. port: 0 for a free one. limit: bytes of an upload."""

    request_queue_size, daemon_threads = 64, False  # who has asked is answered before the server ends

    def __init__(self, model, port=8000, limit=LIMIT):
        super().__init__(("127.0.0.1", port), Handler)
        self.model, self.limit, self.turns = model, limit, threading.BoundedSemaphore(os.cpu_count() or 1)


class Handler(BaseHTTPRequestHandler):
    """One request to a `Service`."""

    protocol_version = "HTTP/1.1"  # curl asks before it sends a large photo
    timeout = 10  # seconds that a client may be silent

    def do_GET(self):
        self.reply(*((200, {"status": "ok"}) if self.path == "/health" else (404, {"error": "expected /health"})))

    def do_POST(self):
        url, length = urlsplit(self.path), self.headers.get("Content-Length", "")
        asked = dict(parse_qsl(url.query, keep_blank_values=True))
        if not (length.isascii() and length.isdigit() and len(length) < 19):
            self.reply(411, {"error": f"Content-Length is {length!r}; expected the number of the photo's bytes"})
        elif int(length) > self.server.limit:
            self.reply(413, {"error": f"{length} bytes; at most {self.server.limit} are taken"})
            self.drain(min(int(length), 10 * self.server.limit))
        elif len(photo := self.rfile.read(int(length))) < int(length):
            self.reply(400, {"error": f"{len(photo)} bytes came of {length}"})
        elif url.path != "/predict":
            self.reply(404, {"error": f"{url.path}; expected /predict"})
        elif asked.keys() - {"faces"} or asked.get("faces", "all") not in FACES:
            self.reply(400, {"error": f"{url.query!r}; expected nothing or faces=, one of {', '.join(FACES)}"})
        else:
            self.reply(*self.answer(photo, asked.get("faces")))

    def answer(self, photo, faces):
        """The status and content of the reply to a photo's bytes."""
        with self.server.turns:  # no more decoded photos in memory than cores
            rows = mh.predict(self.server.model, photo, faces=faces, workers=1)
        failed = rows.error[rows.error != ""].tolist()
        return (400, {"error": failed[0]}) if failed else (200, json.loads(rows.to_json(orient="records")))

    def drain(self, left):
        """Read on: who is cut off while sending does not see the reply."""
        with contextlib.suppress(OSError):
            while left > 0 and (part := self.rfile.read1(min(left, 2**16))):
                left -= len(part)

    def reply(self, status, content):
        body = json.dumps(content, allow_nan=False).encode()
        self.send_response(status)
        for header in ("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close"):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)


def main(model, port=8000):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    with contextlib.suppress(KeyboardInterrupt), Service(mh.load(model), int(port)) as server:
        print(f"POST photos to http://127.0.0.1:{server.server_port}/predict", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    from start import told, words

    with told():
        main(*words(1, 2))
