"""Bodies of any size and shape cost the server little: refused in time, with bounded memory, and nothing is stored."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scenarios.server import Reply, Server

MB = 1_000_000
GROWTH_MB = 250
"""What a body that is refused may cost at its peak: of a batch 64 MiB are read before it is known to be too much."""
TAKEN_MB = 200
"""What the largest message that is taken in costs at its peak: a few copies of it, not one a column."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("large")) as server:
        server.start()
        yield server


def peak_mb(server: Server) -> float:
    """The most memory that the process ever had."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))


@contextmanager
def untouched(server: Server) -> Iterator[None]:
    """Nothing is stored, the process lives and has not grown out of bounds, and the log is silent."""
    before, logged = peak_mb(server), server.log.read_text("utf-8")
    yield
    assert peak_mb(server) - before < GROWTH_MB
    assert server.all_messages() == []
    assert server.ask("GET", "/health/ready").status == 200
    new = server.log.read_text("utf-8").removeprefix(logged).splitlines()
    assert [line for line in new if "Invalid HTTP request received." not in line] == []


def spoken(server: Server, head: str, parts: Iterator[bytes], path: str = "/api/v1/messages") -> Reply:
    """What the server answers while it is being talked to; it may stop listening at any moment."""
    lines = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.key}\r\n{head}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
        line.sendall(lines.encode())
        try:
            for part in parts:
                line.sendall(part)
        except OSError:
            pass  # it has heard enough
        answer = b""
        try:
            while part := line.recv(65_536):
                answer += part
                if b"\r\n\r\n" in answer and answer.endswith((b"}", b"0\r\n\r\n")):
                    break
        except OSError:
            pass
    if not answer:
        return Reply(0, {}, b"")
    top, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = top.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return Reply(int(first.split()[1]), headers, body)


def is_problem(reply: Reply, status: int, said: str) -> None:
    assert reply.status == status, (reply.status, reply.body[:200])
    assert reply.headers["content-type"] == "application/problem+json"
    assert said in reply.json["detail"]


def chunked(part: bytes, times: int) -> Iterator[bytes]:
    for _ in range(times):
        yield b"%x\r\n" % len(part) + part + b"\r\n"
    yield b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("path", "size", "most"), [("/messages", 30 * MB, 16_777_216), ("/messages/batch", 100 * MB, 67_108_864)]
)
def test_a_body_that_says_how_large_it_is_is_refused_unread(
    server: Server, path: str, size: int, most: int
) -> None:
    text = b'{"channel":"webhook","text":"' + b"x" * (size - 31) + b'"}'
    pieces = iter([text[at : at + MB] for at in range(0, len(text), MB)])
    with untouched(server):
        head = f"Content-Type: application/json\r\nContent-Length: {len(text)}"
        is_problem(spoken(server, head, pieces, "/api/v1" + path), 413, f"at most {most:,} bytes")


@pytest.mark.parametrize("kind", ["json", "x-ndjson"])
def test_a_body_in_chunks_is_read_to_the_bound_and_no_further(server: Server, kind: str) -> None:
    path = "/api/v1/messages" + ("/batch" if kind == "x-ndjson" else "")
    with untouched(server):
        head = f"Content-Type: application/{kind}\r\nTransfer-Encoding: chunked"
        reply = spoken(server, head, chunked(b" " * (MB - 1) + b"\n", 120), path)
        is_problem(reply, 413, "bytes are taken here")


def test_chunks_without_end_are_cut_off(server: Server) -> None:
    """The server says no, listens a little longer so that the client can hear it, and hangs up."""
    endless = (b"%x\r\n" % MB + b" " * MB + b"\r\n" for _ in range(100_000))
    with untouched(server):
        head = "Content-Type: application/json\r\nTransfer-Encoding: chunked"
        reply = spoken(server, head, endless)
        assert reply.status in {0, 413}  # a client that never reads may miss the answer
    assert next(endless, None) is not None


def test_the_largest_message_that_fits_is_taken_or_refused_whole(server: Server) -> None:
    body = {"channel": "webhook", "to": "http://127.0.0.1:1/", "delay": "1h", "payload": "x" * (16 * MB)}
    before = peak_mb(server)
    reply = server.ask("POST", "/api/v1/messages", body)
    assert reply.status == 202, reply.body[:200]
    assert peak_mb(server) - before < TAKEN_MB
    id_ = reply.json["id"]
    assert len(server.get(id_)["payload"]) == 16 * MB
    assert server.ask("DELETE", f"/api/v1/messages/{id_}").status == 204


@pytest.mark.parametrize(
    ("opening", "levels"), [("[", 100_000), ('{"a":', 100_000), ('[{"a":', 50_000), ("[", 15_000_000)]
)
def test_any_depth_is_refused(server: Server, opening: str, levels: int) -> None:
    closing = opening.translate({ord("["): "]", ord("{"): "}"})[::-1].replace(':"a"', "")
    with untouched(server), server.line() as line:
        for path in ("/messages", "/messages/batch", "/messages/actions", "/keys"):
            for text in (opening * levels, f'{{"payload":{opening * levels}1{closing * levels}}}'):
                reply = line.ask_raw("POST", "/api/v1" + path, text.encode()[: 16 * MB])
                is_problem(reply, 400, "nested deeper than 100 levels")


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        ("Content-Length: 9\r\nContent-Length: 11", b'{"a": 1}  ', 400),
        ("Content-Length: -1", b"{}", 400),
        ("Content-Length: x", b"{}", 400),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked", b"ZZ\r\n{}\r\n0\r\n\r\n", 400),
        ("Content-Length: 2", b'{"channel":"webhook"}', 400),  # what comes behind it is no request
        ("X: \x01", b"{}", 400),
    ],
)
def test_a_length_that_is_wrong_stores_nothing(server: Server, head: str, body: bytes, status: int) -> None:
    with untouched(server):
        reply = spoken(server, "Content-Type: application/json\r\n" + head, iter([body]))
        is_problem(reply, status, "not a request that HTTP knows")


def test_a_client_that_sends_less_than_it_said_stores_nothing(server: Server) -> None:
    message = json.dumps({"channel": "webhook", "to": "http://127.0.0.1:1/", "payload": 1}).encode()
    with untouched(server), socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
        head = f"POST /api/v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.key}\r\n"
        line.sendall(f"{head}Content-Length: {len(message) + 1}\r\n\r\n".encode() + message)
        line.shutdown(socket.SHUT_WR)
        assert b"202" not in line.recv(65_536)
