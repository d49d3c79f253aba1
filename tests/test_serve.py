"""The example service, on a free port, with a tiny model: good, bad, too large and simultaneous uploads, and its end."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection

import pandas as pd
import pytest
import torch
from test_examples import EXAMPLES, load

import multihead as mh

serve = load("serve")
LIMIT = 2**20


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = mh.Model("test_resnet", heads=[head.on(mh.FULL.resized(32)) for head in mh.HEADS])
    for head in model.head.values():
        torch.nn.init.normal_(head.weight, std=2)  # answers that differ
    return model.eval()


@contextmanager
def serving(model):
    with serve.Service(model, port=0, limit=LIMIT) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(model):
    with serving(model) as server:
        yield server


def ask(server, method="POST", path="/predict", body=None, headers=None):
    """(status, content) of a request; content that is no strict JSON fails."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read(), parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    finally:
        connection.close()


@pytest.fixture(scope="module")
def photos(people):
    return [path.read_bytes() for path in sorted((people / "train" / "images").rglob("*.jpg"))[:12]]


def check_rows(rows, model, photo):
    expected = mh.predict(model, photo).to_dict("records")
    assert [list(row) for row in rows] == [list(row) for row in expected]
    for row, other in zip(rows, expected):
        assert row == pytest.approx(other, abs=1e-6)


def test_it_lives(server):
    assert ask(server, "GET", "/health") == (200, {"status": "ok"})


def test_a_photo_gets_the_rows_of_predict(server, model, photos):
    status, rows = ask(server, body=photos[0])
    assert status == 200 and len(rows) == 1
    check_rows(rows, model, photos[0])


def test_faces_are_handed_on(server, photos, monkeypatch):
    seen = []

    def predict(model, photo, *, faces, workers):
        seen.append(faces)
        return pd.DataFrame({"mask": ["worn", "not_worn"], "mask:worn": [0.75, float("nan")], "error": ["", ""]})

    monkeypatch.setattr(mh, "predict", predict)
    status, rows = ask(server, path="/predict?faces=all", body=photos[0])
    assert (status, seen) == (200, ["all"])
    assert [row["mask:worn"] for row in rows] == [0.75, None]  # NaN is no JSON
    ask(server, body=photos[0])
    assert seen == ["all", None]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("POST", "/predict", b"", 400, "0 bytes: empty file"),
        ("POST", "/predict", b"no photo", 400, "not an image"),
        ("POST", "/predict", b"\xff\xd8\xff\xe0", 400, "truncated JPEG"),
        (
            "POST",
            "/predict?faces=two",
            b"a",
            400,
            "'faces=two'; expected nothing or faces=, one of largest, central, all",
        ),
        ("POST", "/predict?face=all", b"a", 400, "'face=all'; expected nothing or faces="),
        ("POST", "/", b"a", 404, "/; expected /predict"),
        ("GET", "/predict", None, 404, "expected /health"),
    ],
)
def test_what_cannot_be_answered_is_told(server, method, path, body, status, reason):
    found, content = ask(server, method, path, body)
    assert found == status and reason in content["error"]


@pytest.mark.parametrize("length", ["", "-1", "1e3", "²", "9" * 5000])
def test_a_photo_without_its_length_is_refused(server, length):
    headers = {"Content-Length": length.encode()} if length else {"Transfer-Encoding": "chunked"}
    status, content = ask(server, headers=headers)
    assert status == 411 and "expected the number of the photo's bytes" in content["error"]


@pytest.mark.parametrize("excess", [1, 7 * LIMIT])  # more than sockets hold: it is read, or the reply would be lost
def test_too_large_a_photo_is_refused_and_the_next_is_answered(server, photos, excess):
    status, content = ask(server, body=bytes(LIMIT + excess))
    assert status == 413 and content["error"] == f"{LIMIT + excess} bytes; at most {LIMIT} are taken"
    assert ask(server, body=photos[0])[0] == 200
    assert ask(server, body=bytes(LIMIT))[0] == 400  # as large as may be, and no photo


def test_a_client_that_hangs_up_or_falls_silent_is_let_go(server, photos, monkeypatch):
    assert 0 < serve.Handler.timeout <= 60
    monkeypatch.setattr(serve.Handler, "timeout", 0.2)
    start = b"POST /predict HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as silent:
        silent.sendall(start)
        assert silent.recv(1000) == b""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as short:
        short.sendall(start)
        short.shutdown(socket.SHUT_WR)
        reply = b"".join(iter(lambda: short.recv(1000), b""))
    assert b" 400 " in reply and b"3 bytes came of 9" in reply
    assert ask(server, body=photos[0])[0] == 200


def test_many_at_once_get_their_own_rows(server, model, photos):
    with ThreadPoolExecutor(len(photos)) as pool:
        found = list(pool.map(lambda photo: ask(server, body=photo), photos))
    for photo, (status, rows) in zip(photos, found, strict=True):
        assert status == 200
        check_rows(rows, model, photo)
    assert len({json.dumps(rows) for _, rows in found}) > 1


def test_requests_do_not_wait_for_each_other(server, photos, monkeypatch):
    server.turns = threading.BoundedSemaphore(3)
    real, together = mh.predict, threading.Barrier(3, timeout=30)

    def predict(*given, **named):
        together.wait()  # breaks where one is answered after the other
        return real(*given, **named)

    monkeypatch.setattr(mh, "predict", predict)
    with ThreadPoolExecutor(3) as pool:
        assert [status for status, _ in pool.map(lambda photo: ask(server, body=photo), photos[:3])] == [200] * 3


def test_turns_bound_the_photos_in_memory(server, photos, monkeypatch):
    server.turns = threading.BoundedSemaphore(1)
    real, inside, most = mh.predict, [], []

    def predict(*given, **named):
        inside.append(1)
        most.append(len(inside))
        try:
            return real(*given, **named)
        finally:
            inside.pop()

    monkeypatch.setattr(mh, "predict", predict)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda photo: ask(server, body=photo), photos[:6]))
    assert most == [1] * 6


def test_who_has_asked_is_answered_before_the_server_ends(model, photos, monkeypatch):
    real, begun, go_on = mh.predict, threading.Event(), threading.Event()

    def predict(*given, **named):
        begun.set()
        assert go_on.wait(30)
        return real(*given, **named)

    monkeypatch.setattr(mh, "predict", predict)
    with ThreadPoolExecutor(1) as pool:
        with serving(model) as server:
            asked = pool.submit(ask, server, body=photos[0])
            assert begun.wait(30)
            later = threading.Timer(1, go_on.set)
            later.start()
        ended = go_on.is_set()
        assert ended and asked.result(30)[0] == 200
        later.join()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(model, photos, tmp_path, number):
    model.save_pretrained(tmp_path / "model")
    command = [sys.executable, str(EXAMPLES / "serve.py"), str(tmp_path / "model"), "0"]
    # a shell that starts the tests in the background has told them to ignore SIGINT
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, preexec_fn=heed, **pipes) as child:
        try:
            line = child.stdout.readline()
            assert line.startswith("POST photos to http://127.0.0.1:"), child.stderr.read()
            child.server_port = int(line.rpartition(":")[2].partition("/")[0])
            assert ask(child, body=photos[0])[0] == 200
            child.send_signal(number)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 0 and "Traceback" not in said and "POST /predict" in said
